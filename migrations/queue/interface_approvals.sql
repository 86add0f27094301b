-- What the queue publishes of approvals, and of what users keep with a flow. The right to approve is a signed URL: whoever
-- holds it may use it once. The api decides who is asking; what the step that waits demands of them is held here.
SET ROLE tidemill_queue_owner;

-- HMAC-SHA256 (RFC 2104) over whose approval it is: that of a step's job (`S`), of a flow as a whole (`F`), or of what a
-- workflow waits for under a key (`W`). Clients choose the ids of their jobs, so what is signed says what the id stands for.
CREATE OR REPLACE FUNCTION queue.sign_approval(p_kind "char", p_id uuid, p_resume_id bigint, p_approver text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT encode(sha256(k.outer_pad || sha256(k.inner_pad || charsend(p_kind) || uuid_send(p_id) || int8send(p_resume_id)
        || boolsend(p_approver IS NOT NULL) || convert_to(coalesce(p_approver, ''), 'UTF8'))), 'hex')
    FROM queue.approval_key k
$$;

-- The signature of an approval URL for a job that is a step of a flow, or for the flow that it is a step of; a flow at the
-- top has only that. `answer` is `signed`, `no_step` or `unknown`.
CREATE OR REPLACE FUNCTION queue.resume_signature(p_workspace_id text, p_job uuid, p_flow_level boolean, p_resume_id bigint, p_approver text)
RETURNS TABLE (answer text, job_id uuid, signature text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_job    queue.job;
    v_parent queue.job;
BEGIN
    SELECT * INTO v_job FROM queue.job j WHERE j.id = p_job AND j.born = queue.locate(p_job) AND j.workspace_id = p_workspace_id;
    IF NOT FOUND THEN
        RETURN QUERY SELECT 'unknown', NULL::uuid, NULL::text;
        RETURN;
    END IF;
    SELECT * INTO v_parent FROM queue.job j
    WHERE j.id = v_job.parent_job AND j.born = queue.locate(v_job.parent_job) AND j.kind IN ('flow', 'flowpreview', 'flownode')
      AND v_job.step_id IS NOT NULL;
    IF NOT FOUND AND p_flow_level AND v_job.kind IN ('flow', 'flowpreview') THEN
        v_parent := v_job;
    END IF;
    IF v_parent.id IS NULL THEN
        RETURN QUERY SELECT 'no_step', NULL::uuid, NULL::text;
        RETURN;
    END IF;
    job_id := CASE WHEN p_flow_level THEN v_parent.id ELSE v_job.id END;
    RETURN QUERY SELECT 'signed', job_id, queue.sign_approval(CASE WHEN p_flow_level THEN 'F' ELSE 'S' END::"char", job_id, p_resume_id, p_approver);
END
$$;

-- What stands in the place of a step's job where a workflow waits for approval.
CREATE OR REPLACE FUNCTION queue.approval_ref(p_workflow uuid, p_key text) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT md5('workflow ' || p_workflow || ' ' || p_key)::uuid
$$;

-- The resume id that counts only for the approval under this key.
CREATE OR REPLACE FUNCTION queue.resume_id_of(p_key text) RETURNS bigint
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT hashtextextended(p_key, 0) & 4294967295
$$;

-- The signature of the URLs that approve or refuse what a workflow waits for under a key, and their resume id. No row when
-- there is no such job.
CREATE OR REPLACE FUNCTION queue.workflow_signature(p_workspace_id text, p_job uuid, p_key text, p_approver text)
RETURNS TABLE (resume_id bigint, signature text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT queue.resume_id_of(p_key), queue.sign_approval('W', j.id, queue.resume_id_of(p_key), p_approver)
    FROM queue.job j WHERE j.id = p_job AND j.born = queue.locate(p_job) AND j.workspace_id = p_workspace_id
$$;

-- Which flow a signature is good for, or which workflow: there the resume id names the key that is approved. Only what is a
-- workflow has such signatures. Digests are compared, not the text, so that time tells nothing.
CREATE OR REPLACE FUNCTION queue.verify_approval(p_workspace_id text, p_job uuid, p_resume_id bigint, p_signature text, p_approver text)
RETURNS TABLE (flow_id uuid, flow_level boolean, keyed boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE v.kind WHEN 'S' THEN j.parent_job ELSE j.id END, v.kind <> 'S', v.kind = 'W'
    FROM (VALUES ('S'::"char"), ('F'), ('W')) v (kind)
    JOIN queue.job j ON j.id = p_job AND j.born = queue.locate(p_job) AND j.workspace_id = p_workspace_id
    WHERE sha256(convert_to(queue.sign_approval(v.kind, p_job, p_resume_id, p_approver), 'UTF8')) = sha256(convert_to(p_signature, 'UTF8'))
      AND CASE v.kind
          WHEN 'S' THEN j.parent_job IS NOT NULL
          WHEN 'F' THEN j.kind IN ('flow', 'flowpreview', 'flownode')
          ELSE EXISTS (SELECT FROM queue.workflow_step s WHERE s.workflow_id = j.id AND s.born = j.born)
      END
$$;

-- Whether enough has been said to the step that waits, even if its flow has not heard of it yet.
CREATE OR REPLACE FUNCTION queue.is_decided(l queue.live_job, p_step queue.flow_step) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(bool_or(NOT r.approved), false) OR count(DISTINCT r.resume_id) FILTER (WHERE r.approved) >= coalesce(p_step.needed, 1)
    FROM queue.flow_resume r
    WHERE r.flow_id = l.id AND r.born = l.born AND (r.spent_on IS NULL AND r.step_job IS NULL OR r.step_job = p_step.job_id)
$$;

-- Where a flow stands for those who approve a step's job, or without one whichever step waits: `waiting`, `early` (it has
-- not come to wait yet) or `ended` (nobody will wait for this any more).
CREATE OR REPLACE FUNCTION queue.approval_stands(l queue.live_job, p_step queue.flow_step, p_step_job uuid) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN l.id IS NULL OR l.cancel_at IS NOT NULL THEN 'ended'
        WHEN p_step.state = 'waiting' AND (p_step_job IS NULL OR p_step_job = p_step.job_id) THEN
            CASE WHEN p_step.until <= clock_timestamp() OR queue.is_decided(l, p_step) THEN 'ended' ELSE 'waiting' END
        WHEN p_step_job IS NULL OR p_step.job_id = p_step_job AND p_step.state IN ('started', 'ended') THEN 'early'
        ELSE 'ended'
    END
$$;

-- Who says what. Without a signature it is one who owns the flow, which the caller answers for, and each of them has one
-- voice at each step. A job that acts for somebody has a `username`, and is not there `in_person`.
DO $$
BEGIN
    IF to_regtype('queue.decision') IS NULL THEN
        CREATE TYPE queue.decision AS (
            job_id uuid, resume_id bigint, signature text, approver text, approved boolean, may_be_early boolean,
            username text, email text, is_admin boolean, groups text[], in_person boolean);
    END IF;
END
$$;

-- What the step that waits demands of who approves: `login`, `own` (the requester may not), `not_in_group`, or nothing.
CREATE OR REPLACE FUNCTION queue.approval_lacks(d queue.decision, p_job queue.job, p_conditions json) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN NOT (c.login OR c.no_self OR cardinality(c.groups) > 0) THEN NULL
        WHEN NOT coalesce(d.in_person, false) THEN 'login'
        WHEN d.is_admin THEN NULL
        WHEN c.no_self AND (d.email = p_job.email OR d.username = p_job.created_by) THEN 'own'
        WHEN cardinality(c.groups) > 0 AND NOT coalesce(d.groups && c.groups, false) THEN 'not_in_group'
    END
    FROM (SELECT coalesce((p_conditions ->> 'user_auth_required')::boolean, false) AS login,
                 coalesce((p_conditions ->> 'self_approval_disabled')::boolean, false) AS no_self,
                 ARRAY(SELECT g FROM json_array_elements_text(
                     CASE json_typeof(p_conditions -> 'user_groups_required') WHEN 'array' THEN p_conditions -> 'user_groups_required' ELSE '[]' END) g)
                 AS groups) c
$$;

-- What a signed URL is about; no row when the signature is not ours. Without one, and only for who may see the flow anyhow:
-- what the flow itself waits for. `said` tells whether this very URL was used, and for which answer; `lacks` what is missing
-- for who asks.
CREATE OR REPLACE FUNCTION queue.read_approval(p_workspace_id text, p_asking json)
RETURNS TABLE (flow_id uuid, step_job uuid, module text, stands text, said boolean, lacks text, needed smallint, until timestamptz,
               conditions json, approvers json)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    d       queue.decision := json_populate_record(NULL::queue.decision, p_asking);
    l       queue.live_job;
    v_step  queue.flow_step;
    v_born  timestamptz;
    v_level boolean := true;
    v_keyed boolean := false;
BEGIN
    IF d.signature IS NULL THEN
        SELECT j.id INTO flow_id FROM queue.job j
        WHERE j.id = d.job_id AND j.born = queue.locate(d.job_id) AND j.workspace_id = p_workspace_id
          AND (j.kind IN ('flow', 'flowpreview', 'flownode') OR EXISTS (SELECT FROM queue.flow_step s WHERE s.flow_id = j.id AND s.born = j.born));
    ELSE
        SELECT v.flow_id, v.flow_level, v.keyed INTO flow_id, v_level, v_keyed
        FROM queue.verify_approval(p_workspace_id, d.job_id, d.resume_id, d.signature, d.approver) v;
    END IF;
    IF flow_id IS NULL THEN
        RETURN;
    END IF;
    v_born := queue.locate(flow_id);
    SELECT * INTO l FROM queue.live_job q WHERE q.id = flow_id;
    SELECT * INTO v_step FROM queue.flow_step s WHERE s.flow_id = l.id AND s.born = l.born AND s.no = l.at_step;
    IF v_keyed AND queue.resume_id_of(v_step.module) IS DISTINCT FROM d.resume_id THEN
        v_step := NULL;
    END IF;
    step_job := CASE WHEN v_level THEN v_step.job_id ELSE d.job_id END;
    stands := queue.approval_stands(l, v_step, CASE WHEN NOT v_level THEN d.job_id END);
    IF v_step.state = 'waiting' AND v_step.job_id IS NOT DISTINCT FROM step_job THEN
        needed := v_step.needed;
        until := v_step.until;
        conditions := v_step.conditions;
        SELECT queue.approval_lacks(d, j, v_step.conditions) INTO lacks FROM queue.job j WHERE j.id = flow_id AND j.born = v_born;
    ELSIF v_level THEN
        step_job := NULL;
    END IF;
    IF v_keyed AND conditions IS NULL THEN
        SELECT s.conditions INTO conditions FROM queue.flow_step s
        WHERE s.flow_id = read_approval.flow_id AND s.born = v_born AND queue.resume_id_of(s.module) = d.resume_id LIMIT 1;
    END IF;
    SELECT j.step_id INTO module FROM queue.job j WHERE j.id = step_job AND j.born = queue.locate(step_job);
    module := coalesce(module, CASE WHEN l.tag <> 'flow' THEN v_step.module END);
    SELECT r.approved INTO said FROM queue.flow_resume r
    WHERE r.flow_id = read_approval.flow_id AND r.born = v_born AND r.resume_id = d.resume_id
      AND r.step_job IS NOT DISTINCT FROM CASE WHEN NOT v_level THEN d.job_id END;
    SELECT coalesce(json_agg(json_build_object('resume_id', r.resume_id, 'approver', r.approver) ORDER BY r.said_at), '[]') INTO approvers
    FROM queue.flow_resume r
    WHERE r.flow_id = read_approval.flow_id AND r.born = v_born AND r.approved AND (r.step_job IS NULL OR r.step_job = step_job);
    RETURN NEXT;
END
$$;

-- Write down an approval or a refusal and wake its flow. `answer` is `noted`; `forged`; `repeated` (this URL was used);
-- `ended` (nobody waits for it any more); `not_yet` (the flow has not come to wait, and may_be_early is not set); `login`,
-- `own` or `not_in_group`; `said` (who has logged in has decided here before); `too_many` (a thousand have been said).
CREATE OR REPLACE FUNCTION queue.resume_flow(p_workspace_id text, p_decision json, p_value json, p_also json)
RETURNS TABLE (answer text, flow_id uuid, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    d          queue.decision := json_populate_record(NULL::queue.decision, p_decision);
    l          queue.live_job;
    j          queue.job;
    v_step     queue.flow_step;
    v_flow     uuid := d.job_id;
    v_level    boolean := true;
    v_keyed    boolean := false;
    v_step_job uuid;
    v_stands   text;
    v_lacks    text;
BEGIN
    IF d.signature IS NOT NULL THEN
        SELECT v.flow_id, v.flow_level, v.keyed INTO v_flow, v_level, v_keyed
        FROM queue.verify_approval(p_workspace_id, d.job_id, d.resume_id, d.signature, d.approver) v;
        IF NOT FOUND THEN
            RETURN QUERY SELECT 'forged', NULL::uuid, NULL::json;
            RETURN;
        END IF;
    END IF;
    SELECT * INTO l FROM queue.live_job q WHERE q.id = v_flow AND q.workspace_id = p_workspace_id FOR UPDATE;
    SELECT * INTO j FROM queue.job q WHERE q.id = v_flow AND q.born = coalesce(l.born, queue.locate(v_flow)) AND q.workspace_id = p_workspace_id;
    SELECT * INTO v_step FROM queue.flow_step s WHERE s.flow_id = l.id AND s.born = l.born AND s.no = l.at_step;
    v_step_job := CASE WHEN NOT v_level THEN d.job_id END;
    IF v_keyed AND queue.resume_id_of(v_step.module) IS DISTINCT FROM d.resume_id THEN
        v_step := NULL;
    END IF;
    v_stands := queue.approval_stands(l, v_step, v_step_job);
    IF d.signature IS NULL THEN
        v_step_job := v_step.job_id;
        -- Beyond what a URL can hold, and within what a double can.
        d.resume_id := 4294967296 + (hashtextextended(d.username, 0) & 4503599627370495);
    END IF;
    IF EXISTS (SELECT FROM queue.flow_resume r WHERE r.flow_id = v_flow AND r.born = j.born AND r.resume_id = d.resume_id
               AND r.step_job IS NOT DISTINCT FROM v_step_job) THEN
        RETURN QUERY SELECT 'repeated', v_flow, NULL::json;
        RETURN;
    END IF;
    IF v_stands = 'ended' OR v_stands = 'early' AND NOT coalesce(d.may_be_early, false) THEN
        RETURN QUERY SELECT CASE v_stands WHEN 'early' THEN 'not_yet' ELSE 'ended' END, v_flow, NULL::json;
        RETURN;
    END IF;
    v_lacks := queue.approval_lacks(d, j, v_step.conditions);
    IF v_lacks IS NOT NULL THEN
        RETURN QUERY SELECT v_lacks, v_flow, NULL::json;
        RETURN;
    END IF;
    -- Where people are told apart, several URLs are no several people.
    IF queue.approval_lacks(json_populate_record(NULL::queue.decision, '{}'), j, v_step.conditions) IS NOT NULL AND EXISTS (
        SELECT FROM queue.flow_resume r
        WHERE r.flow_id = v_flow AND r.born = l.born AND r.approver = d.username
          AND (r.step_job = v_step.job_id OR r.step_job IS NULL AND r.spent_on IS NULL)) THEN
        RETURN QUERY SELECT 'said', v_flow, NULL::json;
        RETURN;
    END IF;
    IF (SELECT count(*) FROM queue.flow_resume r WHERE r.flow_id = v_flow AND r.born = l.born) >= 1000 THEN
        RETURN QUERY SELECT 'too_many', v_flow, NULL::json;
        RETURN;
    END IF;
    INSERT INTO queue.flow_resume (flow_id, born, step_job, resume_id, approver, approved, value, said_at)
    VALUES (v_flow, l.born, v_step_job, d.resume_id, coalesce(d.username, d.approver, 'anonymous'), d.approved, p_value, clock_timestamp());
    IF v_step.state = 'waiting' AND queue.is_decided(l, v_step) THEN
        -- Said once more, in case that nobody hears of it.
        UPDATE queue.live_job q SET wake_at = least(q.wake_at, clock_timestamp() + interval '5 seconds') WHERE q.id = l.id;
    END IF;
    -- One that has not begun finds it when it comes to wait.
    RETURN QUERY SELECT 'noted', v_flow, queue.flatten(
        CASE l.state WHEN 'suspended' THEN ARRAY[queue.say_flow(l.id, l.traceparent)] ELSE '{}' END || bus.say_all(p_also, l.traceparent));
END
$$;

-- Keep a value with a flow that has not ended. `answer` is `kept`, `no_flow`, `ended`, or `too_much` (more than p_most keys,
-- or more than p_longest bytes in all of them).
CREATE OR REPLACE FUNCTION queue.keep_state(
    p_workspace_id text, p_flow uuid, p_key text, p_value json, p_most integer, p_longest integer, p_also json)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    l queue.live_job;
BEGIN
    SELECT * INTO l FROM queue.live_job q WHERE q.id = p_flow AND q.workspace_id = p_workspace_id AND q.tag = 'flow' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN QUERY SELECT CASE WHEN EXISTS (
            SELECT FROM queue.job j WHERE j.id = p_flow AND j.born = queue.locate(p_flow) AND j.workspace_id = p_workspace_id
              AND j.kind IN ('flow', 'flowpreview', 'flownode')) THEN 'ended' ELSE 'no_flow' END, NULL::json;
        RETURN;
    END IF;
    IF (SELECT count(*) >= p_most OR sum(octet_length(t.value::text)) + octet_length(p_value::text) > p_longest
        FROM queue.flow_state t WHERE t.flow_id = l.id AND t.born = l.born AND t.key <> p_key)
       OR octet_length(p_value::text) > p_longest THEN
        RETURN QUERY SELECT 'too_much', NULL::json;
        RETURN;
    END IF;
    INSERT INTO queue.flow_state (flow_id, born, key, value) VALUES (l.id, l.born, p_key, p_value)
    ON CONFLICT (flow_id, born, key) DO UPDATE SET value = excluded.value;
    RETURN QUERY SELECT 'kept', queue.flatten(ARRAY[bus.say_all(p_also, l.traceparent)]);
END
$$;

-- How far an unfinished job says it is, in percent. `answer` is `kept`, `ended` or `unknown`.
CREATE OR REPLACE FUNCTION queue.tell_progress(p_workspace_id text, p_id uuid, p_percent smallint, p_also json)
RETURNS TABLE (answer text, said json)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    v_traceparent text;
BEGIN
    UPDATE queue.live_job q SET progress = p_percent WHERE q.id = p_id AND q.workspace_id = p_workspace_id
    RETURNING q.traceparent INTO v_traceparent;
    IF NOT FOUND THEN
        RETURN QUERY SELECT CASE WHEN EXISTS (
            SELECT FROM queue.job j WHERE j.id = p_id AND j.born = queue.locate(p_id) AND j.workspace_id = p_workspace_id)
            THEN 'ended' ELSE 'unknown' END, NULL::json;
        RETURN;
    END IF;
    RETURN QUERY SELECT 'kept', queue.flatten(ARRAY[bus.say_all(p_also, v_traceparent)]);
END
$$;

GRANT EXECUTE ON FUNCTION queue.resume_signature(text, uuid, boolean, bigint, text) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.workflow_signature(text, uuid, text, text) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.read_approval(text, json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.resume_flow(text, json, json, json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.keep_state(text, uuid, text, json, integer, integer, json) TO tidemill_api;
GRANT EXECUTE ON FUNCTION queue.tell_progress(text, uuid, smallint, json) TO tidemill_api;

-- With a key to sign with before the first service starts.
INSERT INTO queue.approval_key (inner_pad, outer_pad)
SELECT p.inner_pad, p.outer_pad FROM queue.make_pads() p WHERE NOT EXISTS (SELECT FROM queue.approval_key);

RESET ROLE;
