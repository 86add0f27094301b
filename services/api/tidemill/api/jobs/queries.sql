-- name: script_by_path
SELECT s.path, s.hash, s.language, s.tag, s.envs, s.timeout_s, s.concurrent_limit, s.concurrency_key, s.priority,
       s.visible_to_runner_only
FROM platform.script s
WHERE s.workspace_id = $1 AND s.path = $2 AND NOT s.archived AND NOT s.deleted AND platform.may_read(s.path, $3, $4);

-- name: script_by_hash
-- An archived version still runs by its hash.
SELECT s.path, s.hash, s.language, s.tag, s.envs, s.timeout_s, s.concurrent_limit, s.concurrency_key, s.priority,
       s.visible_to_runner_only
FROM platform.script s
WHERE s.workspace_id = $1 AND s.hash = $2 AND NOT s.deleted AND platform.may_read(s.path, $3, $4);

-- name: request
SELECT r.said FROM queue.request_job($1, $2, $3) r;

-- name: count_waiting
-- No further than it matters.
SELECT count(*) FROM (
    SELECT FROM queue.unfinished_job u WHERE u.workspace_id = $1 AND u.state IN ('queued', 'blocked') LIMIT $2) w;

-- name: ended
-- LATERAL with a LIMIT: each job is looked up in its own partition, whatever the planner believes about the others.
SELECT w.id, e.outcome, e.result
FROM unnest($1::uuid[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT j.outcome, j.result FROM queue.any_job j
    WHERE j.id = w.id AND j.born = (SELECT queue.locate(w.id)) AND j.outcome IS NOT NULL LIMIT 1) e;

-- name: read
-- Visible to admins, to who asked for it, to whom it runs as, and, unless that was not wanted, to readers of its path.
SELECT j.id, j.workspace_id, j.kind, j.path, j.hash, j.language, CASE WHEN $6 THEN j.code END AS code, j.args, j.tag, j.priority,
       j.due_at, j.parent_job, j.root_job, j.trigger_kind, j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.email,
       j.state, j.outcome, j.result, j.started_at, j.finished_at, j.worker, j.canceled_by, j.canceled_reason, j.memory_peak_kb,
       j.labels, j.last_beat, j.worker_draining, j.deleted,
       CASE WHEN $5 THEN (
           SELECT string_agg(c.text, '' ORDER BY c.claim_no, c.seq) FROM queue.job_log c
           WHERE c.job_id = $2 AND c.born = (SELECT queue.locate($2))) END AS logs
FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1
  AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
       OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4));

-- name: read_brief
-- The same without what may be large, and whether the viewer may stop it.
SELECT j.state, j.outcome, j.root_job, j.worker_draining,
       $4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
       OR j.path IS NOT NULL AND platform.may_write(j.path, $3, $4) AS may_cancel
FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1
  AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
       OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4));

-- name: read_result
SELECT j.state, j.outcome, j.result, j.created_at, j.started_at, j.finished_at
FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1
  AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
       OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4));

-- name: read_update
-- State and log in one statement: who hears that it has ended has all that it printed.
SELECT j.state, j.outcome, j.memory_peak_kb, coalesce(l.tail, '') AS tail, coalesce(l.tail_from, 0) AS tail_from,
       coalesce(l.units, 0) AS units, coalesce(r.tail, '') AS stream, coalesce(r.tail_from, 0) AS stream_from,
       coalesce(r.units, 0) AS stream_units
FROM queue.any_job j
LEFT JOIN LATERAL (
    SELECT string_agg(c.text, '' ORDER BY c.claim_no, c.seq) FILTER (WHERE c.ends > $5) AS tail,
           min(c.ends - c.units) FILTER (WHERE c.ends > $5) AS tail_from, max(c.ends) AS units
    FROM (
        SELECT p.claim_no, p.seq, p.text, p.units, sum(p.units) OVER (ORDER BY p.claim_no, p.seq) AS ends
        FROM queue.job_log p WHERE p.job_id = $2 AND p.born = (SELECT queue.locate($2))) c
) l ON $6
CROSS JOIN LATERAL (
    SELECT string_agg(c.text, '' ORDER BY c.claim_no, c.seq) FILTER (WHERE c.ends > $7) AS tail,
           min(c.ends - c.units) FILTER (WHERE c.ends > $7) AS tail_from, max(c.ends) AS units
    FROM (
        SELECT p.claim_no, p.seq, p.text, p.units, sum(p.units) OVER (ORDER BY p.claim_no, p.seq) AS ends
        FROM queue.job_stream p WHERE p.job_id = $2 AND p.born = (SELECT queue.locate($2))) c
) r
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1
  AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
       OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4));

-- name: cancel
SELECT c.answer, c.worker_run, c.reply_to, c.said FROM queue.cancel_job($1, $2, $3, $4, $5, $6) c;

-- name: cancelable
-- Those of the jobs that the viewer may stop.
SELECT w.id
FROM unnest($2::uuid[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT FROM queue.any_job j
    WHERE j.id = w.id AND j.born = (SELECT queue.locate(w.id)) AND j.workspace_id = $1
      AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
           OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4) AND platform.may_write(j.path, $3, $4))
    LIMIT 1) j;

-- name: cancel_many
SELECT c.id, c.answer, c.worker_run, c.reply_to, c.said FROM queue.cancel_jobs($1, $2, $3, $4, $5, $6) c;

-- name: run_now
SELECT r.answer, r.said FROM queue.run_now($1, $2, $3) r;

-- name: forget
SELECT f.answer, f.said FROM queue.forget_job($1, $2, $3) f;

-- name: count_unfinished
SELECT count(*) AS unfinished, count(*) FILTER (WHERE u.state = 'suspended') AS suspended
FROM queue.unfinished_job u WHERE u.workspace_id = $1;

-- name: count_finished
-- All less the unfinished: counted along an index, without a look at how each of them ended.
SELECT (SELECT count(*) FROM queue.any_job j WHERE j.workspace_id = $1)
     - (SELECT count(*) FROM queue.unfinished_job u WHERE u.workspace_id = $1);

-- name: explain
SELECT queue.explain_job($1, $2);

-- name: position
SELECT count(*) + 1 FROM queue.unfinished_job u
WHERE u.workspace_id = $1 AND u.state IN ('queued', 'blocked', 'scheduled') AND u.due_at < $2;

-- name: clock
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- name: list_any
-- First which jobs, along the index (workspace, born, id), then how each of them is, by its key: the first page reads
-- little more than its rows, whatever the planner believes. The outer filters are those on what happens later.
-- `born` never lies before `created_at` by more than two clocks differ, so it may cut off the old end.
SELECT j.id, j.workspace_id, j.kind, j.path, j.hash, j.language, j.tag, j.priority, j.due_at, j.parent_job, j.trigger_kind,
       j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.email, j.state, j.outcome, j.started_at, j.finished_at,
       j.worker, j.canceled_by, j.canceled_reason, j.memory_peak_kb, j.labels, j.last_beat, j.deleted
FROM (
    SELECT a.id, a.born FROM queue.any_job a
    WHERE a.workspace_id = $1
      AND ($3 OR a.created_by = $2 OR a.permissioned_as = 'u/' || $2
           OR a.visible_to_owner AND a.path IS NOT NULL AND platform.may_read(a.path, $2, $3))
      AND ($6::text[] IS NULL OR coalesce(a.created_by = ANY ($6), false) <> ('created_by' = ANY ($25::text[])))
      AND ($7::text[] IS NULL OR coalesce(a.path = ANY ($7), false) <> ('script_path_exact' = ANY ($25::text[])))
      AND ($8::text IS NULL OR starts_with(a.path, $8))
      AND ($9::text[] IS NULL OR coalesce(a.hash = ANY ($9), false) <> ('script_hash' = ANY ($25::text[])))
      AND ($10::text[] IS NULL OR coalesce(a.kind = ANY ($10), false) <> ('job_kinds' = ANY ($25::text[])))
      AND ($11::text[] IS NULL OR coalesce(a.tag = ANY ($11), false) <> ('tag' = ANY ($25::text[])))
      AND ($13::text[] IS NULL OR coalesce(a.trigger_kind = ANY ($13), false) <> ('trigger_kind' = ANY ($25::text[])))
      AND ($26::jsonb IS NULL OR queue.json_contains(a.args, $26))
      AND ($14::uuid IS NULL OR a.parent_job = $14)
      AND ($15::boolean IS NULL OR (a.parent_job IS NULL) = $15)
      AND ($18::timestamptz IS NULL OR a.created_at < $18)
      AND ($19::timestamptz IS NULL OR a.created_at > $19 AND a.born > $19 - interval '5 minutes')
    ORDER BY a.born DESC, a.id DESC) k
CROSS JOIN LATERAL (
    SELECT * FROM queue.any_job a WHERE a.id = k.id AND a.born = k.born LIMIT 1) j
WHERE ($12::text[] IS NULL OR coalesce(j.worker = ANY ($12), false) <> ('worker' = ANY ($25::text[])))
  AND ($16::timestamptz IS NULL OR j.started_at < $16)
  AND ($17::timestamptz IS NULL OR j.started_at > $17)
  AND ($20::boolean IS NULL OR (j.outcome IS NOT NULL) = $20)
  AND ($21::text[] IS NULL OR j.outcome = ANY ($21))
  AND ($22::timestamptz IS NULL OR j.finished_at < $22)
  AND ($23::timestamptz IS NULL OR j.finished_at > $23)
  AND ($24::text[] IS NULL OR coalesce(j.labels && $24, false) <> ('label' = ANY ($25::text[])))
  AND ($27::jsonb IS NULL OR queue.json_contains(j.result, $27))
ORDER BY k.born DESC, k.id DESC LIMIT $4 OFFSET $5;

-- name: list_labeled
-- The same from the few jobs outwards that have one of the labels.
SELECT j.id, j.workspace_id, j.kind, j.path, j.hash, j.language, j.tag, j.priority, j.due_at, j.parent_job, j.trigger_kind,
       j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.email, j.state, j.outcome, j.started_at, j.finished_at,
       j.worker, j.canceled_by, j.canceled_reason, j.memory_peak_kb, j.labels, j.last_beat, j.deleted
FROM (
    SELECT a.id, a.born FROM queue.labeled_job l
    CROSS JOIN LATERAL (SELECT * FROM queue.any_job a WHERE a.id = l.id AND a.born = l.born LIMIT 1) a
    WHERE l.labels && $24::text[] AND a.workspace_id = $1
      AND ($3 OR a.created_by = $2 OR a.permissioned_as = 'u/' || $2
           OR a.visible_to_owner AND a.path IS NOT NULL AND platform.may_read(a.path, $2, $3))
      AND ($6::text[] IS NULL OR coalesce(a.created_by = ANY ($6), false) <> ('created_by' = ANY ($25::text[])))
      AND ($7::text[] IS NULL OR coalesce(a.path = ANY ($7), false) <> ('script_path_exact' = ANY ($25::text[])))
      AND ($8::text IS NULL OR starts_with(a.path, $8))
      AND ($9::text[] IS NULL OR coalesce(a.hash = ANY ($9), false) <> ('script_hash' = ANY ($25::text[])))
      AND ($10::text[] IS NULL OR coalesce(a.kind = ANY ($10), false) <> ('job_kinds' = ANY ($25::text[])))
      AND ($11::text[] IS NULL OR coalesce(a.tag = ANY ($11), false) <> ('tag' = ANY ($25::text[])))
      AND ($13::text[] IS NULL OR coalesce(a.trigger_kind = ANY ($13), false) <> ('trigger_kind' = ANY ($25::text[])))
      AND ($26::jsonb IS NULL OR queue.json_contains(a.args, $26))
      AND ($14::uuid IS NULL OR a.parent_job = $14)
      AND ($15::boolean IS NULL OR (a.parent_job IS NULL) = $15)
      AND ($18::timestamptz IS NULL OR a.created_at < $18)
      AND ($19::timestamptz IS NULL OR a.created_at > $19 AND a.born > $19 - interval '5 minutes')
    ORDER BY a.born DESC, a.id DESC) k
CROSS JOIN LATERAL (
    SELECT * FROM queue.any_job a WHERE a.id = k.id AND a.born = k.born LIMIT 1) j
WHERE ($12::text[] IS NULL OR coalesce(j.worker = ANY ($12), false) <> ('worker' = ANY ($25::text[])))
  AND ($16::timestamptz IS NULL OR j.started_at < $16)
  AND ($17::timestamptz IS NULL OR j.started_at > $17)
  AND ($20::boolean IS NULL OR (j.outcome IS NOT NULL) = $20)
  AND ($21::text[] IS NULL OR j.outcome = ANY ($21))
  AND ($22::timestamptz IS NULL OR j.finished_at < $22)
  AND ($23::timestamptz IS NULL OR j.finished_at > $23)
  AND ($27::jsonb IS NULL OR queue.json_contains(j.result, $27))
ORDER BY k.born DESC, k.id DESC LIMIT $4 OFFSET $5;

-- name: list_unfinished
-- From the hot table outwards: the few unfinished jobs may be of any day.
SELECT j.id, j.workspace_id, j.kind, j.path, j.hash, j.language, j.tag, j.priority, j.due_at, j.parent_job, j.trigger_kind,
       j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.email, j.state, j.outcome, j.started_at, j.finished_at,
       j.worker, j.canceled_by, j.canceled_reason, j.memory_peak_kb, j.labels, j.last_beat, j.deleted
FROM (
    SELECT u.id, u.born FROM queue.unfinished_job u
    WHERE u.workspace_id = $1
      AND ($16::text[] IS NULL OR u.state = ANY ($16))
      AND ($17::boolean IS NULL OR (u.due_at <= clock_timestamp()) = $17)
    ORDER BY u.born DESC, u.id DESC) u
CROSS JOIN LATERAL (
    SELECT * FROM queue.any_job a WHERE a.id = u.id AND a.born = u.born LIMIT 1) j
WHERE ($3 OR j.created_by = $2 OR j.permissioned_as = 'u/' || $2
       OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $2, $3))
  AND ($6::text[] IS NULL OR coalesce(j.created_by = ANY ($6), false) <> ('created_by' = ANY ($22::text[])))
  AND ($7::text[] IS NULL OR coalesce(j.path = ANY ($7), false) <> ('script_path_exact' = ANY ($22::text[])))
  AND ($8::text IS NULL OR starts_with(j.path, $8))
  AND ($9::text[] IS NULL OR coalesce(j.hash = ANY ($9), false) <> ('script_hash' = ANY ($22::text[])))
  AND ($10::text[] IS NULL OR coalesce(j.kind = ANY ($10), false) <> ('job_kinds' = ANY ($22::text[])))
  AND ($11::text[] IS NULL OR coalesce(j.tag = ANY ($11), false) <> ('tag' = ANY ($22::text[])))
  AND ($12::text[] IS NULL OR coalesce(j.worker = ANY ($12), false) <> ('worker' = ANY ($22::text[])))
  AND ($13::text[] IS NULL OR coalesce(j.trigger_kind = ANY ($13), false) <> ('trigger_kind' = ANY ($22::text[])))
  AND ($23::jsonb IS NULL OR queue.json_contains(j.args, $23))
  AND ($14::uuid IS NULL OR j.parent_job = $14)
  AND ($15::boolean IS NULL OR (j.parent_job IS NULL) = $15)
  AND ($18::timestamptz IS NULL OR j.started_at < $18)
  AND ($19::timestamptz IS NULL OR j.started_at > $19)
  AND ($20::timestamptz IS NULL OR j.created_at < $20)
  AND ($21::timestamptz IS NULL OR j.created_at > $21)
ORDER BY u.born DESC, u.id DESC LIMIT $4 OFFSET $5;
