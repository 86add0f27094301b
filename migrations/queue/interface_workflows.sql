-- What the queue publishes of workflows written as code. Their own code says what comes next: a worker runs it until it needs
-- what is not there yet, and writes down what that is (`suspend_workflow`). Its slot is free then; when all that it has asked
-- for has ended, the job goes back into the line and its code is run again from the top, with what is known by now.
-- Lock order as everywhere. A task that ends holds its own row, and so only tries for that of the workflow above: whoever
-- can't have it, or sees others still at work, tells the scheduler, which looks when all has been committed.
SET ROLE tidemill_queue_owner;

-- A task that a workflow asks for. Without a kind it is the workflow's own code again, for the one step under this key.
DO $$
BEGIN
    IF to_regtype('queue.task_request') IS NULL THEN
        CREATE TYPE queue.task_request AS (
            id uuid, key text, name text, kind text, path text, hash text, language text, code_hash text, tag text, priority smallint,
            envs text[], timeout_s integer, limit_key text, limit_ceiling integer, args json);
    END IF;
END
$$;

-- Let a suspended workflow go on, under its old rank: what has begun comes first. The caller holds its row.
CREATE OR REPLACE FUNCTION queue.wake_workflow(l queue.live_job) RETURNS json
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE queue.workflow_step s SET state = 'done' WHERE s.workflow_id = l.id AND s.born = l.born AND s.state = 'ended';
    UPDATE queue.live_job q SET state = 'queued', wake_at = NULL, hinted_at = clock_timestamp(), hints = 0 WHERE q.id = l.id;
    RETURN queue.say_ticket(l);
END
$$;

-- Write down at its step that a task has ended. The last one lets the workflow go on at once, if nobody has its row.
CREATE OR REPLACE FUNCTION queue.note_task_end(p_job queue.live_job, p_outcome text) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_began timestamptz := coalesce(p_job.began_at, p_job.claimed_at);
    v_state text;
    v_above queue.live_job;
BEGIN
    UPDATE queue.workflow_step s SET state = CASE s.state WHEN 'called' THEN 'done' ELSE 'ended' END, outcome = p_outcome,
        started_at = v_began, ended_at = clock_timestamp(), duration_ms = extract(epoch FROM clock_timestamp() - v_began) * 1000
    WHERE s.workflow_id = p_job.parent_job AND s.born = p_job.flow_born AND s.key = p_job.task_key AND s.job_id = p_job.id
      AND s.state IN ('waiting', 'called')
    RETURNING s.state INTO v_state;
    IF v_state IS DISTINCT FROM 'ended' THEN
        RETURN '{}';
    END IF;
    IF NOT EXISTS (SELECT FROM queue.workflow_step s WHERE s.workflow_id = p_job.parent_job AND s.state = 'waiting') THEN
        SELECT * INTO v_above FROM queue.live_job q
        WHERE q.id = p_job.parent_job AND q.state = 'suspended' AND q.cancel_at IS NULL FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            RETURN ARRAY[queue.wake_workflow(v_above)];
        END IF;
    END IF;
    -- Others seem to be at work: the last of them may be about to commit, having seen us at work.
    RETURN ARRAY[queue.say_flow(p_job.parent_job, p_job.traceparent)];
END
$$;

-- Write down what a round of a workflow has come to, and make room: in `p_round`
--   tasks    [rows of task_request] jobs that have to end before it goes on
--   step     {key, result, started_at, duration_ms}: what ran inside the round itself
--   sleep    {key, seconds}
--   approval {key, timeout, conditions}
-- What stands under a key already stays as it is. `p_ending` holds the last of the log, as for finish_job. `answer` is `suspended`,
-- `done` (it was being canceled, and has ended), `stale` (the job went on without this claim), `unknown`, or `too_many_rounds`
-- (it still runs).
CREATE OR REPLACE FUNCTION queue.suspend_workflow(p_id uuid, p_claim_key uuid, p_round json, p_ending json)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    e      queue.ending := json_populate_record(NULL::queue.ending, p_ending);
    l      queue.live_job;
    j      queue.job;
    v_now  timestamptz := clock_timestamp();
    v_said json[] := '{}';
BEGIN
    -- As when a job is asked for: a workspace that is being closed misses none of what is started here.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('queue.workspace ' || q.workspace_id, 0)) FROM queue.live_job q WHERE q.id = p_id;
    SELECT * INTO l FROM queue.live_job q WHERE q.id = p_id FOR UPDATE;
    IF l.claim_key IS DISTINCT FROM p_claim_key THEN
        RETURN QUERY SELECT CASE WHEN l.id IS NULL AND NOT EXISTS (
            SELECT FROM queue.finished_job f WHERE f.id = p_id AND f.born = queue.locate(p_id)) THEN 'unknown' ELSE 'stale' END, NULL::json;
        RETURN;
    END IF;
    IF e.log_text IS NOT NULL THEN
        INSERT INTO queue.log_chunk (job_id, born, claim_no, seq, units, text)
        VALUES (p_id, l.born, l.claims, e.log_seq, e.log_units, e.log_text) ON CONFLICT DO NOTHING;
    END IF;
    IF l.cancel_at IS NOT NULL THEN
        v_said := queue.settle(l, 'canceled', queue.canceled_result(l.cancel_by, l.cancel_reason), e.worker, e.memory_peak_kb, NULL);
        RETURN QUERY SELECT 'done', queue.flatten(v_said);
        RETURN;
    END IF;
    -- A job counts its claims in 16 bits, and nothing else ends code that asks for ever more.
    IF l.rounds >= 30000 THEN
        RETURN QUERY SELECT 'too_many_rounds', NULL::json;
        RETURN;
    END IF;
    UPDATE queue.live_job q SET state = 'suspended', claim_key = NULL, worker_run = NULL, claimed_at = NULL, lost_claims = 0,
        began_at = coalesce(q.began_at, q.claimed_at), rounds = q.rounds + 1, version = q.version + 1
    WHERE q.id = l.id RETURNING * INTO l;
    SELECT * INTO j FROM queue.job WHERE id = l.id AND born = l.born;
    INSERT INTO queue.workflow_step (workflow_id, born, key, kind, state, name, asked_at, result, started_at, duration_ms)
    SELECT l.id, l.born, s.key, 'inline', 'done', s.key, coalesce(s.started_at, v_now), s.result, s.started_at, s.duration_ms
    FROM json_to_record(p_round -> 'step') s (key text, result json, started_at timestamptz, duration_ms bigint)
    WHERE s.key IS NOT NULL ON CONFLICT DO NOTHING;
    INSERT INTO queue.workflow_step (workflow_id, born, key, kind, state, name, asked_at, started_at, until)
    SELECT l.id, l.born, s.key, 'sleep', 'waiting', s.key, v_now, v_now, v_now + s.seconds * interval '1 second'
    FROM json_to_record(p_round -> 'sleep') s (key text, seconds bigint)
    WHERE s.key IS NOT NULL ON CONFLICT DO NOTHING;
    PERFORM queue.wait_for_approval(l, p_round -> 'approval', v_now);
    v_said := queue.start_tasks(l, j, p_round -> 'tasks', v_now);
    IF EXISTS (SELECT FROM queue.workflow_step s WHERE s.workflow_id = l.id AND s.state = 'waiting') THEN
        UPDATE queue.live_job q SET wake_at = CASE
            -- It may be what was approved before it came to wait.
            WHEN EXISTS (SELECT FROM queue.flow_resume r WHERE r.flow_id = l.id AND r.born = l.born AND r.spent_on IS NULL) THEN v_now
            ELSE (SELECT min(s.until) FROM queue.workflow_step s WHERE s.workflow_id = l.id AND s.state = 'waiting')
        END WHERE q.id = l.id;
    ELSE
        v_said := v_said || queue.wake_workflow(l);
    END IF;
    RETURN QUERY SELECT 'suspended', queue.flatten(v_said);
END
$$;

-- Let a workflow wait for an approval, as a flow does before a step.
CREATE OR REPLACE FUNCTION queue.wait_for_approval(l queue.live_job, p_asked json, p_now timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_key   text := p_asked ->> 'key';
    v_until timestamptz := p_now + (p_asked ->> 'timeout')::bigint * interval '1 second';
    v_no    smallint;
BEGIN
    IF v_key IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO queue.workflow_step (workflow_id, born, key, kind, state, name, asked_at, started_at, until)
    VALUES (l.id, l.born, v_key, 'approval', 'waiting', v_key, p_now, p_now, v_until) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        SELECT coalesce(max(s.no) + 1, 0) INTO v_no FROM queue.flow_step s WHERE s.flow_id = l.id AND s.born = l.born;
        INSERT INTO queue.flow_step (flow_id, born, no, module, state, job_id, needed, since, until, conditions)
        VALUES (l.id, l.born, v_no, v_key, 'waiting', queue.approval_ref(l.id, v_key), 1, p_now, v_until, p_asked -> 'conditions');
        UPDATE queue.live_job q SET at_step = v_no WHERE q.id = l.id;
    END IF;
END
$$;

-- Take what was said to the approval that a workflow waits for; tells whether it waits for one in vain.
CREATE OR REPLACE FUNCTION queue.take_approval(l queue.live_job) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_step queue.flow_step;
    r      queue.flow_resume;
BEGIN
    SELECT * INTO v_step FROM queue.flow_step s
    WHERE s.flow_id = l.id AND s.born = l.born AND s.no = l.at_step AND s.state = 'waiting' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT * INTO r FROM queue.flow_resume q
    WHERE q.flow_id = l.id AND q.born = l.born AND (q.spent_on IS NULL AND q.step_job IS NULL OR q.step_job = v_step.job_id)
    ORDER BY q.said_at LIMIT 1;
    IF NOT FOUND THEN
        RETURN v_step.until <= clock_timestamp();
    END IF;
    UPDATE queue.flow_resume q SET spent_on = v_step.no
    WHERE q.flow_id = l.id AND q.born = l.born AND q.resume_id = r.resume_id AND q.step_job IS NOT DISTINCT FROM r.step_job;
    UPDATE queue.flow_step s SET state = CASE WHEN r.approved THEN 'success' ELSE 'failure' END, ended_at = clock_timestamp()
    WHERE s.flow_id = l.id AND s.born = l.born AND s.no = v_step.no;
    UPDATE queue.workflow_step s SET state = 'ended', outcome = 'success', ended_at = clock_timestamp(),
        result = json_build_object('value', r.value, 'approver', r.approver, 'approved', r.approved),
        duration_ms = extract(epoch FROM clock_timestamp() - s.started_at) * 1000
    WHERE s.workflow_id = l.id AND s.born = l.born AND s.key = v_step.module AND s.state = 'waiting';
    RETURN false;
END
$$;

-- The hash under which the code that came with a job is kept once, however many tasks the job has.
CREATE OR REPLACE FUNCTION queue.keep_code(j queue.job) RETURNS text
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_hash text;
BEGIN
    IF j.code IS NULL THEN
        RETURN j.code_hash;
    END IF;
    v_hash := encode(sha256(convert_to(j.code, 'UTF8')), 'hex');
    INSERT INTO queue.inline_code AS c (hash, code, last_used) VALUES (v_hash, j.code, clock_timestamp()::date)
    ON CONFLICT (hash) DO UPDATE SET last_used = excluded.last_used WHERE c.last_used < excluded.last_used;
    RETURN v_hash;
END
$$;

-- The request for a job below one, of the same code, by whom and with whose rights that one was asked for.
CREATE OR REPLACE FUNCTION queue.as_asked(j queue.job, p_code_hash text) RETURNS queue.job_request
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    r queue.job_request;
BEGIN
    r.workspace_id := j.workspace_id; r.kind := j.kind; r.path := j.path; r.hash := j.hash; r.language := j.language;
    r.code_hash := p_code_hash; r.entrypoint := j.entrypoint; r.tag := j.tag; r.priority := j.priority; r.envs := j.envs;
    r.timeout_s := j.timeout_s; r.parent_job := j.id; r.visible_to_owner := j.visible_to_owner; r.created_by := j.created_by;
    r.permissioned_as := j.permissioned_as; r.email := j.email; r.permissions := j.permissions; r.traceparent := j.traceparent;
    RETURN r;
END
$$;

-- Place the tasks of a workflow; those that only wait for a limit enter its line after all rows are there.
CREATE OR REPLACE FUNCTION queue.start_tasks(l queue.live_job, j queue.job, p_tasks json, p_now timestamptz) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n       queue.task_request;
    r       queue.job_request;
    v_job   queue.live_job;
    v_code  text;
    v_late  uuid[] := '{}';
    v_id    uuid;
    v_said  json[] := '{}';
BEGIN
    IF p_tasks IS NULL THEN
        RETURN v_said;
    END IF;
    v_code := queue.keep_code(j);
    FOR n IN SELECT * FROM json_populate_recordset(NULL::queue.task_request, p_tasks) LOOP
        INSERT INTO queue.workflow_step (workflow_id, born, key, kind, state, name, asked_at, job_id)
        VALUES (l.id, l.born, n.key, 'task', 'waiting', n.name, p_now, n.id) ON CONFLICT DO NOTHING;
        CONTINUE WHEN NOT FOUND;
        r := queue.as_asked(j, v_code);
        r.id := n.id; r.task_key := n.key; r.tag := coalesce(n.tag, j.tag); r.priority := coalesce(n.priority, j.priority);
        IF n.kind IS NULL THEN
            r.replays := true; r.timeout_s := coalesce(n.timeout_s, j.timeout_s);
        ELSE
            r.kind := n.kind; r.path := n.path; r.hash := n.hash; r.language := n.language; r.envs := n.envs;
            r.code_hash := NULL; r.entrypoint := NULL; r.timeout_s := n.timeout_s;
        END IF;
        r.limit_key := n.limit_key; r.limit_ceiling := n.limit_ceiling;
        v_job := queue.place_job(r, queue.born_of(n.id), coalesce(j.root_job, j.id), l.born, p_now, n.args);
        IF v_job.limit_key IS NOT NULL THEN
            v_late := v_late || v_job.id;
        ELSE
            v_said := v_said || queue.say_placed(v_job);
        END IF;
    END LOOP;
    -- Limit keys in ascending order, after all rows.
    FOR v_id IN SELECT q.id FROM queue.live_job q WHERE q.id = ANY (v_late) ORDER BY q.limit_key, q.id LOOP
        v_said := v_said || queue.enter_line(v_id);
    END LOOP;
    RETURN v_said;
END
$$;

-- Look at a suspended workflow again: its time may have come, or the end of a task may not have been heard. `ended` says
-- that it has ended here, and `reply_to` which replica of the api waits for that.
CREATE OR REPLACE FUNCTION queue.resume_workflow(p_id uuid)
RETURNS TABLE (said json, ended boolean, reply_to text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    l      queue.live_job;
    v_said json[];
BEGIN
    SELECT * INTO l FROM queue.live_job q WHERE q.id = p_id AND q.state = 'suspended' AND q.tag <> 'flow' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF l.cancel_at IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM queue.live_job c WHERE c.parent_job = l.id AND c.task_key IS NOT NULL) THEN
            v_said := queue.settle(l, 'canceled', queue.canceled_result(l.cancel_by, l.cancel_reason), NULL, NULL, NULL);
            RETURN QUERY SELECT queue.flatten(v_said), true, l.reply_to;
        END IF;
        RETURN;
    END IF;
    UPDATE queue.workflow_step s SET state = 'ended', outcome = 'success', result = 'null', ended_at = clock_timestamp(),
        duration_ms = extract(epoch FROM clock_timestamp() - s.started_at) * 1000
    WHERE s.workflow_id = l.id AND s.state = 'waiting' AND s.kind = 'sleep' AND s.until <= clock_timestamp();
    IF queue.take_approval(l) THEN
        v_said := queue.settle(l, 'failure', queue.error_result(
            'SuspendedTimedOut', 'Nobody has approved or refused in time what the workflow waited for.', NULL), NULL, NULL, NULL);
        RETURN QUERY SELECT queue.flatten(v_said), true, l.reply_to;
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM queue.workflow_step s WHERE s.workflow_id = l.id AND s.state = 'waiting') THEN
        UPDATE queue.workflow_step s SET state = 'done' WHERE s.workflow_id = l.id AND s.born = l.born AND s.state = 'ended';
        UPDATE queue.live_job q SET wake_at = (
            SELECT min(s.until) FROM queue.workflow_step s WHERE s.workflow_id = l.id AND s.state = 'waiting') WHERE q.id = l.id;
        RETURN;
    END IF;
    RETURN QUERY SELECT json_build_array(queue.wake_workflow(l)), false, NULL::text;
END
$$;

-- What a claimed round of a workflow begins with: what is known of its steps, and for a task which one it is and what the
-- workflow itself was given; `count` and `size` are those of the results of steps inside rounds. No row when the claim is over.
CREATE OR REPLACE FUNCTION queue.read_checkpoint(p_id uuid, p_claim_key uuid)
RETURNS TABLE (checkpoint json, args json, count bigint, size bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    l      queue.live_job;
    v_id   uuid;
    v_born timestamptz;
BEGIN
    SELECT * INTO l FROM queue.live_job q WHERE q.id = p_id AND q.claim_key = p_claim_key;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_id := CASE WHEN l.replays THEN l.parent_job ELSE l.id END;
    v_born := CASE WHEN l.replays THEN l.flow_born ELSE l.born END;
    RETURN QUERY SELECT json_build_object(
        'completed_steps', coalesce((
            SELECT json_object_agg(s.key, coalesce(
                CASE WHEN s.kind <> 'task' THEN s.result WHEN f.outcome = 'success' THEN f.result ELSE queue.task_error(s.key, s.job_id, f.result) END,
                'null'))
            FROM queue.workflow_step s
            LEFT JOIN LATERAL (SELECT * FROM queue.finished_job f WHERE f.id = s.job_id AND f.born = queue.locate(s.job_id)) f ON true
            WHERE s.workflow_id = v_id AND s.born = v_born AND s.kind <> 'call' AND s.state IN ('ended', 'done')), '{}'),
        '_executing_key', CASE WHEN l.replays THEN l.task_key END),
        CASE WHEN l.replays THEN (SELECT j.args FROM queue.job j WHERE j.id = v_id AND j.born = v_born) END, i.count, i.size
    FROM (
        SELECT count(*), coalesce(sum(octet_length(s.result::text)), 0)::bigint AS size FROM queue.workflow_step s
        WHERE s.workflow_id = v_id AND s.born = v_born AND s.kind = 'inline') i;
END
$$;

-- A failed task as the SDKs know it.
CREATE OR REPLACE FUNCTION queue.task_error(p_key text, p_job_id uuid, p_result json) RETURNS json
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT json_build_object('__wmill_error', true, 'message', coalesce(p_result -> 'error' ->> 'message', 'The task failed.'),
        'step_key', p_key, 'child_job_id', p_job_id, 'result', p_result)
$$;

-- Write down what a step inside a round has come to; its caller holds the row of the workflow. `answer` is `kept` (also when it was
-- before: then `result` is what was kept), or `taken` (the key is that of another kind of step).
CREATE OR REPLACE FUNCTION queue.write_step(
    l queue.live_job, p_key text, p_result json, p_started_at timestamptz, p_duration_ms bigint, OUT answer text, OUT result json)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_step queue.workflow_step;
BEGIN
    INSERT INTO queue.workflow_step (workflow_id, born, key, kind, state, name, asked_at, result, started_at, duration_ms)
    VALUES (l.id, l.born, p_key, 'inline', 'done', p_key, coalesce(p_started_at, clock_timestamp()), p_result, p_started_at, p_duration_ms)
    ON CONFLICT DO NOTHING;
    IF FOUND THEN
        UPDATE queue.live_job q SET version = q.version + 1 WHERE q.id = l.id;
        answer := 'kept';
        result := p_result;
        RETURN;
    END IF;
    SELECT * INTO v_step FROM queue.workflow_step s WHERE s.workflow_id = l.id AND s.born = l.born AND s.key = p_key;
    answer := CASE v_step.kind WHEN 'inline' THEN 'kept' ELSE 'taken' END;
    result := v_step.result;
END
$$;

-- Keep what a step inside a round has come to, while the round goes on, for the job itself. `answer` as of `write_step`, or
-- `over` (the token's claim is).
CREATE OR REPLACE FUNCTION queue.keep_step(
    p_token text, p_id uuid, p_key text, p_result json, p_started_at timestamptz, p_duration_ms bigint)
RETURNS TABLE (answer text, result json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    l queue.live_job;
BEGIN
    SELECT * INTO l FROM queue.live_job q WHERE q.id = p_id FOR UPDATE;
    -- Only now: until the row was ours, the claim could have ended.
    IF l.replays IS NOT FALSE OR NOT EXISTS (SELECT FROM queue.verify_job_token(p_token) t WHERE t.job_id = l.id) THEN
        RETURN QUERY SELECT 'over', NULL::json;
        RETURN;
    END IF;
    RETURN QUERY SELECT w.answer, w.result FROM queue.write_step(l, p_key, p_result, p_started_at, p_duration_ms) w;
END
$$;

-- The same for the worker that runs the round: `kept`, `taken`, or `over` (the claim is).
CREATE OR REPLACE FUNCTION queue.keep_claimed_step(
    p_id uuid, p_claim_key uuid, p_key text, p_result json, p_started_at timestamptz, p_duration_ms bigint) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    l queue.live_job;
BEGIN
    SELECT * INTO l FROM queue.live_job q WHERE q.id = p_id AND q.claim_key = p_claim_key FOR UPDATE;
    IF l.replays IS NOT FALSE THEN
        RETURN 'over';
    END IF;
    RETURN (SELECT w.answer FROM queue.write_step(l, p_key, p_result, p_started_at, p_duration_ms) w);
END
$$;

-- Run one function of a running job's own code as a job, for which that job waits by itself. `answer` is `asked` or `over`.
CREATE OR REPLACE FUNCTION queue.call_task(
    p_token text, p_id uuid, p_child uuid, p_entrypoint text, p_args json, p_tag text, p_also json)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    l      queue.live_job;
    j      queue.job;
    r      queue.job_request;
    v_job  queue.live_job;
BEGIN
    SELECT * INTO l FROM queue.live_job q WHERE q.id = p_id FOR UPDATE;
    IF l.cancel_at IS NOT NULL OR NOT EXISTS (SELECT FROM queue.verify_job_token(p_token) t WHERE t.job_id = l.id) THEN
        RETURN QUERY SELECT 'over', NULL::json;
        RETURN;
    END IF;
    SELECT * INTO j FROM queue.job WHERE id = l.id AND born = l.born;
    r := queue.as_asked(j, queue.keep_code(j));
    r.id := p_child; r.entrypoint := p_entrypoint; r.tag := coalesce(p_tag, j.tag); r.task_key := p_child;
    INSERT INTO queue.workflow_step (workflow_id, born, key, kind, state, name, asked_at, job_id)
    VALUES (l.id, l.born, r.task_key, 'call', 'called', p_entrypoint, clock_timestamp(), p_child);
    v_job := queue.place_job(r, queue.born_of(p_child), coalesce(j.root_job, j.id), l.born, clock_timestamp(), p_args);
    RETURN QUERY SELECT 'asked', queue.flatten(ARRAY[queue.say_placed(v_job), bus.say_all(p_also, j.traceparent)]);
END
$$;

-- How far a workflow has come, its newest p_limit steps: a task under its job's id, a step inside a round under its key. Null
-- when there are none.
CREATE OR REPLACE FUNCTION queue.workflow_status(p_id uuid, p_born timestamptz, p_limit integer) RETURNS json
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT json_object_agg(coalesce(s.job_id::text, s.key), json_strip_nulls(json_build_object('name', s.name, 'scheduled_for', s.asked_at,
        'started_at', coalesce(s.started_at, l.began_at, l.claimed_at), 'duration_ms', s.duration_ms)) ORDER BY s.asked_at, s.key)
    FROM (
        SELECT * FROM queue.workflow_step w WHERE w.workflow_id = p_id AND w.born = p_born AND w.kind <> 'sleep'
        ORDER BY w.asked_at DESC, w.key LIMIT p_limit) s
    LEFT JOIN queue.live_job l ON l.id = s.job_id
$$;

-- What a suspended workflow waits for, in one sentence.
CREATE OR REPLACE FUNCTION queue.why_workflow_waits(p_job queue.live_job) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN p_job.cancel_at IS NOT NULL THEN 'It is being canceled, and waits for its tasks to end.'
        ELSE coalesce('It waits for ' || string_agg(CASE w.kind
            WHEN 'sleep' THEN 'the sleep ' || quote_literal(w.key) || ' until '
                || to_char(w.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
            WHEN 'approval' THEN 'the approval ' || quote_literal(w.key) || ' until '
                || to_char(w.until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
            ELSE 'the task ' || quote_literal(w.key) || ' (job ' || w.job_id || ', ' || coalesce(w.state, 'ended') || ')' END, ', ')
            || CASE WHEN max(w.in_all) > 5 THEN ' and ' || max(w.in_all) - 5 || ' more' ELSE '' END || '.',
            'It is about to go on.')
    END
    FROM (
        SELECT s.kind, s.key, s.until, s.job_id, q.state, count(*) OVER () AS in_all
        FROM queue.workflow_step s LEFT JOIN queue.live_job q ON q.id = s.job_id
        WHERE s.workflow_id = p_job.id AND s.state = 'waiting' ORDER BY s.asked_at, s.key LIMIT 5) w
$$;

GRANT EXECUTE ON FUNCTION queue.suspend_workflow(uuid, uuid, json, json) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.read_checkpoint(uuid, uuid) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.keep_claimed_step(uuid, uuid, text, json, timestamptz, bigint) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION queue.resume_workflow(uuid) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.workflow_status(uuid, timestamptz, integer) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.keep_step(text, uuid, text, json, timestamptz, bigint) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.call_task(text, uuid, uuid, text, json, text, json) TO tidemill_api;

RESET ROLE;
