-- What the platform publishes: to its own service all its tables, to the worker the source of a version.
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

GRANT USAGE ON SCHEMA platform TO tidemill_api, tidemill_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON platform.person, platform.workspace, platform.member, platform.invite, platform.token TO tidemill_api;
GRANT SELECT, INSERT ON platform.script TO tidemill_api;
GRANT UPDATE (archived, deleted, serves) ON platform.script TO tidemill_api;
GRANT EXECUTE ON FUNCTION platform.may_read(text, text, boolean), platform.may_write(text, text, boolean) TO tidemill_api;
GRANT EXECUTE ON FUNCTION platform.script_source(text, text) TO tidemill_worker;
GRANT EXECUTE ON FUNCTION platform.keep_lock(text, text, uuid, text) TO tidemill_worker;

RESET ROLE;
