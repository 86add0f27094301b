-- What the audit log publishes: its service may add and read, the api may read, nobody may change or delete.
SET ROLE tidemill_audit_owner;

CREATE OR REPLACE VIEW audit.published_entry AS
SELECT e.id, e.workspace_id, e.at, e.username, e.email, e.operation, e.action_kind, e.resource, e.parameters, e.span
FROM audit.entry e;

-- Partitions for today and the days ahead.
CREATE OR REPLACE FUNCTION audit.prepare_days(p_ahead integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    FOR i IN 0..p_ahead LOOP
        PERFORM audit.make_day((clock_timestamp() AT TIME ZONE 'UTC')::date + i);
    END LOOP;
END
$$;

-- Drop a whole day that is over, and what only it needed. Every chain has to have a floor at or above its last entry of
-- that day, so that the rest can be verified from there on.
CREATE OR REPLACE FUNCTION audit.drop_day(p_day date) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_from timestamptz := p_day::timestamp AT TIME ZONE 'UTC';
    v_to   timestamptz := (p_day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF v_to > clock_timestamp() THEN
        RAISE EXCEPTION 'the day % is not over', p_day USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    IF EXISTS (
        SELECT FROM audit.entry e WHERE e.recorded_at >= v_from AND e.recorded_at < v_to AND NOT EXISTS (
            SELECT FROM audit.anchor a WHERE a.workspace_id = e.workspace_id AND a.is_floor AND a.seq >= e.seq)
    ) THEN
        RAISE EXCEPTION 'entries of % have no floor above them', p_day USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM audit.remove_day(p_day);
    DELETE FROM audit.heard h WHERE h.recorded_at < v_to;
    DELETE FROM audit.anchor a USING audit.anchor f
    WHERE f.workspace_id = a.workspace_id AND f.is_floor AND (a.seq < f.seq OR a.seq = f.seq AND NOT a.is_floor);
END
$$;

GRANT USAGE ON SCHEMA audit TO tidemill_api, tidemill_audit;
GRANT SELECT ON audit.entry, audit.chain, audit.anchor TO tidemill_audit;
-- Not the columns by which an entry is chained: those are for the trigger alone.
GRANT INSERT (event_id, workspace_id, at, username, email, operation, action_kind, resource, parameters, span)
    ON audit.entry TO tidemill_audit;
GRANT INSERT ON audit.anchor TO tidemill_audit;
GRANT EXECUTE ON FUNCTION audit.prepare_days(integer), audit.drop_day(date) TO tidemill_audit;
GRANT SELECT ON audit.published_entry TO tidemill_api;

RESET ROLE;
