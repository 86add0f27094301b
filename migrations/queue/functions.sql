-- The inside of the queue: nobody but the functions of interface.sql calls these.
SET ROLE tidemill_queue_owner;

-- The instant inside a UUIDv7 (RFC 9562 §5.7): its first 48 bits are milliseconds since 1970.
CREATE OR REPLACE FUNCTION queue.born_of(p_id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_timestamp(('x' || lpad(left(replace(p_id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

-- Where the rows of a job lie, so that a look-up by id reads one partition.
CREATE OR REPLACE FUNCTION queue.locate(p_id uuid) RETURNS timestamptz
LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT d.born FROM queue.displaced_job d WHERE d.id = p_id), queue.born_of(p_id))
$$;

-- The tables that have a partition for each day, in the order in which a day is dropped: what says that it is there, last.
CREATE OR REPLACE FUNCTION queue.day_tables() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY['workflow_step', 'flow_state', 'flow_resume', 'flow_child', 'flow_step', 'log_chunk', 'finished_job', 'job']
$$;

-- Make the partitions of one day. Dynamic SQL because a table's name can't be bound; it is made of a date.
CREATE OR REPLACE FUNCTION queue.make_day(p_day date) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_parent text;
    v_name   text;
    v_made   boolean := false;
BEGIN
    IF to_regclass('queue.job_p' || to_char(p_day, 'YYYYMMDD')) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('queue.make_day'));
    FOREACH v_parent IN ARRAY queue.day_tables() LOOP
        v_name := v_parent || '_p' || to_char(p_day, 'YYYYMMDD');
        -- Not to_regclass: it would remember that there was none before we waited for the lock.
        IF NOT EXISTS (SELECT FROM pg_class c WHERE c.relname = v_name AND c.relnamespace = 'queue'::regnamespace) THEN
            -- LIKE + ATTACH takes a weaker lock on the parent than CREATE ... PARTITION OF.
            EXECUTE format('CREATE TABLE queue.%I (LIKE queue.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_name, v_parent);
            EXECUTE format('ALTER TABLE queue.%I ATTACH PARTITION queue.%I FOR VALUES FROM (%L) TO (%L)',
                v_parent, v_name, p_day::timestamp AT TIME ZONE 'UTC', (p_day + 1)::timestamp AT TIME ZONE 'UTC');
            v_made := true;
        END IF;
    END LOOP;
    RETURN v_made;
END
$$;

-- A place at the end of this workspace's own line for the tag: start-time fair queueing with 100 ms a job, against the
-- real clock, so that one job of a quiet workspace passes the backlog of a busy one and nobody starves.
CREATE OR REPLACE FUNCTION queue.next_rank(p_tag text, p_workspace_id text, p_urgency smallint) RETURNS bigint
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
        (SELECT l.rank + 100 FROM queue.live_job l
         WHERE l.state = 'queued' AND l.tag = p_tag AND l.workspace_id = p_workspace_id AND l.urgency = p_urgency
         ORDER BY l.rank DESC LIMIT 1))
$$;

CREATE OR REPLACE FUNCTION queue.say_flow(p_id uuid, p_traceparent text) RETURNS json
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT bus.say('flow.ready.v1', 'flow.ready', json_build_object('flow_id', p_id), p_traceparent)
$$;

-- The line of one worker process, beside those of its tags. No tag that a user may write begins like this.
CREATE OR REPLACE FUNCTION queue.line_of(p_worker_run uuid) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '@' || p_worker_run
$$;

-- Say that there is work: to the workers of a tag, or that a flow may go on.
CREATE OR REPLACE FUNCTION queue.say_ticket(p_job queue.live_job) RETURNS json
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE p_job.tag
        WHEN 'flow' THEN queue.say_flow(p_job.id, p_job.traceparent)
        ELSE bus.say('job.ticket.v1', p_job.tag, json_build_object('job_id', p_job.id, 'tag', p_job.tag), p_job.traceparent)
    END
$$;

-- Take a slot of a limit, or find that all are held. Locks the key first and counts in a new statement: a single
-- statement that locks and counts let two holders through a limit of one.
CREATE OR REPLACE FUNCTION queue.take_slot(p_key text, p_ceiling integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO queue.limit_key (key) VALUES (p_key) ON CONFLICT DO NOTHING;
    PERFORM FROM queue.limit_key WHERE key = p_key FOR UPDATE;
    RETURN (SELECT count(*) FROM queue.live_job WHERE limit_key = p_key AND holds_limit) < p_ceiling;
END
$$;

-- Give a free slot of a key to those who wait for it, best first, and return their tickets.
-- SKIP LOCKED: a waiter that is being cancelled at this moment must not hold up the others.
CREATE OR REPLACE FUNCTION queue.hand_over(p_key text) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_waiter queue.live_job;
    v_said   json[] := '{}';
BEGIN
    PERFORM FROM queue.limit_key WHERE key = p_key FOR UPDATE;
    LOOP
        SELECT * INTO v_waiter FROM queue.live_job
        WHERE state = 'blocked' AND limit_key = p_key
        ORDER BY urgency, rank, id LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        EXIT WHEN (SELECT count(*) FROM queue.live_job WHERE limit_key = p_key AND holds_limit) >= v_waiter.limit_ceiling;
        UPDATE queue.live_job SET state = 'queued', holds_limit = true, hinted_at = clock_timestamp(),
            rank = queue.next_rank(tag, workspace_id, urgency)
        WHERE id = v_waiter.id RETURNING * INTO v_waiter;
        v_said := v_said || queue.say_ticket(v_waiter);
    END LOOP;
    RETURN v_said;
END
$$;

-- Put a job into the line, or behind its limit, and return what has to be said.
CREATE OR REPLACE FUNCTION queue.enter_line(p_id uuid) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_job queue.live_job;
BEGIN
    SELECT * INTO v_job FROM queue.live_job WHERE id = p_id;
    IF v_job.limit_key IS NOT NULL AND NOT v_job.holds_limit AND NOT queue.take_slot(v_job.limit_key, v_job.limit_ceiling) THEN
        -- Behind its limit it is first come, first served, whatever the line for its tag looks like at this moment.
        UPDATE queue.live_job SET state = 'blocked', rank = (extract(epoch FROM clock_timestamp()) * 1000)::bigint WHERE id = p_id;
        RETURN '{}';
    END IF;
    UPDATE queue.live_job SET state = 'queued', holds_limit = limit_key IS NOT NULL, hinted_at = clock_timestamp(),
        rank = queue.next_rank(tag, workspace_id, urgency)
    WHERE id = p_id RETURNING * INTO v_job;
    RETURN ARRAY[queue.say_ticket(v_job)];
END
$$;

-- The error object that clients know, with the keys that have a value.
CREATE OR REPLACE FUNCTION queue.error_result(p_name text, p_message text, p_more json) RETURNS json
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT json_build_object('error', jsonb_strip_nulls(
        jsonb_build_object('name', p_name, 'message', p_message) || coalesce(p_more::jsonb, '{}'::jsonb)))
$$;

-- The flow that a job inside of flows is part of, up to the highest one, and the path of the innermost flow of its own.
CREATE OR REPLACE FUNCTION queue.flow_above(p_parent uuid, p_scope uuid) RETURNS TABLE (root_flow uuid, path text)
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_id   uuid := p_parent;
    v_kind text;
    v_path text;
    v_next uuid;
BEGIN
    LOOP
        SELECT j.kind, j.path, j.parent_job INTO v_kind, v_path, v_next FROM queue.job j
        WHERE j.id = v_id AND j.born = queue.locate(v_id);
        EXIT WHEN NOT FOUND OR v_kind NOT IN ('flow', 'flowpreview', 'flownode');
        root_flow := v_id;
        IF v_id = p_scope THEN
            path := v_path;
        END IF;
        EXIT WHEN v_next IS NULL;
        v_id := v_next;
    END LOOP;
    RETURN NEXT;
END
$$;

-- Write down how a job ended, take it off the hot table, hand its slot on and tell the flow that it is a step of. The
-- caller holds the row's lock.
CREATE OR REPLACE FUNCTION queue.settle(
    p_job queue.live_job, p_outcome text, p_result json, p_worker text, p_memory_peak_kb integer, p_labels text[]) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_said json[] := '{}';
BEGIN
    PERFORM queue.check_transition(p_job.state, p_outcome);
    INSERT INTO queue.finished_job (id, born, outcome, result, started_at, finished_at, worker, claim_key, claims,
                                    canceled_by, canceled_reason, memory_peak_kb, labels)
    VALUES (p_job.id, p_job.born, p_outcome, p_result, coalesce(p_job.began_at, p_job.claimed_at), clock_timestamp(), p_worker, p_job.claim_key,
            p_job.claims, p_job.cancel_by, p_job.cancel_reason, p_memory_peak_kb, p_labels);
    DELETE FROM queue.live_job WHERE id = p_job.id;
    IF p_job.holds_limit THEN
        v_said := queue.hand_over(p_job.limit_key);
    END IF;
    IF p_job.epilogue THEN
        PERFORM queue.follow_up(p_job, p_outcome, p_result);
    END IF;
    IF p_job.tag = 'flow' THEN
        DELETE FROM queue.flow_worker w WHERE w.flow_id = p_job.id;
        UPDATE queue.erasure e SET root_flow = NULL, due_at = queue.erase_at(e.after_s) WHERE e.root_flow = p_job.id;
        -- Whatever has ended below and was not heard is nobody's business any more.
        UPDATE queue.flow_step s SET state = CASE s.outcome WHEN 'success' THEN 'success' ELSE 'failure' END
        WHERE s.flow_id = p_job.id AND s.born = p_job.born AND s.state = 'ended';
        UPDATE queue.flow_child c SET state = CASE c.outcome WHEN 'success' THEN 'success' ELSE 'failure' END
        WHERE c.flow_id = p_job.id AND c.born = p_job.born AND c.state = 'ended';
    END IF;
    IF p_job.step_no IS NOT NULL THEN
        PERFORM queue.note_end(p_job, p_outcome);
        v_said := v_said || queue.say_flow(p_job.parent_job, p_job.traceparent);
    ELSIF p_job.task_key IS NULL AND EXISTS (
        SELECT FROM queue.live_job q WHERE q.id = p_job.parent_job AND q.tag = 'flow' AND q.cancel_at IS NOT NULL) THEN
        -- No step of the flow, but the flow does not end before it.
        v_said := v_said || queue.say_flow(p_job.parent_job, p_job.traceparent);
    END IF;
    IF p_job.rounds > 0 THEN
        UPDATE queue.workflow_step s SET state = 'done'
        WHERE s.workflow_id = p_job.id AND s.born = p_job.born AND s.state IN ('ended', 'waiting');
    END IF;
    IF p_job.task_key IS NOT NULL THEN
        v_said := v_said || queue.note_task_end(p_job, p_outcome);
    END IF;
    RETURN v_said;
END
$$;

-- When something is erased that ends now: not before those who wait for the result have had the time to read it.
CREATE OR REPLACE FUNCTION queue.erase_at(p_after_s integer) RETURNS timestamptz
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT clock_timestamp() + greatest(p_after_s, 10) * interval '1 second'
$$;

-- What follows the end of a job that asked for more. Its result is kept, unless it is too large. What it leaves behind is to
-- be erased, of a step when the highest flow around it has ended; that one may end at this moment without seeing this row:
-- then it is found an hour later.
CREATE OR REPLACE FUNCTION queue.follow_up(p_job queue.live_job, p_outcome text, p_result json) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    j      queue.job;
    v_root uuid;
BEGIN
    SELECT * INTO j FROM queue.job WHERE id = p_job.id AND born = p_job.born;
    IF j.cache_key IS NOT NULL AND p_outcome = 'success' AND octet_length(p_result::text) <= 1048576 THEN
        INSERT INTO queue.cached_result (key, result, job_id, expires_at)
        VALUES (j.cache_key, p_result, j.id, clock_timestamp() + j.cache_ttl_s * interval '1 second')
        ON CONFLICT (key) DO UPDATE SET result = excluded.result, job_id = excluded.job_id, expires_at = excluded.expires_at;
    END IF;
    IF j.erase_after_s IS NULL THEN
        RETURN;
    END IF;
    SELECT q.id INTO v_root FROM queue.flow_above(j.parent_job, coalesce(j.scope_job, j.id)) f JOIN queue.live_job q ON q.id = f.root_flow;
    INSERT INTO queue.erasure (job_id, due_at, root_flow, after_s)
    VALUES (j.id, CASE WHEN v_root IS NULL THEN queue.erase_at(j.erase_after_s) ELSE clock_timestamp() + interval '1 hour' END,
            v_root, j.erase_after_s)
    ON CONFLICT DO NOTHING;
END
$$;

-- Forget what a job that has ended was given, answered and printed. The caller has locked its rows.
CREATE OR REPLACE FUNCTION queue.blank(p_id uuid, p_born timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    UPDATE queue.job SET args = '{}', early = NULL WHERE id = p_id AND born = p_born;
    UPDATE queue.finished_job SET result = NULL, deleted = true WHERE id = p_id AND born = p_born;
    DELETE FROM queue.log_chunk WHERE job_id = p_id AND born = p_born;
    UPDATE queue.flow_step SET items = NULL, result = NULL WHERE flow_id = p_id AND born = p_born;
    -- The list that its result is part of.
    UPDATE queue.flow_step s SET items = NULL, result = NULL FROM queue.job j
    WHERE j.id = p_id AND j.born = p_born AND s.flow_id = j.parent_job AND s.born = queue.locate(j.parent_job)
      AND s.state IN ('success', 'failure') AND coalesce(s.result, s.items) IS NOT NULL
      AND EXISTS (SELECT FROM queue.flow_child c WHERE c.flow_id = s.flow_id AND c.born = s.born AND c.no = s.no AND c.job_id = p_id);
    UPDATE queue.flow_resume SET value = 'null' WHERE flow_id = p_id AND born = p_born;
    DELETE FROM queue.flow_state WHERE flow_id = p_id AND born = p_born;
    UPDATE queue.workflow_step SET result = NULL WHERE workflow_id = p_id AND born = p_born;
END
$$;

-- Erase what is due. A flow or workflow takes with it the jobs of its steps, which are due from then on. What somebody has locked, or is
-- not over yet, is left for the next look.
CREATE OR REPLACE FUNCTION queue.erase_due(p_limit integer) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    e      queue.erasure;
    v_born timestamptz;
    v_kind text;
BEGIN
    FOR e IN SELECT * FROM queue.erasure WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT p_limit FOR UPDATE SKIP LOCKED LOOP
        IF EXISTS (SELECT FROM queue.live_job q WHERE q.id IN (e.root_flow, e.job_id)) THEN
            UPDATE queue.erasure SET due_at = clock_timestamp() + CASE WHEN root_flow IS NULL THEN interval '10 seconds' ELSE interval '1 hour' END
            WHERE job_id = e.job_id;
            CONTINUE;
        END IF;
        IF e.root_flow IS NOT NULL THEN
            UPDATE queue.erasure SET root_flow = NULL, due_at = queue.erase_at(after_s) WHERE job_id = e.job_id;
            CONTINUE;
        END IF;
        v_born := queue.locate(e.job_id);
        SELECT j.kind INTO v_kind FROM queue.job j JOIN queue.finished_job f USING (id, born)
        WHERE j.id = e.job_id AND j.born = v_born FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            PERFORM queue.blank(e.job_id, v_born);
            IF v_kind IN ('flow', 'flowpreview', 'flownode') THEN
                INSERT INTO queue.erasure (job_id, due_at, after_s)
                SELECT DISTINCT b.id, clock_timestamp(), 0 FROM (
                    SELECT unnest(s.job_id || s.failed_retries) AS id FROM queue.flow_step s WHERE s.flow_id = e.job_id AND s.born = v_born
                    UNION ALL
                    SELECT c.job_id FROM queue.flow_child c WHERE c.flow_id = e.job_id AND c.born = v_born) b
                -- What was taken over from another run stays that one's.
                WHERE EXISTS (SELECT FROM queue.job j WHERE j.id = b.id AND j.born = queue.locate(b.id) AND j.parent_job = e.job_id)
                ON CONFLICT (job_id) DO UPDATE SET due_at = excluded.due_at, root_flow = NULL;
            END IF;
            INSERT INTO queue.erasure (job_id, due_at, after_s)
            SELECT w.job_id, clock_timestamp(), 0 FROM queue.workflow_step w
            WHERE w.workflow_id = e.job_id AND w.born = v_born AND w.job_id IS NOT NULL
            ON CONFLICT (job_id) DO UPDATE SET due_at = excluded.due_at, root_flow = NULL;
        ELSIF EXISTS (SELECT FROM queue.finished_job f WHERE f.id = e.job_id AND f.born = v_born) THEN
            CONTINUE;
        END IF;
        DELETE FROM queue.erasure WHERE job_id = e.job_id;
    END LOOP;
END
$$;

-- Write down at its step that a job has ended; a step that has gone on without the job stays as it is.
CREATE OR REPLACE FUNCTION queue.note_end(p_job queue.live_job, p_outcome text) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_job.step_index IS NULL THEN
        UPDATE queue.flow_step s SET state = 'ended', outcome = p_outcome, ended_at = clock_timestamp(), since = coalesce(p_job.claimed_at, s.since)
        WHERE s.flow_id = p_job.parent_job AND s.born = p_job.flow_born AND s.no = p_job.step_no AND s.job_id = p_job.id AND s.state = 'started';
    ELSE
        UPDATE queue.flow_child c SET state = 'ended', outcome = p_outcome, ended_at = clock_timestamp(), started_at = p_job.claimed_at
        WHERE c.flow_id = p_job.parent_job AND c.born = p_job.flow_born AND c.no = p_job.step_no AND c.index = p_job.step_index
          AND c.job_id = p_job.id AND c.state = 'started';
    END IF;
END
$$;

-- Take a running job back into the line under its old rank; its claim is over. One that is being canceled ends here:
-- nobody is to start it again.
CREATE OR REPLACE FUNCTION queue.give_back(p_job queue.live_job, p_lost integer) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF p_job.cancel_at IS NOT NULL THEN
        p_job.claim_key := NULL;
        RETURN queue.settle(
            p_job, 'canceled', queue.canceled_result(p_job.cancel_by, p_job.cancel_reason), NULL, NULL, NULL);
    END IF;
    UPDATE queue.live_job SET state = 'queued', claim_key = NULL, worker_run = NULL, claimed_at = NULL,
        lost_claims = lost_claims + p_lost, hinted_at = clock_timestamp(), hints = 0
    WHERE id = p_job.id;
    RETURN ARRAY[queue.say_ticket(p_job)];
END
$$;

-- All unfinished jobs below one.
CREATE OR REPLACE FUNCTION queue.below(p_id uuid) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
-- Planned while the table is small, it would read the whole of it for ever.
SET enable_seqscan = off AS $$
    WITH RECURSIVE below AS (
        SELECT q.id FROM queue.live_job q WHERE q.parent_job = p_id
        UNION
        SELECT q.id FROM queue.live_job q JOIN below b ON q.parent_job = b.id
    )
    SELECT coalesce(array_agg(b.id ORDER BY b.id), '{}') FROM below b
$$;

-- Cancel all that is below a job, whose row the caller has locked and marked: what waits ends here, what runs is marked
-- unless `force` withdraws its claim, and a flow of which something still runs is marked and ends after that.
CREATE OR REPLACE FUNCTION queue.cancel_below(p_id uuid, p_by text, p_reason text, p_force boolean) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
DECLARE
    v_ids  uuid[];
    v_job  queue.live_job;
    v_said json[] := '{}';
BEGIN
    LOOP
        v_ids := queue.below(p_id);
        PERFORM FROM queue.live_job q WHERE q.id = ANY (v_ids) ORDER BY q.id FOR UPDATE;
        -- A flow that was not locked yet may have started something meanwhile.
        EXIT WHEN queue.below(p_id) <@ v_ids;
    END LOOP;
    FOR v_job IN
        SELECT q.* FROM queue.live_job q WHERE q.id = ANY (v_ids)
        ORDER BY q.tag = 'flow', CASE WHEN q.holds_limit THEN q.limit_key END, q.id DESC
    LOOP
        v_said := v_said || queue.cancel_one(v_job, p_by, p_reason, p_force);
    END LOOP;
    RETURN v_said;
END
$$;

-- Cancel one job whose row is locked and below which all is canceled. Whether it has ended shows in the hot table.
CREATE OR REPLACE FUNCTION queue.cancel_one(p_job queue.live_job, p_by text, p_reason text, p_force boolean) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off AS $$
BEGIN
    IF p_job.cancel_at IS NULL THEN
        p_job.cancel_at := clock_timestamp();
        p_job.cancel_by := p_by;
        p_job.cancel_reason := p_reason;
    END IF;
    IF p_job.state = 'running' AND NOT p_force
       OR p_job.state = 'suspended' AND EXISTS (
           SELECT FROM queue.live_job c WHERE c.parent_job = p_job.id AND (p_job.tag = 'flow' OR c.task_key IS NOT NULL)) THEN
        UPDATE queue.live_job q SET cancel_at = p_job.cancel_at, cancel_by = p_job.cancel_by, cancel_reason = p_job.cancel_reason,
            version = q.version + 1,
            -- Said once more, in case that nobody hears of it.
            wake_at = CASE q.state WHEN 'suspended' THEN least(q.wake_at, clock_timestamp() + interval '5 seconds') ELSE q.wake_at END
        WHERE q.id = p_job.id;
        -- In case that nothing below is left to say so.
        RETURN CASE p_job.state WHEN 'suspended' THEN ARRAY[queue.say_flow(p_job.id, p_job.traceparent)] ELSE '{}' END;
    END IF;
    p_job.claim_key := NULL;
    RETURN queue.settle(p_job, 'canceled', queue.canceled_result(p_job.cancel_by, p_job.cancel_reason), NULL, NULL, NULL);
END
$$;

-- HMAC-SHA256 (RFC 2104) over the job and its claim, by one key of ours.
CREATE OR REPLACE FUNCTION queue.sign(p_key queue.token_key, p_id uuid, p_claim_key uuid) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(p_key.outer_pad || sha256(p_key.inner_pad || uuid_send(p_id) || uuid_send(p_claim_key))), 'hex')
$$;

-- A job's own bearer token: it dies with the claim, because the claim is looked up at each use.
CREATE OR REPLACE FUNCTION queue.job_token(p_id uuid, p_claim_key uuid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT 'tmj_' || k.no || '_' || replace(p_id::text, '-', '') || '_' || queue.sign(k, p_id, p_claim_key)
    FROM queue.token_key k
    -- The key that was the newest when the job was claimed, so that a repeated call returns the same token.
    WHERE k.created_at <= (SELECT l.claimed_at FROM queue.live_job l WHERE l.id = p_id)
    ORDER BY k.no DESC LIMIT 1
$$;

-- A new key for HMAC-SHA256 from the server's strong random source.
CREATE OR REPLACE FUNCTION queue.make_pads(OUT inner_pad bytea, OUT outer_pad bytea)
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_secret bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
BEGIN
    inner_pad := decode(repeat('36', 64), 'hex');
    outer_pad := decode(repeat('5c', 64), 'hex');
    FOR i IN 0..31 LOOP
        inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(v_secret, i));
        outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(v_secret, i));
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION queue.make_token_key() RETURNS void
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO queue.token_key (inner_pad, outer_pad) SELECT p.inner_pad, p.outer_pad FROM queue.make_pads() p
$$;

-- One flat list out of lists of said messages.
CREATE OR REPLACE FUNCTION queue.flatten(p_said json[]) RETURNS json
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(json_agg(m), '[]'::json)
    FROM unnest(p_said) s
    CROSS JOIN LATERAL json_array_elements(CASE json_typeof(s) WHEN 'array' THEN s ELSE json_build_array(s) END) m
$$;

CREATE OR REPLACE FUNCTION queue.canceled_result(p_by text, p_reason text) RETURNS json
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT queue.error_result('Canceled', 'Job canceled' || coalesce(' by ' || p_by, '') || coalesce(': ' || p_reason, ''),
        json_build_object('canceler', p_by, 'reason', p_reason))
$$;

-- Jobs whose time has come enter the line, those of one limit after the other, because limit keys are locked in
-- ascending order everywhere.
CREATE OR REPLACE FUNCTION queue.dispatch_due(p_limit integer) RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id   uuid;
    v_said json[] := '{}';
BEGIN
    FOR v_id IN
        SELECT d.id FROM (
            SELECT l.id, l.limit_key, l.due_at FROM queue.live_job l WHERE l.state = 'scheduled' AND l.due_at <= clock_timestamp()
            ORDER BY l.due_at LIMIT p_limit FOR UPDATE SKIP LOCKED) d
        ORDER BY d.limit_key, d.due_at, d.id
    LOOP
        v_said := v_said || queue.enter_line(v_id);
    END LOOP;
    RETURN v_said;
END
$$;

-- Jobs whose worker has been silent for a whole lease go back into the line, or fail after three lost claims. What they
-- held of a limit is handed on by unblock(), because here the limit keys would be locked in the order of the jobs.
CREATE OR REPLACE FUNCTION queue.rescue_lost(p_lease interval, p_limit integer)
RETURNS TABLE (job_id uuid, reply_to text, verdict text, said json[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_job queue.live_job;
BEGIN
    FOR v_job IN
        SELECT l.* FROM queue.live_job l LEFT JOIN queue.worker w ON w.worker_run = l.worker_run
        WHERE l.state = 'running'
          AND greatest(l.claimed_at, w.beat_at) < clock_timestamp() - p_lease
        ORDER BY l.id LIMIT p_limit FOR UPDATE OF l SKIP LOCKED
    LOOP
        IF v_job.cancel_at IS NOT NULL THEN
            v_job.holds_limit := false;
            RETURN QUERY SELECT v_job.id, v_job.reply_to, 'canceled', queue.give_back(v_job, 1);
        ELSIF v_job.lost_claims >= 2 THEN
            v_job.holds_limit := false;
            v_job.claim_key := NULL;
            RETURN QUERY SELECT v_job.id, v_job.reply_to, 'failed', queue.settle(v_job, 'failure', queue.error_result(
                'WorkerLost', 'The worker was lost during each of ' || v_job.lost_claims + 1 || ' runs of this job.', NULL), NULL, NULL, NULL);
        ELSE
            RETURN QUERY SELECT v_job.id, v_job.reply_to, 'requeued', queue.give_back(v_job, 1);
        END IF;
    END LOOP;
END
$$;

-- Steps that only one worker may run fail when that one has gone: with it went the folder that the steps before have left.
CREATE OR REPLACE FUNCTION queue.fail_left_behind(p_lease interval, p_limit integer)
RETURNS TABLE (job_id uuid, reply_to text, verdict text, said json[])
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_gone uuid;
    v_job  queue.live_job;
BEGIN
    FOR v_gone IN
        SELECT DISTINCT f.worker_run FROM queue.flow_worker f LEFT JOIN queue.worker w USING (worker_run)
        WHERE w.worker_run IS NULL OR w.beat_at < clock_timestamp() - p_lease
    LOOP
        FOR v_job IN
            SELECT l.* FROM queue.live_job l WHERE l.state = 'queued' AND l.tag = queue.line_of(v_gone)
            ORDER BY l.urgency, l.rank, l.id LIMIT p_limit FOR UPDATE SKIP LOCKED
        LOOP
            v_job.holds_limit := false;
            RETURN QUERY SELECT v_job.id, v_job.reply_to, 'failed', queue.settle(v_job, 'failure', queue.error_result(
                'WorkerLost', 'All steps of this flow run on one worker, which has gone, and with it the folder that they share.', NULL),
                NULL, NULL, NULL);
        END LOOP;
    END LOOP;
END
$$;

-- Waiters that a freed slot has missed, because they were locked at that moment or their holder was lost.
CREATE OR REPLACE FUNCTION queue.unblock() RETURNS json[]
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_key  text;
    v_said json[] := '{}';
BEGIN
    FOR v_key IN
        -- From one key to the next, so that a long line of one key costs no more than a short one.
        WITH RECURSIVE keys AS (
            SELECT min(l.limit_key) AS key FROM queue.live_job l WHERE l.state = 'blocked'
            UNION ALL
            SELECT (SELECT min(l.limit_key) FROM queue.live_job l WHERE l.state = 'blocked' AND l.limit_key > k.key)
            FROM keys k WHERE k.key IS NOT NULL
        )
        SELECT k.key
        FROM keys k CROSS JOIN LATERAL (
            SELECT l.limit_ceiling FROM queue.live_job l WHERE l.state = 'blocked' AND l.limit_key = k.key
            ORDER BY l.urgency, l.rank, l.id LIMIT 1) head
        WHERE (SELECT count(*) FROM queue.live_job h WHERE h.limit_key = k.key AND h.holds_limit) < head.limit_ceiling
        ORDER BY k.key
    LOOP
        -- Whoever has the key locked hands it on or takes it; what he misses is found by the next look.
        PERFORM FROM queue.limit_key WHERE key = v_key FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
            v_said := v_said || queue.hand_over(v_key);
        END IF;
    END LOOP;
    RETURN v_said;
END
$$;

-- Tags whose first job in line was hinted at a while ago, 5 s doubling to 5 min: its ticket may be lost.
CREATE OR REPLACE FUNCTION queue.stale_tags() RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tags AS (
        SELECT min(l.tag) AS tag FROM queue.live_job l WHERE l.state = 'queued'
        UNION ALL
        SELECT (SELECT min(l.tag) FROM queue.live_job l WHERE l.state = 'queued' AND l.tag > t.tag) FROM tags t WHERE t.tag IS NOT NULL
    )
    SELECT coalesce(array_agg(t.tag), '{}')
    FROM tags t CROSS JOIN LATERAL (
        SELECT l.hinted_at, l.hints FROM queue.live_job l WHERE l.state = 'queued' AND l.tag = t.tag
        ORDER BY l.urgency, l.rank, l.id LIMIT 1) head
    WHERE head.hinted_at < clock_timestamp() - least(5 * 2 ^ head.hints, 300) * interval '1 second'
$$;

RESET ROLE;
