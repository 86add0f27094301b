-- name: list_workers
SELECT w.name, w.instance, w.worker_group, w.tags, w.isolation, w.version, w.started_at, w.jobs_executed,
       greatest(0, extract(epoch FROM clock_timestamp() - w.beat_at))::bigint AS silent_s
FROM queue.known_worker w
WHERE w.beat_at > clock_timestamp() - make_interval(secs => $1::integer)
ORDER BY w.beat_at DESC, w.name LIMIT $2 OFFSET $3;
