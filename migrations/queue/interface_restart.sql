-- How a flow takes up another run of it that has ended.
SET ROLE tidemill_queue_owner;

-- What a request names of the run that is taken up. The steps before `at` are taken over, and of the one there, when
-- `branch_or_iteration_n` says so, its first iterations or branches; `total` is how many branches there are now.
DO $$
BEGIN
    IF to_regtype('queue.restart') IS NULL THEN
        CREATE TYPE queue.restart AS (flow_job_id uuid, step_id text, branch_or_iteration_n integer, flow_version bigint, at smallint, total integer,
            keeps_approvals boolean);
    END IF;
END
$$;

-- Let a flow that was just placed begin where another one is taken up. The rows of what that has done come along; the jobs
-- stay those of the other flow, and so do their results. What approvers have said before the first step to run is unspent:
-- it is asked again whether that is enough. It was said to who asked then, and counts for nobody else; and to the very flow and
-- arguments that ran then, which `keeps_approvals` answers for. What does not come along is not found by a third run either. Raises TM011 when something of it is not there any more, or has not ended.
CREATE OR REPLACE FUNCTION queue.take_up(p_job queue.live_job, p_restart json) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    r       queue.restart := json_populate_record(NULL::queue.restart, p_restart);
    v_born  timestamptz := queue.locate(r.flow_job_id);
    v_kept  integer := coalesce(r.branch_or_iteration_n, 0);
    v_steps bigint;
    v_first queue.flow_step;
    v_same  boolean;
BEGIN
    -- It is neither forgotten nor removed until this is written down.
    PERFORM FROM queue.finished_job f JOIN queue.job j USING (id, born)
    WHERE f.id = r.flow_job_id AND f.born = v_born AND NOT f.deleted AND j.workspace_id = p_job.workspace_id FOR SHARE OF f;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the job % is not there, or has not ended', r.flow_job_id USING ERRCODE = 'TM011';
    END IF;
    INSERT INTO queue.flow_step (flow_id, born, no, module, state, attempt, job_id, failed_job, outcome, ended_at, stopped, handled,
                                 failed_retries, total, started, ended, failed, branch, parallelism, items, result, skipped, since)
    SELECT p_job.id, p_job.born, s.no, s.module, s.state, s.attempt, s.job_id, s.failed_job, s.outcome, s.ended_at, s.stopped, s.handled,
           s.failed_retries, s.total, s.started, s.ended, s.failed, s.branch, s.parallelism,
           CASE WHEN NOT e.passes THEN s.items END, CASE WHEN NOT e.passes THEN s.result END, s.skipped, s.since
    FROM queue.flow_step s
    -- What is to be erased must not stay in a copy.
    CROSS JOIN LATERAL (
        SELECT EXISTS (
            SELECT FROM queue.flow_child c JOIN queue.job k ON k.id = c.job_id AND k.born = queue.locate(c.job_id)
            WHERE c.flow_id = s.flow_id AND c.born = s.born AND c.no = s.no AND k.erase_after_s IS NOT NULL) AS passes) e
    WHERE s.flow_id = r.flow_job_id AND s.born = v_born AND s.no < r.at AND s.state IN ('success', 'failure');
    INSERT INTO queue.flow_child (flow_id, born, no, attempt, index, job_id, state, outcome, started_at, ended_at, stopped, handled)
    SELECT p_job.id, p_job.born, c.no, c.attempt, c.index, c.job_id, c.state, c.outcome, c.started_at, c.ended_at, c.stopped, c.handled
    FROM queue.flow_child c
    WHERE c.flow_id = r.flow_job_id AND c.born = v_born AND c.no < r.at;
    SELECT count(*) INTO v_steps FROM queue.flow_step s WHERE s.flow_id = p_job.id AND s.born = p_job.born AND s.no >= 0;
    IF v_steps <> r.at THEN
        RAISE EXCEPTION 'the job % has done % of % steps', r.flow_job_id, v_steps, r.at USING ERRCODE = 'TM011';
    END IF;
    IF v_kept > 0 THEN
        SELECT * INTO v_first FROM queue.flow_step s WHERE s.flow_id = r.flow_job_id AND s.born = v_born AND s.no = r.at;
        INSERT INTO queue.flow_step (flow_id, born, no, module, state, total, started, ended, items, since)
        VALUES (p_job.id, p_job.born, r.at, r.step_id, 'started', coalesce(r.total, v_first.total), v_kept, v_kept, v_first.items, v_first.since);
        INSERT INTO queue.flow_child (flow_id, born, no, attempt, index, job_id, state, outcome, started_at, ended_at)
        SELECT p_job.id, p_job.born, r.at, 0, c.index, c.job_id, c.state, c.outcome, c.started_at, c.ended_at
        FROM queue.flow_child c
        WHERE c.flow_id = r.flow_job_id AND c.born = v_born AND c.no = r.at AND c.attempt = v_first.attempt AND c.index < v_kept
          AND c.state IN ('success', 'failure');
        GET DIAGNOSTICS v_steps = ROW_COUNT;
        IF v_steps <> v_kept THEN
            RAISE EXCEPTION 'the job % has done % of % iterations', r.flow_job_id, v_steps, v_kept USING ERRCODE = 'TM011';
        END IF;
    END IF;
    SELECT o.created_by = n.created_by AND o.permissioned_as = n.permissioned_as INTO v_same
    FROM queue.job o, queue.job n
    WHERE o.id = r.flow_job_id AND o.born = v_born AND n.id = p_job.id AND n.born = p_job.born;
    INSERT INTO queue.flow_resume (flow_id, born, step_job, resume_id, approver, approved, value, said_at, spent_on)
    SELECT p_job.id, p_job.born, a.step_job, a.resume_id, a.approver, a.approved, a.value, a.said_at,
           CASE WHEN a.spent_on < r.at THEN a.spent_on END
    FROM queue.flow_resume a
    WHERE a.flow_id = r.flow_job_id AND a.born = v_born AND v_same AND coalesce(r.keeps_approvals, false)
      AND (a.spent_on < r.at OR a.spent_on = r.at AND a.approved);
    UPDATE queue.live_job SET at_step = r.at WHERE id = p_job.id;
END
$$;

RESET ROLE;
