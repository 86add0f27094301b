-- What the queue publishes of flows. The scheduler reads where a flow stands (`load_flow`), decides, and writes down what
-- follows in one transaction (`advance_flow`). No lock is held while it decides, because an expression may take seconds:
-- whoever writes names the version that was read, and is told `stale` when the flow has gone on without it.
SET ROLE tidemill_queue_owner;

-- Where a flow stands: what was asked for, its current step, what has ended since it was last looked at (at most p_limit
-- jobs), and what approvers have said. Nothing when it has ended. STABLE, so that all of it is of one instant: its rows may
-- move to another day meanwhile. Values beyond p_inline bytes are left out; ask for them.
CREATE OR REPLACE FUNCTION queue.load_flow(p_id uuid, p_limit integer, p_inline integer) RETURNS json
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    l       queue.live_job;
    j       queue.job;
    v_scope queue.job;
    v_step  queue.flow_step;
    v_ended json;
    v_items json;
    v_begin smallint;
BEGIN
    SELECT * INTO l FROM queue.live_job WHERE id = p_id AND tag = 'flow';
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO j FROM queue.job WHERE id = l.id AND born = l.born;
    IF j.kind NOT IN ('flow', 'flowpreview', 'flownode') THEN
        RETURN NULL;
    END IF;
    IF j.scope_job IS NULL THEN
        v_scope := j;
    ELSE
        SELECT * INTO v_scope FROM queue.job WHERE id = j.scope_job AND born = queue.locate(j.scope_job);
    END IF;
    SELECT * INTO v_step FROM queue.flow_step WHERE flow_id = l.id AND born = l.born AND no = l.at_step;
    IF v_step.flow_id IS NULL AND l.at_step IS NOT NULL THEN
        -- Another run is taken up here: what it has done ends with the step before.
        v_begin := l.at_step;
        SELECT * INTO v_step FROM queue.flow_step WHERE flow_id = l.id AND born = l.born AND no = l.at_step - 1;
    END IF;
    IF v_step.state = 'ended' THEN
        -- What the step's own row says is there even when the job has been removed.
        v_ended := json_build_array(json_build_object('index', NULL, 'job_id', v_step.job_id, 'outcome', v_step.outcome,
            'result', (SELECT f.result FROM queue.finished_job f WHERE f.id = v_step.job_id AND f.born = queue.locate(v_step.job_id)
                       AND pg_column_size(f.result) <= p_inline),
            'stopped', v_step.stopped, 'handled', v_step.handled));
    ELSIF v_step.state = 'started' AND v_step.job_id IS NULL THEN
        SELECT json_agg(e) INTO v_ended FROM (
            SELECT c.index, c.job_id, c.outcome, CASE WHEN pg_column_size(f.result) <= p_inline THEN f.result END AS result, c.stopped, c.handled
            FROM queue.flow_child c LEFT JOIN LATERAL (
                SELECT * FROM queue.finished_job f WHERE f.id = c.job_id AND f.born = queue.locate(c.job_id)) f ON true
            WHERE c.flow_id = l.id AND c.born = l.born AND c.no = v_step.no AND c.attempt = v_step.attempt AND c.state = 'ended'
            ORDER BY c.ended_at, c.index LIMIT p_limit) e;
        IF v_step.items IS NOT NULL THEN
            SELECT json_agg(i.value ORDER BY i.no) INTO v_items FROM json_array_elements(v_step.items) WITH ORDINALITY i (value, no)
            WHERE i.no > v_step.started AND i.no <= v_step.started + 200;
        END IF;
    END IF;
    RETURN json_build_object(
        'id', l.id, 'workspace_id', l.workspace_id, 'kind', j.kind, 'path', v_scope.path, 'flow_version', v_scope.hash,
        'body', CASE j.kind WHEN 'flownode' THEN j.entrypoint END,
        'scope_job', v_scope.id, 'root_job', coalesce(j.root_job, j.id), 'parent_job', j.parent_job, 'is_step', l.step_no IS NOT NULL,
        'tag', v_scope.tag, 'preprocess', coalesce(j.entrypoint, '') = 'preprocessor' AND j.kind <> 'flownode', 'priority', j.priority, 'timeout_s', j.timeout_s, 'created_by', j.created_by,
        'permissioned_as', j.permissioned_as, 'depth', l.depth, 'email', j.email, 'permissions', j.permissions, 'traceparent', j.traceparent,
        'args', CASE WHEN pg_column_size(v_scope.args) <= p_inline THEN v_scope.args END,
        'own_args', CASE j.kind WHEN 'flownode' THEN j.args END,
        'state', l.state, 'version', l.version, 'canceled', l.cancel_at IS NOT NULL, 'reply_to', l.reply_to,
        'deadline_at', l.deadline_at, 'now', clock_timestamp(),
        'begin_at', v_begin, 'children_live', EXISTS (SELECT FROM queue.live_job c WHERE c.parent_job = l.id),
        'step', CASE WHEN v_step.flow_id IS NOT NULL THEN json_build_object(
            'no', v_step.no, 'module', v_step.module, 'state', v_step.state, 'attempt', v_step.attempt, 'job_id', v_step.job_id,
            'failed_job', v_step.failed_job, 'failed_index', v_step.failed_index, 'conditions', v_step.conditions, 'names', v_step.names, 'failed_retries', coalesce(v_step.failed_retries, '{}'), 'total', v_step.total, 'started', v_step.started,
            'ended', v_step.ended, 'failed', v_step.failed, 'branch', v_step.branch, 'parallelism', v_step.parallelism,
            'skipped', v_step.skipped, 'stopped', coalesce(v_step.stopped, false), 'handled', coalesce(v_step.handled, false),
            'needed', v_step.needed, 'since', v_step.since, 'until', v_step.until) END,
        'ended', coalesce(v_ended, '[]'), 'items', coalesce(v_items, '[]'),
        'item', CASE WHEN v_step.state = 'started' AND v_step.started > 0 THEN v_step.items -> (v_step.started - 1) END,
        'resumed', CASE WHEN v_step.state = 'waiting' THEN coalesce((
            SELECT json_agg(json_build_object('resume_id', r.resume_id, 'approver', r.approver, 'approved', r.approved, 'value', r.value)
                            ORDER BY r.said_at)
            FROM queue.flow_resume r
            WHERE r.flow_id = l.id AND r.born = l.born AND (r.spent_on IS NULL AND r.step_job IS NULL OR r.step_job = v_step.job_id)), '[]')
            ELSE '[]' END);
END
$$;

-- The value of a flow that came with its request.
CREATE OR REPLACE FUNCTION queue.flow_code(p_id uuid) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.code FROM queue.job j WHERE j.id = p_id AND j.born = queue.locate(p_id)
$$;

CREATE OR REPLACE FUNCTION queue.flow_args(p_id uuid) RETURNS json
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT j.args FROM queue.job j WHERE j.id = p_id AND j.born = queue.locate(p_id)
$$;

CREATE OR REPLACE FUNCTION queue.job_result(p_id uuid) RETURNS json
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.result FROM queue.finished_job f WHERE f.id = p_id AND f.born = queue.locate(p_id)
$$;

-- What a step before p_before has answered, in this flow or in those around it up to the one that is a flow of its own; by
-- its module, or without one the step right before. No row when there is none.
CREATE OR REPLACE FUNCTION queue.step_result(p_flow uuid, p_before smallint, p_module text)
RETURNS TABLE (result json)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_flow   uuid := p_flow;
    v_before smallint := p_before;
    v_job    queue.job;
    v_step   queue.flow_step;
BEGIN
    LOOP
        SELECT * INTO v_job FROM queue.job j WHERE j.id = v_flow AND j.born = queue.locate(v_flow);
        EXIT WHEN NOT FOUND;
        SELECT * INTO v_step FROM queue.flow_step s
        WHERE s.flow_id = v_flow AND s.born = v_job.born AND s.no >= 0 AND s.no < v_before
          AND (p_module IS NULL OR s.module = p_module) AND s.state IN ('ended', 'success', 'failure')
        ORDER BY s.no DESC LIMIT 1;
        IF FOUND THEN
            RETURN QUERY SELECT coalesce(v_step.result, queue.job_result(v_step.job_id), 'null');
            RETURN;
        END IF;
        EXIT WHEN v_job.kind <> 'flownode';
        -- Only what lies before the container that this body belongs to.
        SELECT s.no INTO v_before FROM queue.flow_step s
        WHERE s.flow_id = v_job.parent_job AND s.born = queue.locate(v_job.parent_job) AND s.module = v_job.step_id;
        v_flow := v_job.parent_job;
    END LOOP;
END
$$;

-- The results of a step's children as one list, in the order of their index, each as it was stored.
CREATE OR REPLACE FUNCTION queue.collected(p_flow uuid, p_born timestamptz, p_no smallint) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '[' || coalesce(string_agg(coalesce(r.result::text, 'null'), ',' ORDER BY c.index), '') || ']'
    FROM queue.flow_step s
    JOIN queue.flow_child c ON c.flow_id = s.flow_id AND c.born = s.born AND c.no = s.no AND c.attempt = s.attempt
    LEFT JOIN LATERAL (SELECT f.result FROM queue.finished_job f WHERE f.id = c.job_id AND f.born = queue.locate(c.job_id)) r ON true
    WHERE s.flow_id = p_flow AND s.born = p_born AND s.no = p_no
$$;

-- The results of a step's children so far, as one list.
CREATE OR REPLACE FUNCTION queue.child_results(p_flow uuid, p_no smallint) RETURNS json
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(
        (SELECT s.result FROM queue.flow_step s WHERE s.flow_id = p_flow AND s.born = queue.locate(p_flow) AND s.no = p_no),
        queue.collected(p_flow, queue.locate(p_flow), p_no)::json)
$$;

-- A job of a flow: what `queue.job_request` holds and besides it what its answer is, when no worker is to find it.
DO $$
BEGIN
    IF to_regtype('queue.step_request') IS NULL THEN
        CREATE TYPE queue.step_request AS (
            id uuid, kind text, path text, hash text, language text, code text, lock text, code_hash text, entrypoint text, tag text,
            priority smallint, envs text[], timeout_s integer, limit_key text, limit_ceiling integer, due_in_ms bigint, step_id text,
            step_no smallint, step_index integer, step_attempt smallint, args json, args_of uuid, answered boolean, outcome text, result json, erase_after_s integer,
            cache_key text, cache_ttl_s integer, same_worker boolean);
        CREATE TYPE queue.flow_end AS (
            outcome text, result json, result_job uuid, result_step smallint, stopped boolean, handled boolean);
    END IF;
END
$$;

-- Write down what was decided on a flow: in `p_changes`
--   args     what the preprocessor has made of the arguments
--   early    what answers those who wait for the flow, although it goes on
--   take     [{attempt, index, state}] children of the current step whose end was heard
--   steps    [rows of flow_step] as they are from now on; what was kept of `items`, `result` and retries stays when left out
--   start    [rows of step_request] its new jobs
--   collect  [no] steps whose result becomes the list of their children's results
--   spend    no: what approvers have said is spent on this step
--   stop     a sentence: what is below is canceled for this reason
--   at_step, wake_at
--   end      how the flow ends
-- `answer` is `done`, `stale` or `gone` (it has ended). TM010: a list is longer than p_longest bytes.
CREATE OR REPLACE FUNCTION queue.advance_flow(p_id uuid, p_version integer, p_changes json, p_longest integer)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    l       queue.live_job;
    j       queue.job;
    v_end   queue.flow_end;
    v_no    smallint;
    v_list  text;
    v_now   timestamptz := clock_timestamp();
    v_said  json[] := '{}';
BEGIN
    -- As when a job is asked for: a workspace that is being closed misses none of what is started here.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('queue.workspace ' || q.workspace_id, 0)) FROM queue.live_job q WHERE q.id = p_id;
    SELECT * INTO l FROM queue.live_job WHERE id = p_id FOR UPDATE;
    IF NOT FOUND OR l.tag <> 'flow' THEN
        RETURN QUERY SELECT 'gone', NULL::json;
        RETURN;
    END IF;
    IF l.version <> p_version OR l.state NOT IN ('queued', 'suspended') THEN
        RETURN QUERY SELECT 'stale', NULL::json;
        RETURN;
    END IF;
    IF p_changes -> 'args' IS NOT NULL THEN
        UPDATE queue.job SET args = p_changes -> 'args' WHERE id = l.id AND born = l.born;
    END IF;
    IF p_changes -> 'early' IS NOT NULL THEN
        UPDATE queue.job SET early = p_changes -> 'early' WHERE id = l.id AND born = l.born;
    END IF;
    SELECT * INTO j FROM queue.job WHERE id = l.id AND born = l.born;
    IF p_changes -> 'take' IS NOT NULL THEN
        UPDATE queue.flow_child c SET state = t.state
        FROM json_populate_recordset(NULL::queue.flow_child, p_changes -> 'take') t
        WHERE c.flow_id = l.id AND c.born = l.born AND c.no = l.at_step AND c.attempt = t.attempt AND c.index = t.index AND c.state = 'ended';
    END IF;
    -- Before the waiting place becomes a step that runs.
    IF p_changes -> 'spend' IS NOT NULL THEN
        UPDATE queue.flow_resume r SET spent_on = (p_changes ->> 'spend')::smallint
        WHERE r.flow_id = l.id AND r.born = l.born AND r.spent_on IS NULL
          AND (r.step_job IS NULL OR r.step_job = (SELECT s.job_id FROM queue.flow_step s
               WHERE s.flow_id = l.id AND s.born = l.born AND s.no = (p_changes ->> 'spend')::smallint));
    END IF;
    IF p_changes -> 'steps' IS NOT NULL THEN
        INSERT INTO queue.flow_step AS s (flow_id, born, no, module, state, attempt, job_id, failed_job, failed_index, outcome, stopped, handled,
                                          failed_retries, total, started, ended, failed, branch, parallelism, items, result, skipped,
                                          needed, since, until, conditions, names)
        SELECT l.id, l.born, n.no, n.module, n.state, coalesce(n.attempt, 0), n.job_id, n.failed_job, n.failed_index, n.outcome, n.stopped, n.handled,
               n.failed_retries, n.total, coalesce(n.started, 0), coalesce(n.ended, 0), coalesce(n.failed, 0), n.branch, n.parallelism,
               n.items, n.result, n.skipped, n.needed, n.since, n.until, n.conditions, n.names
        FROM json_populate_recordset(NULL::queue.flow_step, p_changes -> 'steps') n
        ON CONFLICT (flow_id, born, no) DO UPDATE SET state = excluded.state, attempt = excluded.attempt, job_id = excluded.job_id,
            failed_job = excluded.failed_job, failed_index = excluded.failed_index, outcome = excluded.outcome, conditions = excluded.conditions, names = excluded.names, stopped = excluded.stopped, handled = excluded.handled,
            failed_retries = coalesce(excluded.failed_retries, s.failed_retries), total = excluded.total, started = excluded.started,
            ended = excluded.ended, failed = excluded.failed, branch = excluded.branch, parallelism = excluded.parallelism,
            items = coalesce(excluded.items, s.items), result = coalesce(excluded.result, s.result), skipped = excluded.skipped,
            needed = excluded.needed, since = coalesce(excluded.since, s.since), until = excluded.until,
            ended_at = CASE WHEN excluded.state IN ('success', 'failure') THEN coalesce(s.ended_at, v_now) END;
    END IF;
    v_said := v_said || queue.start_steps(l, j, p_changes -> 'start', v_now);
    FOR v_no IN SELECT c::text::smallint FROM json_array_elements(p_changes -> 'collect') c LOOP
        v_list := queue.collected(l.id, l.born, v_no);
        IF octet_length(v_list) > p_longest THEN
            -- Undone as a whole: the caller decides anew, knowing this. Not caught here: that would cost every call a savepoint.
            RAISE EXCEPTION 'the list of step % has % bytes', v_no, octet_length(v_list) USING ERRCODE = 'TM010';
        END IF;
        UPDATE queue.flow_step s SET result = v_list::json WHERE s.flow_id = l.id AND s.born = l.born AND s.no = v_no;
    END LOOP;
    IF p_changes ->> 'stop' IS NOT NULL THEN
        v_said := v_said || queue.cancel_below(l.id, NULL, p_changes ->> 'stop', false);
    END IF;
    v_end := json_populate_record(NULL::queue.flow_end, p_changes -> 'end');
    l.deadline_at := coalesce(l.deadline_at, v_now + j.timeout_s * interval '1 second');
    UPDATE queue.live_job SET version = l.version + 1, wake_at = least((p_changes ->> 'wake_at')::timestamptz, l.deadline_at),
        at_step = coalesce((p_changes ->> 'at_step')::smallint, l.at_step), state = 'suspended',
        claimed_at = coalesce(l.claimed_at, v_now), deadline_at = l.deadline_at
    WHERE id = l.id RETURNING * INTO l;
    IF v_end.outcome IS NOT NULL THEN
        IF l.step_no IS NOT NULL AND (v_end.stopped OR v_end.handled) THEN
            IF l.step_index IS NULL THEN
                UPDATE queue.flow_step s SET stopped = v_end.stopped, handled = v_end.handled
                WHERE s.flow_id = l.parent_job AND s.born = l.flow_born AND s.no = l.step_no AND s.job_id = l.id;
            ELSE
                UPDATE queue.flow_child c SET stopped = v_end.stopped, handled = v_end.handled
                WHERE c.flow_id = l.parent_job AND c.born = l.flow_born AND c.no = l.step_no AND c.index = l.step_index AND c.job_id = l.id;
            END IF;
        END IF;
        v_said := v_said || queue.settle(l, v_end.outcome, coalesce(v_end.result,
            CASE
                WHEN v_end.outcome = 'canceled' THEN queue.canceled_result(l.cancel_by, l.cancel_reason)
                WHEN v_end.result_job IS NOT NULL THEN queue.job_result(v_end.result_job)
                WHEN v_end.result_step IS NOT NULL THEN (
                    SELECT coalesce(s.result, queue.job_result(s.job_id)) FROM queue.flow_step s
                    WHERE s.flow_id = l.id AND s.born = l.born AND s.no = v_end.result_step)
            END, 'null'), NULL, NULL, NULL);
    END IF;
    RETURN QUERY SELECT 'done', queue.flatten(v_said);
END
$$;

-- Place the jobs of a flow's steps, by whom and with whose rights the flow was asked for. An answered one ends at once,
-- without a worker.
CREATE OR REPLACE FUNCTION queue.start_steps(l queue.live_job, j queue.job, p_start json, p_now timestamptz) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n       queue.step_request;
    r       queue.job_request;
    v_job   queue.live_job;
    v_args  json;
    v_late  uuid[] := '{}';
    v_id    uuid;
    v_said  json[] := '{}';
BEGIN
    IF p_start IS NULL THEN
        RETURN v_said;
    END IF;
    FOR n IN SELECT * FROM json_populate_recordset(NULL::queue.step_request, p_start) LOOP
        IF n.code_hash IS NOT NULL AND n.code IS NOT NULL THEN
            INSERT INTO queue.inline_code AS c (hash, code, lock, last_used) VALUES (n.code_hash, n.code, n.lock, p_now::date)
            ON CONFLICT (hash) DO UPDATE SET last_used = excluded.last_used WHERE c.last_used < excluded.last_used;
        END IF;
        r := NULL;
        r.id := n.id; r.workspace_id := j.workspace_id; r.kind := n.kind; r.path := n.path; r.hash := n.hash;
        r.language := coalesce(n.language, '');
        r.code_hash := n.code_hash; r.entrypoint := n.entrypoint; r.tag := coalesce(n.tag, 'flow'); r.priority := n.priority; r.envs := n.envs;
        r.timeout_s := n.timeout_s; r.erase_after_s := n.erase_after_s; r.cache_ttl_s := n.cache_ttl_s;
        -- What is answered at once is no result of its own.
        r.cache_key := CASE WHEN n.answered IS NOT TRUE THEN n.cache_key END;
        r.limit_key := n.limit_key; r.limit_ceiling := n.limit_ceiling;
        r.due_in_ms := n.due_in_ms;
        r.parent_job := j.id; r.scope_job := CASE n.kind WHEN 'flow' THEN NULL ELSE coalesce(j.scope_job, j.id) END; r.step_id := n.step_id;
        r.visible_to_owner := j.visible_to_owner; r.created_by := j.created_by; r.permissioned_as := j.permissioned_as;
        r.email := j.email; r.permissions := j.permissions; r.traceparent := j.traceparent;
        r.step_no := n.step_no; r.step_index := n.step_index; r.depth := l.depth + CASE n.kind WHEN 'flow' THEN 1 ELSE 0 END;
        IF n.same_worker THEN
            r.shares_with := coalesce(l.shares_with, l.id);
            r.only_worker := (SELECT w.worker_run FROM queue.flow_worker w WHERE w.flow_id = r.shares_with);
        END IF;
        v_args := CASE WHEN n.args_of IS NULL THEN coalesce(n.args, '{}')
            ELSE (SELECT o.args FROM queue.job o WHERE o.id = n.args_of AND o.born = queue.locate(n.args_of)) END;
        v_job := queue.place_job(r, queue.born_of(n.id), coalesce(j.root_job, j.id), l.born, p_now, v_args);
        IF n.step_index IS NOT NULL THEN
            INSERT INTO queue.flow_child (flow_id, born, no, attempt, index, job_id, state)
            VALUES (l.id, l.born, n.step_no, coalesce(n.step_attempt, 0), n.step_index, n.id, 
                    CASE WHEN n.answered IS NOT TRUE THEN 'started' WHEN n.outcome = 'failure' THEN 'failure' ELSE 'success' END);
        END IF;
        IF n.answered THEN
            PERFORM queue.answer_at_once(v_job, coalesce(n.outcome, 'success'), coalesce(n.result, 'null'));
            IF n.cache_key IS NOT NULL THEN
                PERFORM queue.say_cached(v_job, n.cache_key);
            END IF;
        ELSIF v_job.limit_key IS NOT NULL AND v_job.due_at <= p_now THEN
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

-- End a job that was just placed and that needs no worker; its flow knows.
CREATE OR REPLACE FUNCTION queue.answer_at_once(p_job queue.live_job, p_outcome text, p_result json) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO queue.finished_job (id, born, outcome, result, started_at, finished_at, claims)
    VALUES (p_job.id, p_job.born, p_outcome, p_result, clock_timestamp(), clock_timestamp(), 0);
    DELETE FROM queue.live_job WHERE id = p_job.id;
    IF p_job.epilogue THEN
        PERFORM queue.follow_up(p_job, p_outcome, p_result);
    END IF;
END
$$;

-- How many jobs of a tag can run at once; of all tags for what the scheduler itself walks.
CREATE OR REPLACE FUNCTION queue.slots_of(p_tag text) RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(w.slots), 0)::integer FROM queue.worker w
    WHERE (p_tag = 'flow' OR p_tag = ANY (w.tags)) AND NOT w.draining AND w.beat_at > clock_timestamp() - interval '10 seconds'
$$;

-- Flows that have to be looked at: their time has come, or the end of a job of theirs was not heard although it was said.
-- The same one is not named again before as long has gone by, in case that nobody hears of it.
CREATE OR REPLACE FUNCTION queue.wake_flows(p_older_than interval, p_limit integer) RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- Planned while the table is small, it would read the whole of it for ever.
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    v_now   timestamptz := clock_timestamp();
    v_again timestamptz := v_now + p_older_than;
    v_said  json[];
BEGIN
    -- Only of flows that still stand and are not to be looked at anyhow: the rest must not crowd them out.
    UPDATE queue.live_job l SET wake_at = v_now WHERE l.id IN (
        SELECT q.id FROM queue.live_job q WHERE q.id IN (
            (SELECT s.flow_id FROM queue.flow_step s JOIN queue.live_job f ON f.id = s.flow_id AND f.born = s.born
             WHERE s.state = 'ended' AND s.ended_at < v_now - p_older_than AND (f.wake_at IS NULL OR f.wake_at > v_again) LIMIT p_limit)
            UNION
            (SELECT c.flow_id FROM queue.flow_child c JOIN queue.live_job f ON f.id = c.flow_id AND f.born = c.born
             WHERE c.state = 'ended' AND c.ended_at < v_now - p_older_than AND (f.wake_at IS NULL OR f.wake_at > v_again) LIMIT p_limit)
            UNION
            (SELECT s.workflow_id FROM queue.workflow_step s JOIN queue.live_job f ON f.id = s.workflow_id AND f.born = s.born
             WHERE s.state = 'ended' AND s.ended_at < v_now - p_older_than AND (f.wake_at IS NULL OR f.wake_at > v_again) LIMIT p_limit))
        FOR UPDATE SKIP LOCKED);
    WITH due AS (
        SELECT q.id FROM queue.live_job q WHERE q.wake_at <= v_now ORDER BY q.wake_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), woken AS (
        UPDATE queue.live_job q SET wake_at = v_again FROM due WHERE q.id = due.id RETURNING q.id, q.traceparent
    )
    SELECT array_agg(queue.say_flow(w.id, w.traceparent)) INTO v_said FROM woken w;
    RETURN queue.flatten(coalesce(v_said, '{}'));
END
$$;

GRANT EXECUTE ON FUNCTION queue.load_flow(uuid, integer, integer) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.flow_code(uuid) TO tidemill_scheduler, tidemill_api;
GRANT EXECUTE ON FUNCTION queue.flow_args(uuid) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.job_result(uuid) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.child_results(uuid, smallint) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.step_result(uuid, smallint, text) TO tidemill_scheduler, tidemill_api;
GRANT EXECUTE ON FUNCTION queue.advance_flow(uuid, integer, json, integer) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.slots_of(text) TO tidemill_scheduler;
GRANT EXECUTE ON FUNCTION queue.wake_flows(interval, integer) TO tidemill_scheduler;

RESET ROLE;
