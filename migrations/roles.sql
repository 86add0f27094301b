-- Who exists: one owner a schema (nobody logs in as it), one login role a service. Applied before everything else, by
-- a role that needs CREATEROLE and nothing more, so that managed Postgres works. Passwords are set by `tidemill migrate`.
DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['tidemill_bus_owner', 'tidemill_queue_owner', 'tidemill_platform_owner', 'tidemill_audit_owner'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
        END IF;
        IF NOT pg_has_role(current_user, v_role, 'USAGE') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', v_role);
        END IF;
    END LOOP;
    FOREACH v_role IN ARRAY ARRAY['tidemill_api', 'tidemill_scheduler', 'tidemill_worker', 'tidemill_audit'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
            EXECUTE format('CREATE ROLE %I LOGIN NOINHERIT', v_role);
        END IF;
    END LOOP;
    -- Nobody needs temporary tables here; only a database's owner may say so.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
END
$$;

-- The scheduler makes and drops day partitions, so it may become the owner of its own schema; never by accident (NOINHERIT).
GRANT tidemill_queue_owner TO tidemill_scheduler;

DO $$
DECLARE
    v_schema text;
BEGIN
    FOREACH v_schema IN ARRAY ARRAY['bus', 'queue', 'platform', 'audit'] LOOP
        EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', v_schema, 'tidemill_' || v_schema || '_owner');
        -- Without IN SCHEMA on purpose: with it, this statement has no effect.
        EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC', 'tidemill_' || v_schema || '_owner');
    END LOOP;
END
$$;
