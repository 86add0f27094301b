-- name: lock_path
-- Two deployments to one path take turns; what stands there is read in a new statement, after this one.
SELECT pg_advisory_xact_lock(hashtextextended('platform.script ' || $1::text || ' ' || $2::text, 0));

-- name: lock_standing
-- The head of the path and the version that the new one says it follows.
SELECT s.hash, s.path, s.parent_hashes, s.summary, s.description, s.content, s.language, s.kind, s.schema, s.lock, s.tag, s.envs, s.labels,
       s.concurrent_limit, s.concurrency_key, s.priority, s.timeout_s, s.is_template, s.visible_to_runner_only, s.auto_kind,
       s.lock_job IS NOT NULL AS lock_was_found,
       s.lock_job IS NOT NULL AND s.lock IS NULL AND NOT EXISTS (
           SELECT FROM queue.any_job j WHERE j.id = s.lock_job AND j.born = (SELECT queue.locate(s.lock_job)) AND j.outcome IS NULL
       ) AS has_no_lock,
       s.dedicated_worker, s.cache_ttl_s, s.erase_after_s,
       NOT s.archived AND NOT s.deleted AS is_head, platform.may_write(s.path, $4, $5) AS may_write
FROM platform.script s
WHERE s.workspace_id = $1 AND (s.hash = $3 OR s.path = $2 AND NOT s.archived AND NOT s.deleted)
ORDER BY s.hash FOR UPDATE OF s;

-- name: is_served
SELECT EXISTS (SELECT FROM platform.script s WHERE s.workspace_id = $1 AND s.path = $2 AND s.serves);

-- name: stop_serving
UPDATE platform.script SET serves = false WHERE workspace_id = $1 AND path = $2 AND serves;

-- name: find_newest
SELECT s.hash FROM platform.script s WHERE s.workspace_id = $1 AND s.path = $2 ORDER BY s.created_at DESC, s.hash DESC LIMIT 1;

-- name: may_write
SELECT platform.may_write($1, $2, $3);

-- name: insert
INSERT INTO platform.script (workspace_id, hash, path, parent_hashes, summary, description, content, language, kind, schema, lock, tag,
                             envs, labels, concurrent_limit, concurrency_key, priority, timeout_s, is_template,
                             visible_to_runner_only, auto_kind, dedicated_worker, cache_ttl_s, erase_after_s, deployment_message, created_by,
                             lock_job, serves)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28);

-- name: archive
UPDATE platform.script SET archived = true
WHERE workspace_id = $1 AND hash = $2 AND NOT archived AND platform.may_write(path, $3, $4) RETURNING path;

-- name: retire
-- A head that goes takes what serves in its place along: nothing is left to run at the path. What was archived already
-- and serves while its successor's lock is looked for goes alone.
WITH gone AS (
    SELECT s.workspace_id, s.hash, s.path, NOT s.archived AS was_head FROM platform.script s
    WHERE s.workspace_id = $1 AND s.hash = $2 AND (NOT s.archived OR s.serves) AND platform.may_write(s.path, $3, $4)
    FOR UPDATE
), retired AS (
    UPDATE platform.script s SET archived = true, serves = false FROM gone g
    WHERE s.workspace_id = g.workspace_id AND s.hash = g.hash
), serving AS (
    UPDATE platform.script s SET serves = false FROM gone g
    WHERE g.was_head AND s.workspace_id = g.workspace_id AND s.path = g.path AND s.serves AND s.hash <> g.hash
)
SELECT g.path FROM gone g;

-- name: find_head
SELECT s.hash FROM platform.script s WHERE s.workspace_id = $1 AND s.path = $2 AND NOT s.archived AND NOT s.deleted;

-- name: why_no_lock
-- What the jobs that were to find locks have said: nothing as long as they go on, and nothing any more after the retention.
SELECT w.id AS lock_job, j.id IS NOT NULL AS is_known, j.outcome, j.result #>> '{error,message}' AS message
FROM unnest($1::uuid[]) AS w (id)
LEFT JOIN LATERAL (
    SELECT a.id, a.outcome, a.result FROM queue.any_job a WHERE a.id = w.id AND a.born = (SELECT queue.locate(w.id)) LIMIT 1) j ON true;

-- name: head
SELECT s.* FROM platform.script s
WHERE s.workspace_id = $1 AND s.path = $2 AND NOT s.archived AND NOT s.deleted AND platform.may_read(s.path, $3, $4);

-- name: version
SELECT s.* FROM platform.script s
WHERE s.workspace_id = $1 AND s.hash = $2 AND NOT s.deleted AND platform.may_read(s.path, $3, $4);

-- name: serving
SELECT s.hash FROM platform.script s WHERE s.workspace_id = $1 AND s.path = $2 AND s.serves AND NOT s.deleted;

-- name: source_of_head
-- The path as it was asked for goes before the one without the extension.
SELECT s.content FROM platform.script s
WHERE s.workspace_id = $1 AND s.path = ANY (ARRAY[$2, $3]) AND NOT s.archived AND NOT s.deleted AND platform.may_read(s.path, $4, $5)
ORDER BY s.path = $2 DESC LIMIT 1;

-- name: exists
SELECT EXISTS (
    SELECT FROM platform.script s
    WHERE s.workspace_id = $1 AND s.path = $2 AND NOT s.archived AND NOT s.deleted AND platform.may_read(s.path, $3, $4));

-- name: has_history
SELECT EXISTS (
    SELECT FROM platform.script s WHERE s.workspace_id = $1 AND s.path = $2 AND NOT s.deleted AND platform.may_read(s.path, $3, $4));

-- name: history
SELECT s.hash, s.deployment_message, s.created_at, s.created_by FROM platform.script s
WHERE s.workspace_id = $1 AND s.path = $2 AND NOT s.deleted AND platform.may_read(s.path, $3, $4)
ORDER BY s.created_at DESC, s.hash DESC LIMIT $5 OFFSET $6;

-- name: list_paths
SELECT s.path FROM platform.script s
WHERE s.workspace_id = $1 AND NOT s.archived AND NOT s.deleted AND platform.may_read(s.path, $2, $3) ORDER BY s.path;

-- name: list_newest_first
-- The newest version of each path, which is its head or, with `show_archived`, what is left of a path without one.
SELECT s.* FROM platform.script s
WHERE s.workspace_id = $1 AND NOT s.deleted AND platform.may_read(s.path, $2, $3) AND s.archived = $4
  AND ($5::text IS NULL OR starts_with(s.path, $5))
  AND ($6::text IS NULL OR s.path = $6)
  AND ($7::text IS NULL OR s.created_by = $7)
  AND ($8::text[] IS NULL OR s.kind = ANY ($8))
  AND ($9::text[] IS NULL OR s.language = ANY ($9))
  AND ($10::text IS NULL OR $10 = ANY (s.labels))
  AND ($11::boolean IS NULL OR s.is_template = $11)
  AND ($12::text IS NULL OR $12 = ANY (s.parent_hashes))
  AND ($13::boolean IS NULL OR s.dedicated_worker = $13)
  AND (NOT $4 OR NOT EXISTS (
      SELECT FROM platform.script n
      WHERE n.workspace_id = s.workspace_id AND n.path = s.path AND NOT n.deleted AND (n.created_at, n.hash) > (s.created_at, s.hash)))
ORDER BY s.created_at DESC, s.hash DESC LIMIT $14 OFFSET $15;

-- name: list_oldest_first
SELECT s.* FROM platform.script s
WHERE s.workspace_id = $1 AND NOT s.deleted AND platform.may_read(s.path, $2, $3) AND s.archived = $4
  AND ($5::text IS NULL OR starts_with(s.path, $5))
  AND ($6::text IS NULL OR s.path = $6)
  AND ($7::text IS NULL OR s.created_by = $7)
  AND ($8::text[] IS NULL OR s.kind = ANY ($8))
  AND ($9::text[] IS NULL OR s.language = ANY ($9))
  AND ($10::text IS NULL OR $10 = ANY (s.labels))
  AND ($11::boolean IS NULL OR s.is_template = $11)
  AND ($12::text IS NULL OR $12 = ANY (s.parent_hashes))
  AND ($13::boolean IS NULL OR s.dedicated_worker = $13)
  AND (NOT $4 OR NOT EXISTS (
      SELECT FROM platform.script n
      WHERE n.workspace_id = s.workspace_id AND n.path = s.path AND NOT n.deleted AND (n.created_at, n.hash) > (s.created_at, s.hash)))
ORDER BY s.created_at, s.hash LIMIT $14 OFFSET $15;
