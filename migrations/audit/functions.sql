-- The inside of the audit log: how an entry becomes a link of its workspace's chain, and how days come and go.
SET ROLE tidemill_audit_owner;

-- Texts as one text that can't be read in two ways: each with its length in bytes before it, `-` for NULL.
CREATE OR REPLACE FUNCTION audit.canonical(p_fields text[]) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT convert_to(string_agg(coalesce(octet_length(convert_to(f.field, 'UTF8')) || ':' || f.field, '-'), ',' ORDER BY f.no), 'UTF8')
    FROM unnest(p_fields) WITH ORDINALITY f (field, no)
$$;

-- Microseconds since 1970: the same number for the same instant in every time zone.
CREATE OR REPLACE FUNCTION audit.micros(p_at timestamptz) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (extract(epoch FROM p_at) * 1000000)::bigint::text
$$;

-- What the first entry of a workspace has for the hash of the one before it. `audit/chain.py` computes the same.
CREATE OR REPLACE FUNCTION audit.genesis(p_workspace_id text) RETURNS bytea
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT sha256(audit.canonical(ARRAY['tidemill audit 1', p_workspace_id]))
$$;

-- The hash of an entry: of the hash before it and of all its other columns. `audit/chain.py` computes the same.
CREATE OR REPLACE FUNCTION audit.digest(p_entry audit.entry) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT sha256(p_entry.previous_hash || audit.canonical(ARRAY[
        p_entry.id::text, p_entry.workspace_id, p_entry.seq::text, p_entry.event_id::text,
        audit.micros(p_entry.recorded_at), audit.micros(p_entry.at), p_entry.username, p_entry.email,
        p_entry.operation, p_entry.action_kind, p_entry.resource, p_entry.parameters::text, p_entry.span]))
$$;

-- Make a new row the next link of its chain, or nothing of an event that was heard already. The lock on the chain comes
-- first: whatever several replicas append to one workspace stands in one line, in the order of arrival.
CREATE OR REPLACE FUNCTION audit.link() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_head audit.chain;
BEGIN
    INSERT INTO audit.chain (workspace_id, seq, hash, recorded_at)
    VALUES (NEW.workspace_id, 0, audit.genesis(NEW.workspace_id), '-infinity') ON CONFLICT DO NOTHING;
    SELECT * INTO v_head FROM audit.chain c WHERE c.workspace_id = NEW.workspace_id FOR UPDATE;
    INSERT INTO audit.heard (event_id, recorded_at) VALUES (NEW.event_id, NEW.recorded_at) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- A trigger can't move a row to another day, and a chain must not go back to a day that retention drops earlier.
    IF (NEW.recorded_at AT TIME ZONE 'UTC')::date < (v_head.recorded_at AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION 'the day has changed while this entry waited for its turn' USING ERRCODE = 'serialization_failure';
    END IF;
    NEW.id := nextval('audit.entry_id');
    NEW.seq := v_head.seq + 1;
    NEW.previous_hash := v_head.hash;
    NEW.hash := audit.digest(NEW);
    UPDATE audit.chain SET seq = NEW.seq, hash = NEW.hash, recorded_at = greatest(v_head.recorded_at, NEW.recorded_at)
    WHERE workspace_id = NEW.workspace_id;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER link BEFORE INSERT ON audit.entry FOR EACH ROW EXECUTE FUNCTION audit.link();

-- Make the partition of one day. Dynamic SQL because a table's name can't be bound; it is made of a date.
CREATE OR REPLACE FUNCTION audit.make_day(p_day date) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_name text := 'entry_p' || to_char(p_day, 'YYYYMMDD');
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('audit.make_day'));
    -- Not to_regclass: it would remember that there was none before we waited for the lock.
    IF NOT EXISTS (SELECT FROM pg_class c WHERE c.relname = v_name AND c.relnamespace = 'audit'::regnamespace) THEN
        -- LIKE + ATTACH takes a weaker lock on the parent than CREATE ... PARTITION OF.
        EXECUTE format('CREATE TABLE audit.%I (LIKE audit.entry INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', v_name);
        EXECUTE format('ALTER TABLE audit.entry ATTACH PARTITION audit.%I FOR VALUES FROM (%L) TO (%L)',
            v_name, p_day::timestamp AT TIME ZONE 'UTC', (p_day + 1)::timestamp AT TIME ZONE 'UTC');
    END IF;
END
$$;

-- Drop the partition of one day, waiting no longer for its readers than those who append may be kept waiting.
CREATE OR REPLACE FUNCTION audit.remove_day(p_day date) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('audit.make_day'));
    PERFORM set_config('lock_timeout', '5s', true);
    EXECUTE format('DROP TABLE IF EXISTS audit.%I', 'entry_p' || to_char(p_day, 'YYYYMMDD'));
END
$$;

RESET ROLE;
