-- What the platform publishes: to its own service all its tables, to the worker the source of a version, to the scheduler
-- what flows are made of.
SET ROLE tidemill_platform_owner;

-- Visibility of an item, the one predicate that every query on items uses: admins see all, everybody else their own
-- `u/<username>/`. Inlinable on purpose: LANGUAGE sql, no DEFINER, no SET.
CREATE OR REPLACE FUNCTION platform.may_read(p_path text, p_username text, p_is_admin boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_is_admin OR starts_with(p_path, 'u/' || p_username || '/')
$$;

CREATE OR REPLACE FUNCTION platform.may_write(p_path text, p_username text, p_is_admin boolean) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_is_admin OR starts_with(p_path, 'u/' || p_username || '/')
$$;

-- The source of one immutable version, for the worker that has claimed a job of it.
CREATE OR REPLACE FUNCTION platform.script_source(p_workspace_id text, p_hash text)
RETURNS TABLE (content text, lock text, dedicated_worker boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.content, s.lock, s.dedicated_worker FROM platform.script s WHERE s.workspace_id = p_workspace_id AND s.hash = p_hash AND NOT s.deleted
$$;

-- Keep the lock that a version's own job has found, and let the version serve its path if it is still the head. Called in
-- the transaction that ends the job.
CREATE OR REPLACE FUNCTION platform.keep_lock(p_workspace_id text, p_hash text, p_lock_job uuid, p_lock text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_script platform.script;
BEGIN
    -- A deployment that goes on holds the row; afterwards it says whether this is the head still.
    SELECT * INTO v_script FROM platform.script s
    WHERE s.workspace_id = p_workspace_id AND s.hash = p_hash AND s.lock_job = p_lock_job AND s.lock IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF v_script.archived OR v_script.deleted THEN
        UPDATE platform.script SET lock = p_lock WHERE workspace_id = p_workspace_id AND hash = p_hash;
        RETURN false;
    END IF;
    UPDATE platform.script SET serves = false
    WHERE workspace_id = p_workspace_id AND path = v_script.path AND serves AND hash <> p_hash;
    UPDATE platform.script SET lock = p_lock, serves = true WHERE workspace_id = p_workspace_id AND hash = p_hash;
    RETURN true;
END
$$;

-- One immutable version of a flow, for whoever walks a job of it through its modules or looks for its locks; a deleted
-- flow answers as well, so that its jobs end as they began. Locks are there once they have been found.
CREATE OR REPLACE FUNCTION platform.flow_definition(p_workspace_id text, p_version bigint)
RETURNS TABLE (value json, locks json, path text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.value, v.locks, f.path FROM platform.flow_version v JOIN platform.flow f ON f.id = v.flow_id
    WHERE v.id = p_version AND f.workspace_id = p_workspace_id
$$;

-- What a step that names a flow runs: the newest version at the path; no row where there is none that this identity may read.
CREATE OR REPLACE FUNCTION platform.flow_to_run(p_workspace_id text, p_path text, p_username text, p_is_admin boolean)
RETURNS TABLE (
    version bigint, path text, tag text, timeout_s integer, priority smallint, concurrent_limit integer, concurrency_key text,
    visible_to_runner_only boolean, cache_ttl_s integer, erase_after_s integer
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT v.id, f.path, v.tag, v.timeout_s, v.priority, v.concurrent_limit, v.concurrency_key, v.visible_to_runner_only,
           v.cache_ttl_s, v.erase_after_s
    FROM platform.flow f JOIN platform.flow_version v ON v.id = f.version
    WHERE f.workspace_id = p_workspace_id AND f.path = p_path AND NOT f.archived AND NOT f.deleted
      AND platform.may_read(f.path, p_username, p_is_admin)
$$;

-- What a step that names a script runs: the version of the hash, or without one the version that serves the path.
CREATE OR REPLACE FUNCTION platform.script_to_run(
    p_workspace_id text, p_path text, p_hash text, p_username text, p_is_admin boolean
)
RETURNS TABLE (
    hash text, path text, language text, tag text, envs text[], timeout_s integer, concurrent_limit integer, concurrency_key text,
    priority smallint, visible_to_runner_only boolean, cache_ttl_s integer, erase_after_s integer
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.hash, s.path, s.language, s.tag, s.envs, s.timeout_s, s.concurrent_limit, s.concurrency_key, s.priority,
           s.visible_to_runner_only, s.cache_ttl_s, s.erase_after_s
    FROM platform.script s
    WHERE p_hash IS NULL AND s.workspace_id = p_workspace_id AND s.path = p_path AND s.serves AND NOT s.deleted
      AND platform.may_read(s.path, p_username, p_is_admin)
    UNION ALL
    SELECT s.hash, s.path, s.language, s.tag, s.envs, s.timeout_s, s.concurrent_limit, s.concurrency_key, s.priority,
           s.visible_to_runner_only, s.cache_ttl_s, s.erase_after_s
    FROM platform.script s
    WHERE s.workspace_id = p_workspace_id AND s.hash = p_hash AND NOT s.deleted
      AND platform.may_read(s.path, p_username, p_is_admin)
$$;

-- Keep the locks that a flow version's own job has found. Called in the transaction that ends the job.
CREATE OR REPLACE FUNCTION platform.keep_flow_locks(p_workspace_id text, p_version bigint, p_lock_job uuid, p_locks json) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH kept AS (
        UPDATE platform.flow_version v SET locks = p_locks FROM platform.flow f
        WHERE v.id = p_version AND v.lock_job = p_lock_job AND v.locks IS NULL AND f.id = v.flow_id AND f.workspace_id = p_workspace_id
        RETURNING v.id
    )
    SELECT EXISTS (SELECT FROM kept)
$$;

GRANT USAGE ON SCHEMA platform TO tidemill_api, tidemill_worker, tidemill_scheduler;
GRANT SELECT, INSERT, UPDATE, DELETE ON platform.person, platform.workspace, platform.member, platform.invite, platform.token TO tidemill_api;
GRANT SELECT, INSERT ON platform.script TO tidemill_api;
GRANT UPDATE (archived, deleted, serves) ON platform.script TO tidemill_api;
GRANT SELECT, INSERT ON platform.flow, platform.flow_version TO tidemill_api;
GRANT UPDATE (path, version, archived, deleted) ON platform.flow TO tidemill_api;
GRANT UPDATE (deployment_message) ON platform.flow_version TO tidemill_api;
GRANT EXECUTE ON FUNCTION platform.may_read(text, text, boolean), platform.may_write(text, text, boolean) TO tidemill_api;
GRANT EXECUTE ON FUNCTION platform.script_source(text, text) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION platform.keep_lock(text, text, uuid, text) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION platform.flow_definition(text, bigint) TO tidemill_scheduler, tidemill_worker;
GRANT EXECUTE ON FUNCTION platform.flow_to_run(text, text, text, boolean) TO tidemill_scheduler, tidemill_worker;
GRANT EXECUTE ON FUNCTION platform.script_to_run(text, text, text, text, boolean) TO tidemill_scheduler, tidemill_worker;
GRANT EXECUTE ON FUNCTION platform.keep_flow_locks(text, bigint, uuid, json) TO tidemill_worker;

RESET ROLE;
