-- What the queue publishes. One call is one round trip; each locks first and looks in a new statement.
-- Lock order everywhere: root job, jobs by ascending id, limit keys, outbox.
-- Own error codes: TM001 job id taken, TM002 parent not found, TM003 root is or was canceled, TM004 worker not
-- registered, TM005 no such transition, TM006 asked for before (the detail is the job's id), TM007 key used for another request,
-- TM008 workspace closed, TM009 the job or the flow above it is under way, TM010 a list of results is too long, TM011 what is to be taken up is not there,
-- TM012 the line of flows takes flows only.
SET ROLE tidemill_queue_owner;

-- What a caller fills in to ask for a job; a new optional field keeps the version.
DO $$
BEGIN
    IF to_regtype('queue.job_request') IS NULL THEN
        CREATE TYPE queue.job_request AS (
            id uuid, chosen_id boolean, workspace_id text, kind text, path text, hash text, language text, code text,
            entrypoint text, tag text, priority smallint, envs text[], timeout_s integer, limit_key text,
            limit_ceiling integer, due_at timestamptz, due_in_ms bigint, parent_job uuid, trigger_kind text,
            visible_to_owner boolean, created_by text, permissioned_as text, email text, permissions json,
            reply_to text, traceparent text, request_key text, request_digest text, key_lasts_s integer,
            code_hash text, scope_job uuid, step_id text, step_no smallint, step_index integer, erase_after_s integer,
            cache_key text, cache_ttl_s integer, shares_with uuid, only_worker uuid,
            task_key text, replays boolean, depth smallint, restart json);
    END IF;
END
$$;

-- Write down a job and where it stands: in the line, or waiting for its time or for a slot of its limit. A flow waits under
-- a tag that no worker serves, whatever it is shown as. Raises TM001 when the id is taken.
CREATE OR REPLACE FUNCTION queue.place_job(
    r queue.job_request, p_born timestamptz, p_root uuid, p_flow_born timestamptz, p_now timestamptz, p_args json) RETURNS queue.live_job
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_due timestamptz := coalesce(r.due_at, p_now + coalesce(r.due_in_ms, 0) * interval '1 millisecond');
    v_tag text := CASE
        WHEN r.kind IN ('flow', 'flowpreview', 'flownode') THEN 'flow'
        WHEN r.only_worker IS NOT NULL THEN queue.line_of(r.only_worker)
        ELSE r.tag
    END;
    v_job queue.live_job;
BEGIN
    IF to_regclass('queue.job_p' || to_char(p_born AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NULL THEN
        PERFORM queue.make_day((p_born AT TIME ZONE 'UTC')::date);
    END IF;
    INSERT INTO queue.job (id, born, workspace_id, kind, path, hash, language, code, code_hash, entrypoint, args, tag, priority, envs,
                           timeout_s, erase_after_s, cache_key, cache_ttl_s, limit_key, limit_ceiling, due_at, parent_job, root_job,
                           scope_job, step_id, trigger_kind, visible_to_owner, created_at, created_by, permissioned_as, email, permissions, traceparent,
                           restarted_from)
    VALUES (r.id, p_born, r.workspace_id, r.kind, r.path, r.hash, r.language, r.code, r.code_hash, r.entrypoint, p_args, r.tag,
            coalesce(r.priority, 0), coalesce(r.envs, '{}'), r.timeout_s, r.erase_after_s, r.cache_key, r.cache_ttl_s, r.limit_key,
            r.limit_ceiling, v_due, r.parent_job, p_root, r.scope_job, r.step_id, r.trigger_kind, coalesce(r.visible_to_owner, true), p_now, r.created_by,
            r.permissioned_as, r.email, r.permissions, r.traceparent, r.restart)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        -- With an id that the caller has minted: this very request was done before, and its answer was lost.
        RAISE EXCEPTION 'job id % is taken', r.id USING ERRCODE = 'TM001';
    END IF;
    -- Not under the key's lock before the row is in: the lock order puts jobs before limit keys.
    INSERT INTO queue.live_job (id, born, workspace_id, state, tag, urgency, rank, due_at, limit_key, limit_ceiling, parent_job,
                                root_job, flow_born, step_no, step_index, task_key, replays, reply_to, traceparent, epilogue,
                                shares_with, depth, hinted_at)
    VALUES (r.id, p_born, r.workspace_id, CASE WHEN v_due > p_now OR r.limit_key IS NOT NULL THEN 'scheduled' ELSE 'queued' END,
            v_tag, -coalesce(r.priority, 0), queue.next_rank(v_tag, r.workspace_id, (-coalesce(r.priority, 0))::smallint), v_due,
            r.limit_key, r.limit_ceiling, r.parent_job, p_root, p_flow_born, r.step_no, r.step_index, r.task_key,
            coalesce(r.replays, false), r.reply_to, r.traceparent, r.erase_after_s IS NOT NULL OR r.cache_key IS NOT NULL,
            r.shares_with, coalesce(r.depth, 0), p_now)
    RETURNING * INTO v_job;
    RETURN v_job;
END
$$;

-- What is said of a job that was just placed, unless it is a limit's to say.
CREATE OR REPLACE FUNCTION queue.say_placed(p_job queue.live_job) RETURNS json
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN p_job.state = 'queued' THEN queue.say_ticket(p_job)
        WHEN p_job.limit_key IS NOT NULL AND p_job.due_at <= clock_timestamp() THEN '[]'::json
        ELSE bus.say('job.scheduled.v1', 'job.scheduled', json_build_object('job_id', p_job.id, 'due_at', p_job.due_at), p_job.traceparent)
    END
$$;

-- Tell in the log of a job from where its result comes.
CREATE OR REPLACE FUNCTION queue.say_cached(p_job queue.live_job, p_key text) RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO queue.log_chunk (job_id, born, claim_no, seq, units, text)
    SELECT p_job.id, p_job.born, 0, 0, length(t.text), t.text
    FROM (SELECT 'job=' || p_job.id || E'\n[cached: the result is that of the job ' || c.job_id || E']\n' AS text
          FROM queue.cached_result c WHERE c.key = p_key) t
$$;

-- The result that is kept under a key, or nothing.
CREATE OR REPLACE FUNCTION queue.cached(p_key text) RETURNS json
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.result FROM queue.cached_result c WHERE c.key = p_key AND c.expires_at > clock_timestamp()
$$;

-- Ask for a job: its row, its place in the line and its ticket, in one transaction with whatever else is to be said. One whose
-- result is kept ends here, without a worker: its state is `success`.
CREATE OR REPLACE FUNCTION queue.request_job(p_request json, p_args json, p_also json)
RETURNS TABLE (state text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    r      queue.job_request := json_populate_record(NULL::queue.job_request, p_request);
    v_now  timestamptz := clock_timestamp();
    v_born timestamptz := queue.born_of(r.id);
    v_root uuid;
    v_root_canceled boolean;
    v_said json[] := '{}';
    v_job  queue.live_job;
    v_key  queue.request_key;
    v_kept queue.cached_result;
BEGIN
    IF r.tag = 'flow' AND r.kind NOT IN ('flow', 'flowpreview', 'flownode') THEN
        RAISE EXCEPTION 'the tag flow is only for flows' USING ERRCODE = 'TM012';
    END IF;
    -- Until this transaction ends nobody closes the workspace, so that closing it misses no job.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('queue.workspace ' || r.workspace_id, 0));
    IF EXISTS (SELECT FROM queue.closed_workspace c WHERE c.workspace_id = r.workspace_id) THEN
        RAISE EXCEPTION 'the workspace % is closed', r.workspace_id USING ERRCODE = 'TM008';
    END IF;
    IF r.request_key IS NOT NULL THEN
        -- Who comes second waits here for the first, and for good or ill takes what that one has done.
        INSERT INTO queue.request_key AS k (workspace_id, caller, key, digest, job_id, expires_at)
        VALUES (r.workspace_id, r.permissioned_as, r.request_key, r.request_digest, r.id, v_now + r.key_lasts_s * interval '1 second')
        ON CONFLICT (workspace_id, caller, key)
        DO UPDATE SET digest = excluded.digest, job_id = excluded.job_id, expires_at = excluded.expires_at WHERE k.expires_at <= v_now;
        IF NOT FOUND THEN
            SELECT * INTO v_key FROM queue.request_key k
            WHERE k.workspace_id = r.workspace_id AND k.caller = r.permissioned_as AND k.key = r.request_key;
            IF v_key.digest = r.request_digest THEN
                RAISE EXCEPTION 'this was asked for before' USING ERRCODE = 'TM006', DETAIL = v_key.job_id::text;
            END IF;
            RAISE EXCEPTION 'this key was used for another request' USING ERRCODE = 'TM007';
        END IF;
    END IF;
    IF r.chosen_id THEN
        IF EXISTS (SELECT FROM queue.job j WHERE j.id = r.id AND j.born = v_born) THEN
            RAISE EXCEPTION 'job id % is taken', r.id USING ERRCODE = 'TM001';
        END IF;
        v_born := v_now;
        INSERT INTO queue.displaced_job (id, born) VALUES (r.id, v_born) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'job id % is taken', r.id USING ERRCODE = 'TM001';
        END IF;
    END IF;
    IF r.parent_job IS NOT NULL THEN
        SELECT coalesce(j.root_job, j.id) INTO v_root FROM queue.job j
        WHERE j.id = r.parent_job AND j.born = queue.locate(r.parent_job) AND j.workspace_id = r.workspace_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'parent job % does not exist in this workspace', r.parent_job USING ERRCODE = 'TM002';
        END IF;
        -- The parent as well as the root: a cancel of either takes with it what is below.
        PERFORM FROM queue.live_job l WHERE l.id IN (v_root, r.parent_job) ORDER BY l.id FOR SHARE;
        SELECT bool_or(l.cancel_at IS NOT NULL) INTO v_root_canceled FROM queue.live_job l
        WHERE l.id IN (v_root, r.parent_job) HAVING bool_or(l.id = v_root);
        IF NOT FOUND THEN
            -- It may have ended while we waited for its row.
            SELECT f.outcome = 'canceled' INTO v_root_canceled FROM queue.finished_job f
            WHERE f.id = v_root AND f.born = queue.locate(v_root);
        END IF;
        IF v_root_canceled THEN
            IF EXISTS (SELECT FROM queue.job j WHERE j.id = r.id AND j.born = v_born) THEN
                RAISE EXCEPTION 'job id % is taken', r.id USING ERRCODE = 'TM001';
            END IF;
            RAISE EXCEPTION 'job % above it is canceled', v_root USING ERRCODE = 'TM003';
        END IF;
    END IF;
    IF r.cache_key IS NOT NULL AND coalesce(r.due_at, v_now) <= v_now AND coalesce(r.due_in_ms, 0) <= 0 THEN
        SELECT * INTO v_kept FROM queue.cached_result c WHERE c.key = r.cache_key AND c.expires_at > v_now;
        IF FOUND THEN
            -- What it answers is kept already, and for no longer than it was.
            r.cache_key := NULL;
        END IF;
    END IF;
    SELECT * INTO v_job FROM queue.place_job(r, v_born, v_root, NULL, v_now, p_args);
    IF r.restart IS NOT NULL THEN
        PERFORM queue.take_up(v_job, r.restart);
    END IF;
    IF v_kept.key IS NOT NULL THEN
        PERFORM queue.answer_at_once(v_job, 'success', v_kept.result);
        PERFORM queue.say_cached(v_job, v_kept.key);
        v_job.state := 'success';
    ELSIF v_job.limit_key IS NOT NULL AND v_job.due_at <= v_now THEN
        v_said := queue.enter_line(r.id);
        SELECT l.state INTO v_job.state FROM queue.live_job l WHERE l.id = r.id;
    ELSE
        v_said := ARRAY[queue.say_placed(v_job)];
    END IF;
    IF p_also IS NOT NULL THEN
        v_said := v_said || bus.say_all(p_also, r.traceparent);
    END IF;
    RETURN QUERY SELECT v_job.state, queue.flatten(v_said);
END
$$;

-- The best queued job of these tags, or nothing. Repeating the call with the same key returns the same claim.
-- A ticket's job id is not passed on: looking whether something better waits costs the same probe as taking it.
CREATE OR REPLACE FUNCTION queue.claim_job(p_tags text[], p_worker_run uuid, p_claim_key uuid)
RETURNS TABLE (id uuid, workspace_id text, kind text, path text, hash text, language text, code text, entrypoint text, args json,
               tag text, envs text[], timeout_s integer, due_at timestamptz, parent_job uuid, root_job uuid, created_by text,
               permissioned_as text, email text, permissions json, claims smallint, reply_to text, traceparent text, token text,
               lock text, scope_job uuid, step_id text, root_flow uuid, flow_path text, shares_with uuid,
               rounds smallint, checkpointed boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- Left to itself the planner plans anew at every call, because it takes a plan for all days to be dearer than it is.
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    v_job queue.live_job;
    v_tag text;
    v_id  uuid;
BEGIN
    -- The call may be repeated while the first one is still going on.
    PERFORM pg_advisory_xact_lock(uuid_hash_extended(p_claim_key, 0));
    SELECT * INTO v_job FROM queue.live_job l WHERE l.claim_key = p_claim_key;
    IF NOT FOUND THEN
        -- Look at the head of each tag without locking it: a head that is locked but not taken is missed by others.
        FOR v_tag IN
            SELECT t.tag
            FROM unnest(p_tags) AS t (tag)
            CROSS JOIN LATERAL (
                SELECT l.id, l.urgency, l.rank FROM queue.live_job l
                WHERE l.state = 'queued' AND l.tag = t.tag
                ORDER BY l.urgency, l.rank, l.id LIMIT 1
            ) head
            ORDER BY head.urgency, head.rank, head.id
        LOOP
            SELECT l.id INTO v_id FROM queue.live_job l
            WHERE l.state = 'queued' AND l.tag = v_tag
            ORDER BY l.urgency, l.rank, l.id LIMIT 1 FOR UPDATE SKIP LOCKED;
            EXIT WHEN FOUND;
        END LOOP;
        IF v_id IS NULL THEN
            RETURN;
        END IF;
        UPDATE queue.live_job l SET state = 'running', claim_key = p_claim_key, worker_run = p_worker_run,
            claims = l.claims + 1, claimed_at = clock_timestamp()
        WHERE l.id = v_id RETURNING * INTO v_job;
        IF v_job.shares_with IS NOT NULL AND v_job.tag <> queue.line_of(p_worker_run) THEN
            -- The first step, which may be claimed anew by somebody else: from here on all wait in this worker's own line.
            INSERT INTO queue.flow_worker (flow_id, worker_run) VALUES (v_job.shares_with, p_worker_run)
            ON CONFLICT (flow_id) DO UPDATE SET worker_run = excluded.worker_run;
        END IF;
    END IF;
    RETURN QUERY
        SELECT j.id, j.workspace_id, j.kind, j.path, j.hash, j.language, coalesce(j.code, c.code), j.entrypoint, j.args, j.tag, j.envs,
               j.timeout_s, j.due_at, j.parent_job, j.root_job, j.created_by, j.permissioned_as, j.email, j.permissions, v_job.claims,
               v_job.reply_to, j.traceparent, queue.job_token(j.id, p_claim_key), c.lock, j.scope_job, j.step_id,
               f.root_flow, f.path, v_job.shares_with, v_job.rounds, v_job.version > 0 OR v_job.replays
        FROM queue.job j LEFT JOIN queue.inline_code c ON c.hash = j.code_hash
        LEFT JOIN LATERAL queue.flow_above(j.parent_job, j.scope_job) f ON true
        WHERE j.id = v_job.id AND j.born = v_job.born;
END
$$;

-- One beat for all that a worker holds. `verdict` is `keep`, `cancel` (stop it, its end is awaited) or `drop` (no longer
-- yours). A running job of this process that it does not hold and that was claimed more than a beat ago goes back into
-- the line: the answer to its claim was lost, and nobody's code has started.
CREATE OR REPLACE FUNCTION queue.renew(p_worker_run uuid, p_held uuid[], p_beat interval, p_executed bigint, p_draining boolean)
RETURNS TABLE (claim_key uuid, verdict text, reason text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_job  queue.live_job;
    v_said json[] := '{}';
BEGIN
    UPDATE queue.worker w SET beat_at = clock_timestamp(), jobs_executed = p_executed, draining = p_draining WHERE w.worker_run = p_worker_run;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'worker run % is not registered', p_worker_run USING ERRCODE = 'TM004';
    END IF;
    FOR v_job IN
        SELECT l.* FROM queue.live_job l
        WHERE l.worker_run = p_worker_run AND l.state = 'running' AND NOT (l.claim_key = ANY (p_held))
          AND l.claimed_at < clock_timestamp() - p_beat
        ORDER BY l.id FOR UPDATE
    LOOP
        v_said := v_said || queue.give_back(v_job, 0);
    END LOOP;
    RETURN QUERY
        SELECT h.claim_key,
               CASE WHEN l.id IS NULL THEN 'drop' WHEN l.cancel_at IS NOT NULL THEN 'cancel' ELSE 'keep' END,
               l.cancel_reason, NULL::json
        FROM unnest(p_held) AS h (claim_key)
        -- LIMIT keeps the planner from reading the whole table once, which is right as long as it is empty.
        LEFT JOIN LATERAL (
            SELECT j.id, j.cancel_at, j.cancel_reason FROM queue.live_job j
            WHERE j.claim_key = h.claim_key AND j.worker_run = p_worker_run LIMIT 1) l ON true
        UNION ALL
        SELECT NULL, 'said', NULL, queue.flatten(v_said) WHERE cardinality(v_said) > 0;
END
$$;

-- A chunk of a running job's log; `false` when the claim is over. Repeating a chunk changes nothing.
CREATE OR REPLACE FUNCTION queue.append_log(p_id uuid, p_claim_key uuid, p_seq integer, p_text text, p_units integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_job queue.live_job;
BEGIN
    SELECT * INTO v_job FROM queue.live_job l WHERE l.id = p_id AND l.claim_key = p_claim_key FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO queue.log_chunk (job_id, born, claim_no, seq, units, text)
    VALUES (p_id, v_job.born, v_job.claims, p_seq, p_units, p_text) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- A chunk of the result that a running job streams; the same rules.
CREATE OR REPLACE FUNCTION queue.append_stream(p_id uuid, p_claim_key uuid, p_seq integer, p_text text, p_units integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_job queue.live_job;
BEGIN
    SELECT * INTO v_job FROM queue.live_job l WHERE l.id = p_id AND l.claim_key = p_claim_key FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO queue.log_chunk (job_id, born, claim_no, streamed, seq, units, text)
    VALUES (p_id, v_job.born, v_job.claims, true, p_seq, p_units, p_text) ON CONFLICT DO NOTHING;
    RETURN true;
END
$$;

-- What a worker says of a run that ended.
DO $$
BEGIN
    IF to_regtype('queue.ending') IS NULL THEN
        CREATE TYPE queue.ending AS (
            outcome text, worker text, memory_peak_kb integer, labels text[], log_seq integer, log_text text, log_units integer);
    END IF;
END
$$;

-- Store the end of a run. `done` the first time, `already_done` when this very claim has said it before, `stale` when the
-- job went on without it, `unknown` when there is no such job.
CREATE OR REPLACE FUNCTION queue.finish_job(p_id uuid, p_claim_key uuid, p_ending json, p_result json)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    e      queue.ending := json_populate_record(NULL::queue.ending, p_ending);
    v_job  queue.live_job;
    v_said json[];
    v_key  uuid;
BEGIN
    SELECT * INTO v_job FROM queue.live_job l WHERE l.id = p_id FOR UPDATE;
    IF NOT FOUND THEN
        SELECT f.claim_key INTO v_key FROM queue.finished_job f WHERE f.id = p_id AND f.born = queue.locate(p_id);
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'unknown', NULL::json;
        ELSE
            RETURN QUERY SELECT CASE WHEN v_key = p_claim_key THEN 'already_done' ELSE 'stale' END, NULL::json;
        END IF;
        RETURN;
    END IF;
    IF v_job.claim_key IS DISTINCT FROM p_claim_key THEN
        RETURN QUERY SELECT 'stale', NULL::json;
        RETURN;
    END IF;
    IF e.outcome IN ('success', 'failure', 'canceled') IS NOT TRUE THEN
        RAISE EXCEPTION 'a run may not end as %', e.outcome USING ERRCODE = 'TM005';
    END IF;
    IF e.log_text IS NOT NULL THEN
        INSERT INTO queue.log_chunk (job_id, born, claim_no, seq, units, text)
        VALUES (p_id, v_job.born, v_job.claims, e.log_seq, e.log_units, e.log_text) ON CONFLICT DO NOTHING;
    END IF;
    -- Only the row knows who cancelled it and why.
    v_said := queue.settle(v_job, e.outcome,
        coalesce(p_result, CASE e.outcome WHEN 'canceled' THEN queue.canceled_result(v_job.cancel_by, v_job.cancel_reason) END),
        e.worker, e.memory_peak_kb, e.labels);
    -- A plain job has nobody to tell.
    RETURN QUERY SELECT 'done', CASE WHEN cardinality(v_said) > 0 THEN queue.flatten(v_said) ELSE '[]' END;
END
$$;

-- Give a claimed job back, unfinished, because its worker is going: it counts against nothing.
CREATE OR REPLACE FUNCTION queue.release_job(p_id uuid, p_claim_key uuid) RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_job queue.live_job;
BEGIN
    SELECT * INTO v_job FROM queue.live_job l WHERE l.id = p_id AND l.claim_key = p_claim_key FOR UPDATE;
    IF NOT FOUND THEN
        RETURN '[]';
    END IF;
    RETURN queue.flatten(queue.give_back(v_job, 0));
END
$$;

-- Cancel a job and all below it. A job that waits ends here; a running one is marked and its worker named, unless `force`
-- withdraws its claim; a flow ends when nothing below it runs any more.
-- `answer` is `canceled`, `requested`, `finished` (it had ended before) or `unknown`.
CREATE OR REPLACE FUNCTION queue.cancel_job(p_workspace_id text, p_id uuid, p_by text, p_reason text, p_force boolean, p_also json)
RETURNS TABLE (answer text, worker_run uuid, reply_to text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_job  queue.live_job;
    v_said json[] := '{}';
    v_answer text := 'canceled';
BEGIN
    SELECT * INTO v_job FROM queue.live_job l WHERE l.id = p_id AND l.workspace_id = p_workspace_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT CASE WHEN EXISTS (
            SELECT FROM queue.job j WHERE j.id = p_id AND j.born = queue.locate(p_id) AND j.workspace_id = p_workspace_id)
            THEN 'finished' ELSE 'unknown' END, NULL::uuid, NULL::text, NULL::json;
        RETURN;
    END IF;
    v_said := queue.cancel_below(p_id, p_by, p_reason, p_force) || queue.cancel_one(v_job, p_by, p_reason, p_force);
    IF EXISTS (SELECT FROM queue.live_job l WHERE l.id = p_id) THEN
        v_answer := 'requested';
    END IF;
    IF p_also IS NOT NULL THEN
        v_said := v_said || bus.say_all(p_also, v_job.traceparent);
    END IF;
    RETURN QUERY SELECT v_answer, v_job.worker_run, v_job.reply_to, queue.flatten(v_said);
END
$$;

-- Cancel many jobs at once; those that are unknown or have ended stay as they are. The last row holds what was said besides.
CREATE OR REPLACE FUNCTION queue.cancel_jobs(p_workspace_id text, p_ids uuid[], p_by text, p_reason text, p_force boolean, p_also json)
RETURNS TABLE (id uuid, answer text, worker_run uuid, reply_to text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_id uuid;
BEGIN
    -- All jobs first, then their limit keys in order: as everywhere.
    PERFORM FROM queue.live_job l WHERE l.id = ANY (p_ids) AND l.workspace_id = p_workspace_id ORDER BY l.id FOR UPDATE;
    FOR v_id IN
        SELECT l.id FROM queue.live_job l WHERE l.id = ANY (p_ids) AND l.workspace_id = p_workspace_id
        ORDER BY CASE WHEN l.holds_limit THEN l.limit_key END, l.id
    LOOP
        RETURN QUERY SELECT v_id, c.answer, c.worker_run, c.reply_to, c.said
            FROM queue.cancel_job(p_workspace_id, v_id, p_by, p_reason, p_force, NULL) c;
    END LOOP;
    RETURN QUERY SELECT NULL::uuid, 'said', NULL::uuid, NULL::text, queue.flatten(ARRAY[bus.say_all(p_also, NULL)]) WHERE p_also IS NOT NULL;
END
$$;

-- Cancel all jobs of a workspace and take none any more. In sets, so that a long line costs seconds and no more. The rows
-- returned are the jobs of which somebody has to hear; the last one holds what was said.
CREATE OR REPLACE FUNCTION queue.close_workspace(p_workspace_id text, p_by text, p_reason text)
RETURNS TABLE (id uuid, answer text, worker_run uuid, reply_to text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_keys text[];
    v_key  text;
    v_said json[] := '{}';
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('queue.workspace ' || p_workspace_id, 0));
    INSERT INTO queue.closed_workspace (workspace_id) VALUES (p_workspace_id) ON CONFLICT DO NOTHING;
    PERFORM FROM queue.live_job l WHERE l.workspace_id = p_workspace_id ORDER BY l.id FOR UPDATE;
    SELECT array_agg(DISTINCT l.limit_key ORDER BY l.limit_key) INTO v_keys
    FROM queue.live_job l WHERE l.workspace_id = p_workspace_id AND l.holds_limit;
    RETURN QUERY
        WITH ended AS (
            DELETE FROM queue.live_job l WHERE l.workspace_id = p_workspace_id RETURNING l.*
        ), written AS (
            INSERT INTO queue.finished_job (id, born, outcome, result, started_at, finished_at, claims, canceled_by, canceled_reason)
            SELECT e.id, e.born, 'canceled', queue.canceled_result(coalesce(e.cancel_by, p_by), coalesce(e.cancel_reason, p_reason)),
                   coalesce(e.began_at, e.claimed_at), clock_timestamp(), e.claims, coalesce(e.cancel_by, p_by), coalesce(e.cancel_reason, p_reason)
            FROM ended e
        ), to_erase AS (
            INSERT INTO queue.erasure (job_id, due_at, after_s)
            SELECT e.id, queue.erase_at(j.erase_after_s), j.erase_after_s FROM ended e
            CROSS JOIN LATERAL (SELECT j.erase_after_s FROM queue.job j WHERE j.id = e.id AND j.born = e.born LIMIT 1) j
            WHERE e.epilogue AND j.erase_after_s IS NOT NULL ON CONFLICT DO NOTHING
        ), heard_steps AS (
            UPDATE queue.flow_step s SET state = CASE s.outcome WHEN 'success' THEN 'success' ELSE 'failure' END
            FROM ended e WHERE e.tag = 'flow' AND s.flow_id = e.id AND s.born = e.born AND s.state = 'ended'
        ), heard_children AS (
            UPDATE queue.flow_child c SET state = CASE c.outcome WHEN 'success' THEN 'success' ELSE 'failure' END
            FROM ended e WHERE e.tag = 'flow' AND c.flow_id = e.id AND c.born = e.born AND c.state = 'ended'
        ), heard_tasks AS (
            UPDATE queue.workflow_step s SET state = 'done'
            FROM ended e WHERE e.rounds > 0 AND s.workflow_id = e.id AND s.born = e.born AND s.state IN ('ended', 'waiting')
        )
        SELECT e.id, 'canceled', e.worker_run, e.reply_to, NULL::json FROM ended e
        WHERE e.worker_run IS NOT NULL OR e.reply_to IS NOT NULL;
    FOREACH v_key IN ARRAY coalesce(v_keys, '{}') LOOP
        v_said := v_said || queue.hand_over(v_key);
    END LOOP;
    RETURN QUERY SELECT NULL::uuid, 'said', NULL::uuid, NULL::text, queue.flatten(v_said);
END
$$;

-- Take jobs of a workspace again.
CREATE OR REPLACE FUNCTION queue.open_workspace(p_workspace_id text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM queue.closed_workspace c WHERE c.workspace_id = p_workspace_id
$$;

-- Let a job that waits for its time enter the line now. `answer` is `entered`, `not_scheduled` or `unknown`.
CREATE OR REPLACE FUNCTION queue.run_now(p_workspace_id text, p_id uuid, p_also json)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_job  queue.live_job;
    v_said json[];
BEGIN
    SELECT * INTO v_job FROM queue.live_job l WHERE l.id = p_id AND l.workspace_id = p_workspace_id FOR UPDATE;
    IF NOT FOUND OR v_job.state <> 'scheduled' THEN
        RETURN QUERY SELECT CASE WHEN v_job.id IS NULL THEN 'unknown' ELSE 'not_scheduled' END, NULL::json;
        RETURN;
    END IF;
    UPDATE queue.live_job l SET due_at = clock_timestamp() WHERE l.id = p_id;
    v_said := queue.enter_line(p_id);
    IF p_also IS NOT NULL THEN
        v_said := v_said || bus.say_all(p_also, v_job.traceparent);
    END IF;
    RETURN QUERY SELECT 'entered', queue.flatten(v_said);
END
$$;

-- Forget what a job that has ended was given, answered and printed. `answer` is `forgotten` or `unknown`.
CREATE OR REPLACE FUNCTION queue.forget_job(p_workspace_id text, p_id uuid, p_also json)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_born timestamptz := queue.locate(p_id);
BEGIN
    PERFORM FROM queue.finished_job f JOIN queue.job j USING (id, born)
    WHERE f.id = p_id AND f.born = v_born AND j.workspace_id = p_workspace_id FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown', NULL::json;
        RETURN;
    END IF;
    PERFORM queue.blank(p_id, v_born);
    RETURN QUERY SELECT 'forgotten', queue.flatten(ARRAY[bus.say_all(p_also, NULL)]);
END
$$;

-- A job that has ended elsewhere, and the highest job above it that is known.
DO $$
BEGIN
    IF to_regtype('queue.finished_import') IS NULL THEN
        CREATE TYPE queue.finished_import AS (
            id uuid, kind text, path text, hash text, language text, code text, args json, tag text, priority smallint,
            timeout_s integer, parent_job uuid, root_of uuid, trigger_kind text, visible_to_owner boolean, created_at timestamptz,
            created_by text, permissioned_as text, email text, outcome text, result json, started_at timestamptz,
            finished_at timestamptz, worker text, canceled_by text, canceled_reason text, memory_peak_kb integer, labels text[],
            log text, log_units integer);
    END IF;
END
$$;

-- Take in jobs that have ended elsewhere. They are born now, one after the other in the order in which they were made, so
-- that they lie in a day that stands and are kept for as long as any other. The detail of a refusal is the job's id.
CREATE OR REPLACE FUNCTION queue.import_jobs(p_workspace_id text, p_jobs json, p_also json) RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_now  timestamptz := clock_timestamp();
    v_born timestamptz;
    v_root uuid;
    r      record;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('queue.workspace ' || p_workspace_id, 0));
    IF EXISTS (SELECT FROM queue.closed_workspace c WHERE c.workspace_id = p_workspace_id) THEN
        RAISE EXCEPTION 'the workspace % is closed', p_workspace_id USING ERRCODE = 'TM008';
    END IF;
    PERFORM queue.make_day((v_now AT TIME ZONE 'UTC')::date), queue.make_day(((v_now + interval '1 minute') AT TIME ZONE 'UTC')::date);
    FOR r IN
        SELECT p.*, row_number() OVER (ORDER BY p.created_at, p.id) AS no
        FROM json_populate_recordset(NULL::queue.finished_import, p_jobs) p
        -- What is above others comes in before them.
        ORDER BY p.parent_job IS NOT NULL, p.id
    LOOP
        v_born := v_now + r.no * interval '1 microsecond';
        IF NOT EXISTS (SELECT FROM queue.job j WHERE j.id = r.id AND j.born = queue.born_of(r.id)) THEN
            INSERT INTO queue.displaced_job (id, born) VALUES (r.id, v_born) ON CONFLICT DO NOTHING;
        END IF;
        IF NOT EXISTS (SELECT FROM queue.displaced_job d WHERE d.id = r.id AND d.born = v_born) THEN
            RAISE EXCEPTION 'job id % is taken', r.id USING ERRCODE = 'TM001', DETAIL = r.id::text;
        END IF;
        v_root := NULL;
        IF r.root_of IS NOT NULL THEN
            SELECT coalesce(j.root_job, j.id) INTO v_root FROM queue.job j
            WHERE j.id = r.root_of AND j.born = queue.locate(r.root_of) AND j.workspace_id = p_workspace_id;
            -- One that nobody knows here any more is kept as a name; it only must not be a job of others.
            IF NOT FOUND AND EXISTS (SELECT FROM queue.job j WHERE j.id = r.root_of AND j.born = queue.locate(r.root_of)) THEN
                RAISE EXCEPTION 'parent job % does not exist in this workspace', r.root_of USING ERRCODE = 'TM002', DETAIL = r.id::text;
            END IF;
        END IF;
        PERFORM queue.check_transition('running', r.outcome) WHERE r.outcome <> 'skipped';
        INSERT INTO queue.job (id, born, workspace_id, kind, path, hash, language, code, args, tag, priority, envs, timeout_s, due_at,
                               parent_job, root_job, trigger_kind, visible_to_owner, created_at, created_by, permissioned_as, email,
                               permissions)
        VALUES (r.id, v_born, p_workspace_id, r.kind, r.path, r.hash, r.language, r.code, r.args, r.tag, coalesce(r.priority, 0), '{}',
                r.timeout_s, coalesce(r.started_at, r.finished_at), r.parent_job, v_root, r.trigger_kind, r.visible_to_owner,
                r.created_at, r.created_by, r.permissioned_as, r.email, '{}');
        INSERT INTO queue.finished_job (id, born, outcome, result, started_at, finished_at, worker, claims, canceled_by,
                                        canceled_reason, memory_peak_kb, labels)
        VALUES (r.id, v_born, r.outcome, r.result, r.started_at, r.finished_at, r.worker, 0, r.canceled_by, r.canceled_reason,
                r.memory_peak_kb, r.labels);
        IF r.log <> '' THEN
            INSERT INTO queue.log_chunk (job_id, born, claim_no, seq, units, text) VALUES (r.id, v_born, 0, 0, r.log_units, r.log);
        END IF;
    END LOOP;
    RETURN queue.flatten(ARRAY[bus.say_all(p_also, NULL)]);
END
$$;

-- Remove jobs as if they had never been there; what one held of a limit is handed on. Refused while one of them runs, or while
-- the flow or workflow above one of them, which waits for its end or reads its result, is under way.
CREATE OR REPLACE FUNCTION queue.delete_jobs(p_workspace_id text, p_ids uuid[], p_also json) RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_keys text[];
    v_key  text;
    v_id   uuid;
    v_born timestamptz;
    v_said json[] := '{}';
BEGIN
    PERFORM FROM queue.live_job l WHERE l.id = ANY (p_ids) AND l.workspace_id = p_workspace_id ORDER BY l.id FOR UPDATE;
    SELECT l.id INTO v_id FROM queue.live_job l
    WHERE l.id = ANY (p_ids) AND l.workspace_id = p_workspace_id AND l.state IN ('running', 'suspended') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'job % runs', v_id USING ERRCODE = 'TM009', DETAIL = v_id::text, HINT = 'cancel it first';
    END IF;
    SELECT j.id INTO v_id FROM unnest(p_ids) AS given (id)
    CROSS JOIN LATERAL (
        SELECT q.id, q.parent_job FROM queue.job q
        WHERE q.id = given.id AND q.born = queue.locate(given.id) AND q.workspace_id = p_workspace_id LIMIT 1) j
    JOIN queue.live_job above ON above.id = j.parent_job
    WHERE NOT above.id = ANY (p_ids)
      AND (above.tag = 'flow' OR EXISTS (
          SELECT FROM queue.workflow_step w WHERE w.workflow_id = above.id AND w.born = above.born AND w.job_id = j.id)) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the flow of job % is under way', v_id USING ERRCODE = 'TM009', DETAIL = v_id::text, HINT = 'its flow is under way';
    END IF;
    SELECT array_agg(DISTINCT l.limit_key ORDER BY l.limit_key) INTO v_keys
    FROM queue.live_job l WHERE l.id = ANY (p_ids) AND l.workspace_id = p_workspace_id AND l.holds_limit;
    DELETE FROM queue.live_job l WHERE l.id = ANY (p_ids) AND l.workspace_id = p_workspace_id;
    FOREACH v_id IN ARRAY p_ids LOOP
        v_born := queue.locate(v_id);
        DELETE FROM queue.job j WHERE j.id = v_id AND j.born = v_born AND j.workspace_id = p_workspace_id;
        IF FOUND THEN
            DELETE FROM queue.finished_job f WHERE f.id = v_id AND f.born = v_born;
            DELETE FROM queue.log_chunk c WHERE c.job_id = v_id AND c.born = v_born;
            DELETE FROM queue.flow_step t WHERE t.flow_id = v_id AND t.born = v_born;
            DELETE FROM queue.flow_child t WHERE t.flow_id = v_id AND t.born = v_born;
            DELETE FROM queue.flow_resume t WHERE t.flow_id = v_id AND t.born = v_born;
            DELETE FROM queue.flow_state t WHERE t.flow_id = v_id AND t.born = v_born;
            DELETE FROM queue.workflow_step t WHERE t.workflow_id = v_id AND t.born = v_born;
            DELETE FROM queue.displaced_job d WHERE d.id = v_id;
        END IF;
    END LOOP;
    DELETE FROM queue.request_key k WHERE k.workspace_id = p_workspace_id AND k.job_id = ANY (p_ids);
    FOREACH v_key IN ARRAY coalesce(v_keys, '{}') LOOP
        v_said := v_said || queue.hand_over(v_key);
    END LOOP;
    RETURN queue.flatten(v_said || bus.say_all(p_also, NULL));
END
$$;

-- Why is this job not running? A few words, and the facts behind them.
CREATE OR REPLACE FUNCTION queue.explain_job(p_workspace_id text, p_id uuid) RETURNS json
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_job     queue.live_job;
    v_outcome text;
    v_workers bigint;
    v_slots   bigint;
    v_busy    bigint;
    v_ahead   bigint;
    v_holder  uuid;
    v_holders bigint;
    v_why     text;
BEGIN
    SELECT * INTO v_job FROM queue.live_job l WHERE l.id = p_id AND l.workspace_id = p_workspace_id;
    IF NOT FOUND THEN
        SELECT f.outcome INTO v_outcome FROM queue.finished_job f JOIN queue.job j USING (id, born)
        WHERE f.id = p_id AND f.born = queue.locate(p_id) AND j.workspace_id = p_workspace_id;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        RETURN json_build_object('state', v_outcome, 'why', 'The job has finished: ' || v_outcome || '.');
    END IF;
    IF v_job.state = 'suspended' AND v_job.tag = 'flow' THEN
        RETURN queue.explain_flow(v_job);
    END IF;
    SELECT count(*), coalesce(sum(w.slots), 0) INTO v_workers, v_slots FROM queue.worker w
    WHERE (v_job.tag = ANY (w.tags) OR v_job.tag = queue.line_of(w.worker_run)) AND NOT w.draining
      AND w.beat_at > clock_timestamp() - interval '10 seconds';
    SELECT count(*) INTO v_busy FROM queue.live_job l JOIN queue.worker w ON w.worker_run = l.worker_run
    WHERE l.state = 'running' AND (v_job.tag = ANY (w.tags) OR v_job.tag = queue.line_of(w.worker_run));
    SELECT count(*) INTO v_ahead FROM (
        SELECT FROM queue.live_job l WHERE l.state = 'queued' AND l.tag = v_job.tag
          AND (l.urgency, l.rank, l.id) < (v_job.urgency, v_job.rank, v_job.id) LIMIT 10000) a;
    IF v_job.state = 'blocked' THEN
        -- Others may share the key, but of theirs nothing is told.
        SELECT (array_agg(l.id ORDER BY l.claimed_at, l.id) FILTER (WHERE l.workspace_id = p_workspace_id))[1], count(*)
        INTO v_holder, v_holders FROM queue.live_job l WHERE l.limit_key = v_job.limit_key AND l.holds_limit;
    END IF;
    v_why := CASE v_job.state
        WHEN 'scheduled' THEN CASE
            WHEN queue.attempt_of(v_job) > 0 THEN 'It is tried again at ' || queue.spoken(v_job.due_at) || '; tries that have failed: '
                || queue.attempt_of(v_job) || '.'
            ELSE 'It waits for its time, ' || queue.spoken(v_job.due_at) || '.'
        END
        WHEN 'blocked' THEN 'It waits for a slot of the concurrency limit ' || quote_literal(v_job.limit_key) || ', which allows '
            || v_job.limit_ceiling || ' at a time' || coalesce('; the job ' || v_holder || ' holds one', '') || '.'
        WHEN 'running' THEN CASE WHEN v_job.cancel_at IS NULL THEN 'It is running.' ELSE 'It is being canceled.' END
        WHEN 'suspended' THEN CASE v_job.tag WHEN 'flow' THEN 'It is suspended.' ELSE queue.why_workflow_waits(v_job) END
        ELSE CASE
            WHEN v_job.tag = 'flow' THEN 'It is about to begin.'
            WHEN v_job.tag LIKE '@%' AND v_workers = 0 THEN 'The worker that runs all steps of its flow has gone; it is about to fail.'
            WHEN v_job.tag LIKE '@%' AND v_busy >= v_slots THEN 'All ' || v_slots
                || ' slots of the worker that runs all steps of its flow are busy; ' || v_ahead || ' jobs are ahead of it.'
            WHEN v_workers = 0 THEN 'No worker serves the tag ' || quote_literal(v_job.tag) || '.'
            WHEN v_busy >= v_slots THEN 'All ' || v_slots || ' slots of the ' || v_workers || ' workers that serve the tag '
                || quote_literal(v_job.tag) || ' are busy; ' || v_ahead || ' jobs are ahead of it.'
            ELSE 'It is about to be claimed; ' || v_ahead || ' jobs are ahead of it.'
        END
    END;
    RETURN json_build_object('state', v_job.state, 'why', v_why, 'tag', v_job.tag, 'workers', v_workers, 'slots', v_slots,
        'busy_slots', v_busy, 'ahead', v_ahead, 'due_at', v_job.due_at, 'claims', v_job.claims, 'lost_claims', v_job.lost_claims,
        'limit_key', v_job.limit_key, 'limit_ceiling', v_job.limit_ceiling, 'limit_holders', v_holders, 'limit_holder', v_holder);
END
$$;

-- What does a flow wait for that has begun? Its step, and why the job of that has not ended: of many, one that is furthest.
CREATE OR REPLACE FUNCTION queue.explain_flow(l queue.live_job) RETURNS json
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_step  queue.flow_step;
    v_job   uuid;
    v_said  bigint;
    v_live  bigint;
    v_below json;
    v_why   text;
BEGIN
    SELECT * INTO v_step FROM queue.flow_step s WHERE s.flow_id = l.id AND s.born = l.born AND s.no = l.at_step;
    IF l.cancel_at IS NOT NULL THEN
        SELECT count(*) INTO v_live FROM queue.live_job c WHERE c.parent_job = l.id;
        v_why := 'It is being canceled; jobs of its steps that have not ended: ' || v_live || '.';
    ELSIF v_step.state = 'waiting' THEN
        SELECT count(*) INTO v_said FROM queue.flow_resume r
        WHERE r.flow_id = l.id AND r.born = l.born AND r.approved
          AND (r.spent_on IS NULL AND r.step_job IS NULL OR r.step_job = v_step.job_id);
        v_why := 'It waits before the step ' || quote_literal(v_step.module) || ' for approvals, until ' || queue.spoken(v_step.until)
            || '; ' || v_said || ' of ' || v_step.needed || ' have been given.';
    ELSIF v_step.state = 'started' THEN
        SELECT c.id INTO v_job FROM queue.live_job c WHERE c.parent_job = l.id AND c.step_no = v_step.no
        ORDER BY CASE c.state WHEN 'running' THEN 0 WHEN 'suspended' THEN 1 ELSE 2 END, c.step_index, c.id LIMIT 1;
        v_below := queue.explain_job(l.workspace_id, v_job);
        v_why := 'It is at the step ' || quote_literal(v_step.module)
            || CASE WHEN v_step.job_id IS NULL THEN ', of whose ' || coalesce(v_step.total || ' ', '') || 'jobs ' || v_step.ended
                || ' have ended and ' || v_step.started - v_step.ended || ' have not'
                || coalesce(', at most ' || v_step.parallelism || ' at once', '') ELSE '' END
            || coalesce('. The job ' || v_job || ': ' || (v_below ->> 'why'), '.');
    ELSIF v_step.until > clock_timestamp() THEN
        v_why := 'It sleeps until ' || queue.spoken(v_step.until) || ', and goes on behind the step ' || quote_literal(v_step.module) || '.';
    ELSIF v_step.flow_id IS NOT NULL THEN
        v_why := 'It is about to go on behind the step ' || quote_literal(v_step.module) || '.';
    ELSE
        v_why := 'It is about to go on.';
    END IF;
    RETURN json_build_object('state', l.state, 'why', v_why, 'step', v_step.module, 'step_state', v_step.state, 'job', v_job,
        'job_waits', v_below, 'approvals_needed', v_step.needed, 'approvals_given', v_said, 'until', v_step.until,
        'deadline_at', l.deadline_at);
END
$$;

-- How often the step of a job has been tried before.
CREATE OR REPLACE FUNCTION queue.attempt_of(l queue.live_job) RETURNS integer
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT s.attempt FROM queue.flow_step s WHERE s.flow_id = l.parent_job AND s.born = l.flow_born AND s.no = l.step_no), 0)
$$;

-- A moment as it is told to people.
CREATE OR REPLACE FUNCTION queue.spoken(p_moment timestamptz) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_char(p_moment AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
$$;

-- Who this job token speaks for, while its claim lives. Digests are compared, not the text, so that time tells nothing.
CREATE OR REPLACE FUNCTION queue.verify_job_token(p_token text)
RETURNS TABLE (job_id uuid, workspace_id text, created_by text, permissioned_as text, email text, permissions json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.id, j.workspace_id, j.created_by, j.permissioned_as, j.email, j.permissions
    FROM regexp_match(p_token, '^tmj_([0-9]{1,9})_([0-9a-f]{32})_([0-9a-f]{64})$') m
    JOIN queue.token_key k ON k.no = m[1]::integer
    JOIN queue.live_job l ON l.id = m[2]::uuid AND l.state = 'running'
    JOIN queue.job j ON j.id = l.id AND j.born = l.born
    WHERE sha256(convert_to(queue.sign(k, l.id, l.claim_key), 'UTF8')) = sha256(convert_to(m[3], 'UTF8'))
$$;

-- A worker process has come up; workers silent for a day are forgotten.
CREATE OR REPLACE FUNCTION queue.register_worker(
    p_worker_run uuid, p_name text, p_instance text, p_group text, p_tags text[], p_slots integer, p_isolation text, p_version text)
RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM queue.worker w WHERE w.beat_at < clock_timestamp() - interval '1 day'
        AND NOT EXISTS (SELECT FROM queue.live_job l WHERE l.worker_run = w.worker_run AND l.state = 'running');
    INSERT INTO queue.worker (worker_run, name, instance, worker_group, tags, slots, isolation, version)
    VALUES (p_worker_run, p_name, p_instance, p_group, p_tags, p_slots, p_isolation, p_version)
    ON CONFLICT (worker_run) DO UPDATE SET beat_at = clock_timestamp(), draining = false;
    RETURN json_build_array(bus.say('worker.announced.v1', 'worker.announced',
        json_build_object('worker_run', p_worker_run, 'name', p_name, 'tags', p_tags), NULL));
END
$$;

-- Those of the flows that have ended: a worker keeps nothing for them any more.
CREATE OR REPLACE FUNCTION queue.ended_flows(p_ids uuid[]) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(f.id), '{}') FROM unnest(p_ids) AS f (id) WHERE NOT EXISTS (SELECT FROM queue.live_job l WHERE l.id = f.id)
$$;

-- A worker process has gone in good order.
CREATE OR REPLACE FUNCTION queue.retire_worker(p_worker_run uuid) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM queue.worker w WHERE w.worker_run = p_worker_run
        AND NOT EXISTS (SELECT FROM queue.live_job l WHERE l.worker_run = p_worker_run AND l.state = 'running')
$$;

-- The scheduler's one statement a second: what is due, who is lost, what is stranded, and when to look again.
-- `p_connected_for`: for how long this scheduler has been able to ask. Leases count only time in which renewing was
-- possible, so nobody is given up before a full lease and a beat after the server's start or this scheduler's reconnect.
CREATE OR REPLACE FUNCTION queue.tick(p_connected_for interval, p_lease interval, p_beat interval, p_limit integer)
RETURNS TABLE (said json, stranded json, ended json, dispatched integer, requeued integer, failed integer, stale_tags text[], next_due_in interval)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_due   json[] := queue.dispatch_due(p_limit);
    v_lost  json[] := '{}';
    v_open  json[];
    v_woken json := queue.wake_flows('5 seconds', p_limit);
    v_ended json := '[]';
    v_requeued integer := 0;
    v_failed   integer := 0;
BEGIN
    IF p_connected_for > p_lease + p_beat AND clock_timestamp() - pg_postmaster_start_time() > p_lease + p_beat THEN
        SELECT coalesce(array_agg(m) FILTER (WHERE m IS NOT NULL), '{}'),
               coalesce(json_agg(json_build_object('job_id', r.job_id, 'reply_to', r.reply_to)) FILTER (WHERE r.verdict <> 'requeued'), '[]'),
               count(*) FILTER (WHERE r.verdict = 'requeued'), count(*) FILTER (WHERE r.verdict = 'failed')
        INTO v_lost, v_ended, v_requeued, v_failed
        FROM (SELECT * FROM queue.rescue_lost(p_lease, p_limit) UNION ALL SELECT * FROM queue.fail_left_behind(p_lease, p_limit)) r LEFT JOIN LATERAL unnest(r.said) m ON true;
    END IF;
    v_open := queue.unblock();
    PERFORM queue.erase_due(p_limit);
    DELETE FROM queue.cached_result WHERE key IN (
        SELECT c.key FROM queue.cached_result c WHERE c.expires_at <= clock_timestamp() ORDER BY c.expires_at LIMIT p_limit
        FOR UPDATE SKIP LOCKED);
    RETURN QUERY SELECT queue.flatten(v_due || v_open || v_lost || v_woken), bus.take_stranded(interval '1 second', p_limit), v_ended,
        cardinality(v_due), v_requeued, v_failed, queue.stale_tags(),
        least((SELECT min(l.due_at) FROM queue.live_job l WHERE l.state = 'scheduled'),
              (SELECT min(l.wake_at) FROM queue.live_job l WHERE l.wake_at IS NOT NULL)) - clock_timestamp();
END
$$;

-- Queued rows of a tag get a new ticket, first in line first, when the broker holds fewer tickets than there are rows.
CREATE OR REPLACE FUNCTION queue.rehint(p_tag text, p_ready integer, p_limit integer) RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_missing bigint;
    v_job     queue.live_job;
    v_said    json[] := '{}';
BEGIN
    -- Counted no further than it matters, and along the line, because elsewhere others may lie in between.
    SELECT count(*) - p_ready INTO v_missing FROM (
        SELECT FROM queue.live_job l WHERE l.state = 'queued' AND l.tag = p_tag
        ORDER BY l.urgency, l.rank, l.id LIMIT p_ready::bigint + p_limit) line;
    FOR v_job IN
        SELECT l.* FROM queue.live_job l WHERE l.state = 'queued' AND l.tag = p_tag
        ORDER BY l.urgency, l.rank, l.id LIMIT greatest(least(v_missing, p_limit), 0) FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE queue.live_job l SET hinted_at = clock_timestamp(), hints = least(l.hints + 1, 10) WHERE l.id = v_job.id;
        v_said := v_said || queue.say_ticket(v_job);
    END LOOP;
    IF cardinality(v_said) = 0 THEN
        UPDATE queue.live_job l SET hinted_at = clock_timestamp(), hints = least(l.hints + 1, 10)
        WHERE l.id = (SELECT h.id FROM queue.live_job h WHERE h.state = 'queued' AND h.tag = p_tag
                      ORDER BY h.urgency, h.rank, h.id LIMIT 1 FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN queue.flatten(v_said);
END
$$;

-- All that is known of a job, finished or not; `state` is its outcome once it has one, and `parked` true of a flow that
-- waits for approvals.
CREATE OR REPLACE VIEW queue.any_job AS
SELECT j.id, j.born, j.workspace_id, j.kind, j.path, j.hash, j.language, coalesce(j.code, c.code) AS code, j.entrypoint, j.args, j.tag,
       j.priority, j.due_at, j.timeout_s, j.parent_job, j.root_job, j.scope_job, j.step_id, j.trigger_kind, j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.email,
       coalesce(l.state, f.outcome) AS state, f.outcome, f.result, coalesce(f.started_at, l.began_at, l.claimed_at) AS started_at,
       f.finished_at, coalesce(f.worker, w.name) AS worker, coalesce(f.claims, l.claims) AS claims,
       coalesce(f.canceled_by, l.cancel_by) AS canceled_by, coalesce(f.canceled_reason, l.cancel_reason) AS canceled_reason,
       f.memory_peak_kb, f.labels, w.beat_at AS last_beat, w.draining AS worker_draining, f.deleted, l.at_step, l.wake_at, l.progress,
       CASE l.state WHEN 'suspended' THEN (
           SELECT s.state = 'waiting' FROM queue.flow_step s WHERE s.flow_id = l.id AND s.born = l.born AND s.no = l.at_step) END AS parked,
       j.restarted_from, j.early
FROM queue.job j
LEFT JOIN queue.inline_code c ON c.hash = j.code_hash
LEFT JOIN queue.finished_job f ON f.id = j.id AND f.born = j.born
LEFT JOIN queue.live_job l ON l.id = j.id
LEFT JOIN queue.worker w ON w.worker_run = l.worker_run;

-- What was asked for, without how it went: lists find along it which jobs they show.
CREATE OR REPLACE VIEW queue.asked_job AS
SELECT j.id, j.born, j.workspace_id, j.kind, j.path, j.hash, j.entrypoint, j.args, j.tag, j.limit_key, j.parent_job, j.step_id,
       j.trigger_kind, j.visible_to_owner, j.created_at, j.created_by, j.permissioned_as, j.timeout_s,
       j.due_at
FROM queue.job j;

-- Unfinished jobs only, for lists that would otherwise read every partition.
CREATE OR REPLACE VIEW queue.unfinished_job AS
SELECT l.id, l.born, l.workspace_id, l.state, l.due_at, l.tag,
       CASE l.state WHEN 'suspended' THEN (
           SELECT s.state = 'waiting' FROM queue.flow_step s WHERE s.flow_id = l.id AND s.born = l.born AND s.no = l.at_step) END AS parked
FROM queue.live_job l;

-- Jobs that have labels, for lists that would otherwise look at how each job ended.
CREATE OR REPLACE VIEW queue.labeled_job AS
SELECT f.id, f.born, f.labels FROM queue.finished_job f WHERE f.labels IS NOT NULL;

-- The log with each chunk's place in it, in UTF-16 units from the beginning.
CREATE OR REPLACE VIEW queue.job_log AS
SELECT c.job_id, c.born, c.claim_no, c.seq, c.text, c.units FROM queue.log_chunk c WHERE NOT c.streamed;

-- The streamed result likewise.
CREATE OR REPLACE VIEW queue.job_stream AS
SELECT c.job_id, c.born, c.claim_no, c.seq, c.text, c.units FROM queue.log_chunk c WHERE c.streamed;

-- How far flows have come.
CREATE OR REPLACE VIEW queue.known_step AS
SELECT s.flow_id, s.born, s.no, s.module, s.state, s.attempt, s.job_id, s.outcome, s.ended_at, s.failed_retries, s.total, s.started, s.ended,
       s.failed, s.branch, s.parallelism, s.items, s.result, s.skipped, s.needed, s.since, s.until, s.conditions
FROM queue.flow_step s;

CREATE OR REPLACE VIEW queue.known_child AS
SELECT c.flow_id, c.born, c.no, c.attempt, c.index, c.job_id, c.state, c.outcome, c.started_at, c.ended_at FROM queue.flow_child c;

CREATE OR REPLACE VIEW queue.known_resume AS
SELECT r.flow_id, r.born, r.step_job, r.resume_id, r.approver, r.approved, r.value, r.said_at, r.spent_on FROM queue.flow_resume r;

CREATE OR REPLACE VIEW queue.known_state AS
SELECT t.flow_id, t.born, t.key, t.value FROM queue.flow_state t;

CREATE OR REPLACE VIEW queue.known_worker AS
SELECT w.worker_run, w.name, w.instance, w.worker_group, w.tags, w.slots, w.isolation, w.version, w.started_at, w.beat_at, w.draining,
       w.jobs_executed
FROM queue.worker w;

-- Whether stored JSON holds a part. JSON that can't be jsonb, such as a text with NUL, holds nothing; it is tried and not
-- tested, because Postgres 15 has no pg_input_is_valid().
CREATE OR REPLACE FUNCTION queue.json_contains(p_document json, p_part jsonb) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN p_document::jsonb @> p_part;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    RETURN false;
END
$$;

-- How much waits for each tag and for how long: what autoscaling and the metrics read, never queue lengths of the broker.
CREATE OR REPLACE VIEW queue.backlog AS
SELECT l.tag, count(*) AS waiting, clock_timestamp() - min(l.due_at) AS oldest
FROM queue.live_job l WHERE l.state = 'queued' GROUP BY l.tag;

-- Partitions for today and the days ahead; returns how many days are ready from today on.
CREATE OR REPLACE FUNCTION queue.prepare_days(p_ahead integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
    FOR i IN 0..p_ahead LOOP
        PERFORM queue.make_day(v_today + i);
    END LOOP;
    IF NOT EXISTS (SELECT FROM queue.token_key k WHERE k.created_at > clock_timestamp() - interval '1 day') THEN
        PERFORM queue.make_token_key();
    END IF;
    DELETE FROM queue.request_key k WHERE k.expires_at < clock_timestamp();
    DELETE FROM queue.flow_worker w WHERE NOT EXISTS (SELECT FROM queue.live_job l WHERE l.id = w.flow_id);
    -- A key may go when a newer one was there before the oldest claim that still runs.
    DELETE FROM queue.token_key k
    WHERE k.no < (
        SELECT max(n.no) FROM queue.token_key n WHERE n.created_at < least(
            clock_timestamp() - interval '1 day',
            (SELECT min(l.claimed_at) FROM queue.live_job l WHERE l.state = 'running')));
    RETURN p_ahead + 1;
END
$$;

-- Forget code inside flows that no job of the kept days was made of. Returns how much was forgotten.
CREATE OR REPLACE FUNCTION queue.forget_code(p_unused_since date) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_forgotten integer;
BEGIN
    DELETE FROM queue.inline_code c
    WHERE c.last_used < p_unused_since AND NOT EXISTS (
        SELECT FROM queue.live_job l JOIN queue.job j ON j.id = l.id AND j.born = l.born
        WHERE l.born < p_unused_since AND j.code_hash = c.hash);
    GET DIAGNOSTICS v_forgotten = ROW_COUNT;
    RETURN v_forgotten;
END
$$;

-- Days of which every partition still stands and that are old enough to be looked at by retention, oldest first.
CREATE OR REPLACE FUNCTION queue.days_before(p_before timestamptz) RETURNS SETOF date
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- Materialized: the planner must not turn the names of other relations into dates.
    WITH partitions AS MATERIALIZED (
        SELECT c.relname::text AS name FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'queue.job'::regclass
    )
    SELECT to_date(right(p.name, 8), 'YYYYMMDD') AS day FROM partitions p
    WHERE to_date(right(p.name, 8), 'YYYYMMDD') < (p_before AT TIME ZONE 'UTC')::date
    ORDER BY 1
$$;

-- Move on what a day's partitions hold beyond the retention: unfinished jobs, whole trees whose root is unfinished, and
-- jobs that finished late. Returns how many were moved; call it again until it moves none.
CREATE OR REPLACE FUNCTION queue.move_on(p_day date, p_finished_before timestamptz, p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_from  timestamptz := p_day::timestamp AT TIME ZONE 'UTC';
    v_to    timestamptz := (p_day + 1)::timestamp AT TIME ZONE 'UTC';
    v_born  timestamptz := clock_timestamp();
    v_job   record;
    v_moved integer := 0;
BEGIN
    FOR v_job IN
        SELECT j.id, j.born FROM queue.job j
        LEFT JOIN queue.finished_job f ON f.id = j.id AND f.born = j.born
        WHERE j.born >= v_from AND j.born < v_to
          AND (f.id IS NULL OR f.finished_at >= p_finished_before
               OR EXISTS (SELECT FROM queue.live_job r WHERE r.id = j.root_job))
        ORDER BY j.id LIMIT p_limit
    LOOP
        PERFORM FROM queue.live_job l WHERE l.id = v_job.id FOR UPDATE;
        INSERT INTO queue.displaced_job (id, born) VALUES (v_job.id, v_born) ON CONFLICT (id) DO UPDATE SET born = excluded.born;
        -- Who has read the flow before looks for its rows where they are no more, and must not decide on that.
        UPDATE queue.live_job SET born = v_born, version = version + CASE tag WHEN 'flow' THEN 1 ELSE 0 END WHERE id = v_job.id;
        UPDATE queue.job SET born = v_born WHERE id = v_job.id AND born = v_job.born;
        UPDATE queue.finished_job SET born = v_born WHERE id = v_job.id AND born = v_job.born;
        UPDATE queue.log_chunk SET born = v_born WHERE job_id = v_job.id AND born = v_job.born;
        UPDATE queue.flow_step SET born = v_born WHERE flow_id = v_job.id AND born = v_job.born;
        UPDATE queue.flow_child SET born = v_born WHERE flow_id = v_job.id AND born = v_job.born;
        UPDATE queue.flow_resume SET born = v_born WHERE flow_id = v_job.id AND born = v_job.born;
        UPDATE queue.flow_state SET born = v_born WHERE flow_id = v_job.id AND born = v_job.born;
        UPDATE queue.workflow_step SET born = v_born WHERE workflow_id = v_job.id AND born = v_job.born;
        UPDATE queue.live_job SET flow_born = v_born WHERE parent_job = v_job.id AND flow_born = v_job.born;
        v_moved := v_moved + 1;
    END LOOP;
    IF v_moved = 0 THEN
        DELETE FROM queue.displaced_job d WHERE d.born >= v_from AND d.born < v_to;
    END IF;
    RETURN v_moved;
END
$$;

GRANT USAGE ON SCHEMA queue TO tidemill_api, tidemill_scheduler, tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.request_job(json, json, json) TO tidemill_api, tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.cached(text) TO tidemill_api, tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.claim_job(text[], uuid, uuid) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.renew(uuid, uuid[], interval, bigint, boolean) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.append_log(uuid, uuid, integer, text, integer) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.append_stream(uuid, uuid, integer, text, integer) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.finish_job(uuid, uuid, json, json) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.release_job(uuid, uuid) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.register_worker(uuid, text, text, text, text[], integer, text, text) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.ended_flows(uuid[]) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.retire_worker(uuid) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.cancel_job(text, uuid, text, text, boolean, json) TO tidemill_api, tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.cancel_jobs(text, uuid[], text, text, boolean, json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.import_jobs(text, json, json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.delete_jobs(text, uuid[], json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.close_workspace(text, text, text) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.open_workspace(text) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.run_now(text, uuid, json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.forget_job(text, uuid, json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.explain_job(text, uuid) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.verify_job_token(text) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.locate(uuid) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.json_contains(json, jsonb) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.tick(interval, interval, interval, integer) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.rehint(text, integer, integer) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.prepare_days(integer) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.days_before(timestamptz) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.forget_code(date) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.move_on(date, timestamptz, integer) TO tidemill_scheduler;
GRANT SELECT ON queue.backlog TO tidemill_scheduler, tidemill_api;
GRANT SELECT ON queue.any_job, queue.asked_job, queue.unfinished_job, queue.labeled_job, queue.job_log, queue.job_stream, queue.known_worker,
    queue.known_step, queue.known_child, queue.known_resume, queue.known_state TO tidemill_api;

-- Ready for the days ahead, and with a key to sign with, before the first service starts.
SELECT queue.prepare_days(14);

RESET ROLE;
