-- name: script_by_path
SELECT s.path, s.hash, s.language, s.tag, s.envs, s.timeout_s, s.concurrent_limit, s.concurrency_key, s.priority,
       s.visible_to_runner_only, s.cache_ttl_s, s.erase_after_s
FROM platform.script s
WHERE s.workspace_id = $1 AND s.path = $2 AND s.serves AND NOT s.deleted AND platform.may_read(s.path, $3, $4);

-- name: script_by_hash
-- An archived version still runs by its hash.
SELECT s.path, s.hash, s.language, s.tag, s.envs, s.timeout_s, s.concurrent_limit, s.concurrency_key, s.priority,
       s.visible_to_runner_only, s.cache_ttl_s, s.erase_after_s
FROM platform.script s
WHERE s.workspace_id = $1 AND s.hash = $2 AND NOT s.deleted AND platform.may_read(s.path, $3, $4);

-- name: flow_by_path
SELECT f.path, v.id::text AS hash, v.tag, v.timeout_s, v.concurrent_limit, v.concurrency_key, v.priority, v.visible_to_runner_only,
       v.cache_ttl_s, v.erase_after_s, v.has_preprocessor
FROM platform.flow f JOIN platform.flow_version v ON v.id = f.version
WHERE f.workspace_id = $1 AND f.path = $2 AND NOT f.archived AND NOT f.deleted AND platform.may_read(f.path, $3, $4);

-- name: flow_by_version
-- A version of an archived flow still runs by its number.
SELECT f.path, v.id::text AS hash, v.tag, v.timeout_s, v.concurrent_limit, v.concurrency_key, v.priority, v.visible_to_runner_only,
       v.cache_ttl_s, v.erase_after_s, v.has_preprocessor
FROM platform.flow_version v JOIN platform.flow f ON f.id = v.flow_id
WHERE f.workspace_id = $1 AND v.id = $2 AND NOT f.deleted AND platform.may_read(f.path, $3, $4);

-- name: flow_value
SELECT v.value::text FROM platform.flow_version v JOIN platform.flow f ON f.id = v.flow_id WHERE f.workspace_id = $1 AND v.id = $2;

-- name: restartable
SELECT j.kind, j.path, j.hash, j.tag, j.code, j.args, j.outcome, j.deleted,
       (SELECT coalesce(json_agg(json_build_object(
            'no', s.no, 'module', s.module, 'state', s.state, 'total', s.total, 'ended', s.ended, 'failed', s.failed,
            'has_items', s.items IS NOT NULL) ORDER BY s.no), '[]')
        FROM queue.known_step s WHERE s.flow_id = $2 AND s.born = (SELECT queue.locate($2))) AS steps
FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1
  AND ($5::text[] IS NULL OR j.tag = ANY ($5))
  AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
       OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4));

-- name: request
SELECT r.said FROM queue.request_job($1, $2, $3) r;

-- name: count_waiting
-- No further than it matters.
SELECT count(*) FROM (
    SELECT FROM queue.unfinished_job u WHERE u.workspace_id = $1 AND u.state IN ('queued', 'blocked') LIMIT $2) w;

-- name: ended
-- LATERAL with a LIMIT: each job is looked up in its own partition, whatever the planner believes about the others.
-- One that is not there has neither an outcome nor a result.
SELECT w.id, e.outcome, e.result, e.early
FROM unnest($1::uuid[]) AS w (id)
LEFT JOIN LATERAL (
    SELECT j.id, j.outcome, j.result, j.early FROM queue.any_job j
    WHERE j.id = w.id AND j.born = (SELECT queue.locate(w.id)) LIMIT 1) e ON true
WHERE e.id IS NULL OR e.outcome IS NOT NULL OR e.early IS NOT NULL;

-- name: read
-- Visible to admins, to who asked for it, to whom it runs as, and, unless that was not wanted, to readers of its path.
SELECT j.id, j.workspace_id, j.kind, j.path, j.hash, j.language, CASE WHEN $6 AND j.kind <> 'flowpreview' THEN j.code END AS code,
       j.entrypoint, j.args, j.tag, j.priority, j.due_at, j.parent_job, j.root_job, j.scope_job, j.step_id, j.at_step, j.restarted_from, j.trigger_kind, j.visible_to_owner,
       j.created_at, j.created_by, j.permissioned_as, j.email, j.state, j.outcome, j.result, j.started_at, j.finished_at, j.worker,
       j.canceled_by, j.canceled_reason, j.memory_peak_kb, j.labels, j.last_beat, j.worker_draining, j.deleted, j.parked,
       queue.workflow_status(j.id, j.born, 1000) AS workflow_steps,
       CASE WHEN $5 THEN (
           SELECT string_agg(c.text, '' ORDER BY c.claim_no, c.seq) FROM queue.job_log c
           WHERE c.job_id = $2 AND c.born = (SELECT queue.locate($2))) END AS logs
FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1
  AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
       OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4));

-- name: read_brief
-- The same without what may be large, and whether the viewer may stop it.
SELECT j.state, j.outcome, j.root_job, j.due_at, j.worker_draining,
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
SELECT j.kind, j.entrypoint, j.scope_job, j.at_step, j.restarted_from, j.parked, j.state, j.outcome, j.memory_peak_kb, j.progress, coalesce(l.tail, '') AS tail, coalesce(l.tail_from, 0) AS tail_from,
       coalesce(l.units, 0) AS units, coalesce(r.tail, '') AS stream, coalesce(r.tail_from, 0) AS stream_from,
       coalesce(r.units, 0) AS stream_units, queue.workflow_status(j.id, j.born, 100) AS workflow_steps
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

-- name: walk
-- What a flow walks through, and its steps with at most so many of the children of each, as one row. $2: the job whose flow
-- it is in. Of lists only short ones.
SELECT (SELECT CASE
            WHEN a.kind = 'flowpreview' THEN queue.flow_code(a.id)
            WHEN a.hash ~ '^[0-9]{1,18}$' THEN (
                SELECT v.value::text FROM platform.flow_version v JOIN platform.flow f ON f.id = v.flow_id
                WHERE v.id = a.hash::bigint AND f.workspace_id = a.workspace_id) END
        FROM queue.asked_job a WHERE a.id = $2 AND a.born = (SELECT queue.locate($2))) AS value,
       (SELECT coalesce(json_agg(json_build_object(
            'no', s.no, 'module', s.module, 'state', s.state, 'attempt', s.attempt, 'job_id', s.job_id, 'job_state', (
                SELECT u.state FROM queue.unfinished_job u WHERE u.id = s.job_id),
            'outcome', s.outcome, 'failed_retries', s.failed_retries, 'total', s.total, 'started', s.started, 'branch', s.branch,
            'items', CASE WHEN s.state = 'started' AND pg_column_size(s.items) <= 2000 THEN s.items END, 'skipped', s.skipped,
            'needed', s.needed, 'until', s.until,
            'approved', CASE s.state WHEN 'waiting' THEN (
                SELECT count(*) FROM queue.known_resume r
                WHERE r.flow_id = s.flow_id AND r.born = s.born AND r.approved
                  AND (r.spent_on IS NULL AND r.step_job IS NULL OR r.step_job = s.job_id)) END,
            'approvers', (
                SELECT json_agg(json_build_object('resume_id', r.resume_id, 'approver', coalesce(r.approver, 'anonymous')) ORDER BY r.said_at)
                FROM queue.known_resume r
                WHERE r.flow_id = s.flow_id AND r.born = s.born AND r.spent_on = s.no AND r.approved),
            'children', CASE WHEN s.total IS NOT NULL OR s.started > 0 THEN (
                SELECT json_build_object(
                    'ids', json_agg(c.job_id ORDER BY c.index),
                    'success', json_agg(CASE c.state WHEN 'started' THEN NULL WHEN 'ended' THEN c.outcome IN ('success', 'skipped')
                                        ELSE c.state = 'success' END ORDER BY c.index),
                    'started_at', json_agg(c.started_at ORDER BY c.index),
                    'duration_ms', json_agg((extract(epoch FROM c.ended_at - c.started_at) * 1000)::bigint ORDER BY c.index))
                FROM (
                    SELECT * FROM queue.known_child k
                    WHERE k.flow_id = s.flow_id AND k.born = s.born AND k.no = s.no AND k.attempt = s.attempt
                    ORDER BY k.index LIMIT $3) c
                HAVING count(*) > 0) END) ORDER BY s.no), '[]')
        FROM queue.known_step s WHERE s.flow_id = $1 AND s.born = (SELECT queue.locate($1))) AS steps;

-- name: step_result
-- Behind all its steps: the last place there is.
SELECT s.result FROM queue.step_result($1, 32767::smallint, $2) s;

-- name: cancel
SELECT c.answer, c.worker_run, c.reply_to, c.said FROM queue.cancel_job($1, $2, $3, $4, $5, $6) c;

-- name: cancelable
-- Those of the jobs that the viewer may stop.
SELECT w.id
FROM unnest($2::uuid[]) AS w (id)
CROSS JOIN LATERAL (
    SELECT FROM queue.any_job j
    WHERE j.id = w.id AND j.born = (SELECT queue.locate(w.id)) AND j.workspace_id = $1
      AND ($5::text[] IS NULL OR j.tag = ANY ($5))
      AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
           OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4) AND platform.may_write(j.path, $3, $4))
    LIMIT 1) j;

-- name: cancelable_at_path
-- The unfinished jobs of a path's script that the viewer may stop, a thousand at a time.
SELECT u.id
FROM queue.unfinished_job u
CROSS JOIN LATERAL (
    SELECT FROM queue.asked_job j
    WHERE j.id = u.id AND j.born = u.born AND j.kind = 'script' AND j.path = $2
      AND ($5::text[] IS NULL OR j.tag = ANY ($5))
      AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
           OR j.visible_to_owner AND platform.may_read(j.path, $3, $4) AND platform.may_write(j.path, $3, $4))
    LIMIT 1) j
WHERE u.workspace_id = $1 AND u.id > $6::uuid ORDER BY u.id LIMIT 1000;

-- name: selected
-- Those of the jobs that the viewer may see, in the order in which they were named.
SELECT w.id, j.kind, j.path, j.hash, j.visible_to_owner, j.timeout_s, j.due_at
FROM unnest($2::uuid[]) WITH ORDINALITY AS w (id, no)
CROSS JOIN LATERAL (
    SELECT j.kind, j.path, j.hash, j.visible_to_owner, j.timeout_s, j.due_at FROM queue.asked_job j
    WHERE j.id = w.id AND j.born = (SELECT queue.locate(w.id)) AND j.workspace_id = $1
      AND ($5::text[] IS NULL OR j.tag = ANY ($5))
      AND ($4 OR j.created_by = $3 OR j.permissioned_as = 'u/' || $3
           OR j.visible_to_owner AND j.path IS NOT NULL AND platform.may_read(j.path, $3, $4))
    LIMIT 1) j
ORDER BY w.no;

-- name: args_of
SELECT j.args FROM queue.asked_job j WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1;

-- name: schemas
-- Of some versions and of the heads of some paths.
SELECT s.hash, s.path, s.schema, NOT s.archived AS is_head FROM platform.script s
WHERE s.workspace_id = $1 AND NOT s.deleted AND (s.hash = ANY ($2) OR s.path = ANY ($3) AND NOT s.archived)
  AND platform.may_read(s.path, $4, $5);

-- name: flow_schemas
-- Of some versions of flows and of the newest ones of some paths.
SELECT v.id::text AS hash, f.path, v.schema, v.id = f.version AND NOT f.archived AS is_head
FROM platform.flow f JOIN platform.flow_version v ON v.flow_id = f.id
WHERE f.workspace_id = $1 AND NOT f.deleted AND (v.id = ANY ($2::bigint[]) OR f.path = ANY ($3) AND v.id = f.version)
  AND platform.may_read(f.path, $4, $5);

-- name: cancel_many
SELECT c.id, c.answer, c.worker_run, c.reply_to, c.said FROM queue.cancel_jobs($1, $2, $3, $4, $5, $6) c;

-- name: portable
-- A step that has not ended is left out: it belongs to its flow, which begins anew.
SELECT j.id, j.kind, j.path, j.hash, j.language, j.code, j.args, j.tag, j.priority, j.timeout_s, j.due_at, j.parent_job, j.trigger_kind,
       j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.email, j.outcome, j.result, j.started_at, j.finished_at,
       j.worker, j.canceled_by, j.canceled_reason, j.memory_peak_kb, j.labels,
       j.kind = 'flow' AND j.entrypoint IS NOT NULL AND j.at_step IS NULL AS is_to_be_preprocessed,
       (SELECT string_agg(c.text, '' ORDER BY c.claim_no, c.seq) FROM queue.job_log c
        WHERE c.job_id = $2 AND c.born = (SELECT queue.locate($2))) AS logs
FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1
  AND (j.outcome IS NOT NULL OR j.step_id IS NULL AND j.kind <> 'flownode');

-- name: emails_of
SELECT m.username, m.email FROM platform.member m WHERE m.workspace_id = $1 AND m.username = ANY ($2);

-- name: import_jobs
SELECT queue.import_jobs($1, $2, $3);

-- name: delete_jobs
SELECT queue.delete_jobs($1, $2, $3);

-- name: close_workspace
SELECT c.id, c.answer, c.worker_run, c.reply_to, c.said FROM queue.close_workspace($1, $2, $3) c;

-- name: open_workspace
SELECT queue.open_workspace($1);

-- name: run_now
SELECT r.answer, r.said FROM queue.run_now($1, $2, $3) r;

-- name: forget
SELECT f.answer, f.said FROM queue.forget_job($1, $2, $3) f;

-- name: count_unfinished
-- Without a workspace, of all of them.
SELECT count(*) AS unfinished, count(*) FILTER (WHERE u.parked) AS suspended
FROM queue.unfinished_job u WHERE ($1 = '' OR u.workspace_id = $1) AND ($2::text[] IS NULL OR u.tag = ANY ($2));

-- name: count_finished
-- All less the unfinished: counted along an index, without a look at how each of them ended.
SELECT (SELECT count(*) FROM queue.asked_job j WHERE j.workspace_id = $1 AND ($2::text[] IS NULL OR j.tag = ANY ($2)))
     - (SELECT count(*) FROM queue.unfinished_job u WHERE u.workspace_id = $1 AND ($2::text[] IS NULL OR u.tag = ANY ($2)));

-- name: count_ended
SELECT count(*) FROM queue.any_job j
WHERE ($1 = '' OR j.workspace_id = $1) AND j.outcome IS NOT NULL
  AND ($2::text[] IS NULL OR j.tag = ANY ($2)) AND ($3::text[] IS NULL OR j.tag = ANY ($3))
  AND ($4::boolean IS NULL OR (j.outcome IN ('success', 'skipped')) = $4)
  AND ($5::interval IS NULL OR j.finished_at > clock_timestamp() - $5);

-- name: count_ended_by_tag
SELECT j.tag, count(*) AS count FROM queue.any_job j
WHERE ($1 = '' OR j.workspace_id = $1) AND j.outcome IS NOT NULL AND ($2::text[] IS NULL OR j.tag = ANY ($2))
  AND j.finished_at > clock_timestamp() - $3::interval
GROUP BY j.tag ORDER BY count(*) DESC, j.tag LIMIT 1000;

-- name: explain
SELECT queue.explain_job($1, $2);

-- name: position
SELECT count(*) + 1 FROM queue.unfinished_job u
WHERE u.workspace_id = $1 AND u.state IN ('queued', 'blocked', 'scheduled') AND u.due_at < $2
  AND ($3::text[] IS NULL OR u.tag = ANY ($3));

-- name: clock
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- part: listed
       j.id, j.workspace_id, j.kind, j.path, j.hash, j.language, j.tag, j.priority, j.due_at, j.parent_job, j.trigger_kind,
       j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.email, j.scope_job, j.step_id, j.state, j.outcome,
       j.started_at, j.finished_at, j.worker, j.canceled_by, j.canceled_reason, j.memory_peak_kb, j.labels, j.last_beat, j.deleted,
       j.parked

-- part: fits_as_it_was_asked
-- From a cursor on, what the viewer may see, and the filters on what was asked for. `born` never lies before `created_at`
-- by more than two clocks differ, so it may cut off the old end. $10: the names of the filters of which no value may fit.
-- $26: the tags that the token is limited to.
      AND a.born <= $8 AND (a.born, a.id) < ($8, $9::uuid)
      AND ($3 OR a.created_by = $2 OR a.permissioned_as = 'u/' || $2
           OR a.visible_to_owner AND a.path IS NOT NULL AND platform.may_read(a.path, $2, $3))
      AND ($26::text[] IS NULL OR a.tag = ANY ($26))
      AND ($11::text[] IS NULL OR coalesce(a.created_by = ANY ($11), false) <> ('created_by' = ANY ($10::text[])))
      AND ($12::text[] IS NULL OR coalesce(a.path LIKE ANY ($12), false) <> ('script_path_exact' = ANY ($10)))
      AND ($13::text IS NULL OR starts_with(a.path, $13))
      AND ($14::text[] IS NULL OR coalesce(a.hash = ANY ($14), false) <> ('script_hash' = ANY ($10)))
      AND ($15::text[] IS NULL OR coalesce(a.kind = ANY ($15), false) <> ('job_kinds' = ANY ($10)))
      AND ($16::text[] IS NULL OR coalesce(a.tag LIKE ANY ($16), false) <> ('tag' = ANY ($10)))
      AND ($17::text[] IS NULL OR coalesce(a.trigger_kind = ANY ($17), false) <> ('trigger_kind' = ANY ($10)))
      AND ($18::text[] IS NULL OR coalesce(a.limit_key = ANY ($18), false) <> ('concurrency_key' = ANY ($10)))
      AND ($19::uuid IS NULL OR a.parent_job = $19)
      AND ($20::boolean IS NULL OR (a.parent_job IS NULL) = $20)
      AND ($21::timestamptz IS NULL OR a.created_at < $21)
      AND ($22::timestamptz IS NULL OR a.created_at > $22 AND a.born > $22 - interval '5 minutes')
      AND ($23::jsonb IS NULL OR queue.json_contains(a.args, $23))
      AND ($24::text IS NULL OR strpos(lower(concat_ws(E'\n', a.id, a.path, a.tag, a.kind, a.created_by)), $24) > 0)
      AND ($25::boolean IS NULL OR (a.entrypoint IS NULL OR a.kind IN ('flow', 'flowpreview', 'flownode')) = $25)
      AND ($40::boolean IS NULL OR (a.step_id IS NOT NULL) = $40)

-- part: fits_as_it_went
-- The filters on what has become of a job. A flow runs unless it waits for approvals.
WHERE ($28::text[] IS NULL OR coalesce(j.worker LIKE ANY ($28), false) <> ('worker' = ANY ($10)))
  AND ($29::timestamptz IS NULL OR j.started_at < $29)
  AND ($30::timestamptz IS NULL OR j.started_at > $30)
  AND ($31::text[] IS NULL OR j.outcome = ANY ($31))
  AND ($32::timestamptz IS NULL OR j.finished_at < $32)
  AND ($33::timestamptz IS NULL OR j.finished_at > $33)
  AND ($34::text[] IS NULL OR coalesce(j.labels && $34, false) <> ('label' = ANY ($10)))
  AND ($35::jsonb IS NULL OR queue.json_contains(j.result, $35))
  AND ($36::text[] IS NULL OR j.outcome IS NULL
       AND CASE WHEN j.state = 'suspended' AND NOT coalesce(j.parked, false) THEN 'running' ELSE j.state END = ANY ($36))
  AND ($37::boolean IS NULL OR (j.due_at <= clock_timestamp()) = $37)
  AND ($38::timestamptz IS NULL OR coalesce(j.started_at, j.created_at) < $38)
  AND ($39::timestamptz IS NULL OR coalesce(j.started_at, j.created_at) > $39)

-- name: list_any
-- First which jobs, along the index (workspace, born, id) from the cursor ($8, $9) on, and only then how each of them is:
-- a page behind a cursor reads its own rows, a page behind others walks ids over them. The outer filters are on what
-- happens later: with one of them the page is cut off outside ($6, $7), without any inside ($4, $5).
SELECT k.born,
       -- use: listed
FROM (
    SELECT a.id, a.born FROM queue.asked_job a
    WHERE a.workspace_id = $1
      -- use: fits_as_it_was_asked
      AND ($27::boolean IS NULL OR EXISTS (SELECT FROM queue.unfinished_job u WHERE u.id = a.id) <> $27)
    ORDER BY a.born DESC, a.id DESC LIMIT $4 OFFSET $5) k
CROSS JOIN LATERAL (
    SELECT * FROM queue.any_job b WHERE b.id = k.id AND b.born = k.born LIMIT 1) j
-- use: fits_as_it_went
ORDER BY k.born DESC, k.id DESC LIMIT $6 OFFSET $7;

-- name: list_labeled
-- The same from the few jobs outwards that have one of the labels.
SELECT k.born,
       -- use: listed
FROM (
    SELECT a.id, a.born FROM queue.labeled_job l CROSS JOIN LATERAL (
        SELECT * FROM queue.asked_job r WHERE r.id = l.id AND r.born = l.born LIMIT 1) a
    WHERE l.labels && $34::text[] AND a.workspace_id = $1
      -- use: fits_as_it_was_asked
      AND ($27::boolean IS NULL OR EXISTS (SELECT FROM queue.unfinished_job u WHERE u.id = a.id) <> $27)
    ORDER BY a.born DESC, a.id DESC LIMIT $4 OFFSET $5) k
CROSS JOIN LATERAL (
    SELECT * FROM queue.any_job b WHERE b.id = k.id AND b.born = k.born LIMIT 1) j
-- use: fits_as_it_went
ORDER BY k.born DESC, k.id DESC LIMIT $6 OFFSET $7;

-- name: list_unfinished
-- The same from the hot table outwards: the few unfinished jobs may be of any day. Without a workspace, of all of them.
SELECT k.born,
       -- use: listed
FROM (
    SELECT a.id, a.born FROM queue.unfinished_job u CROSS JOIN LATERAL (
        SELECT * FROM queue.asked_job r WHERE r.id = u.id AND r.born = u.born LIMIT 1) a
    WHERE ($1 = '' OR u.workspace_id = $1) AND $27::boolean IS NOT TRUE
      -- use: fits_as_it_was_asked
    ORDER BY a.born DESC, a.id DESC LIMIT $4 OFFSET $5) k
CROSS JOIN LATERAL (
    SELECT * FROM queue.any_job b WHERE b.id = k.id AND b.born = k.born LIMIT 1) j
-- use: fits_as_it_went
ORDER BY k.born DESC, k.id DESC LIMIT $6 OFFSET $7;

-- name: list_everywhere
-- The same for all workspaces: the newest of each, and of those the newest.
SELECT j.born,
       -- use: listed
FROM platform.workspace w
CROSS JOIN LATERAL (
    SELECT j.* FROM (
        SELECT a.id, a.born FROM queue.asked_job a
        WHERE a.workspace_id = w.id
          -- use: fits_as_it_was_asked
          AND ($27::boolean IS NULL OR EXISTS (SELECT FROM queue.unfinished_job u WHERE u.id = a.id) <> $27)
        ORDER BY a.born DESC, a.id DESC LIMIT $4::bigint + $5::bigint) k
    CROSS JOIN LATERAL (
        SELECT * FROM queue.any_job b WHERE b.id = k.id AND b.born = k.born LIMIT 1) j
    -- use: fits_as_it_went
    ORDER BY k.born DESC, k.id DESC LIMIT $6::bigint + $7::bigint) j
WHERE $1 = ''
ORDER BY j.born DESC, j.id DESC LIMIT coalesce($4, $6) OFFSET $5::bigint + $7::bigint;
