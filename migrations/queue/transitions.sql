-- Generated from services/scheduler/tidemill/scheduler/domain/job.py; do not edit.
SET ROLE tidemill_queue_owner;

CREATE OR REPLACE FUNCTION queue.check_transition(p_from text, p_to text) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (p_from, p_to) NOT IN (
        ('scheduled', 'blocked'),
        ('scheduled', 'canceled'),
        ('scheduled', 'queued'),
        ('blocked', 'canceled'),
        ('blocked', 'queued'),
        ('blocked', 'skipped'),
        ('queued', 'canceled'),
        ('queued', 'failure'),
        ('queued', 'running'),
        ('queued', 'skipped'),
        ('queued', 'suspended'),
        ('running', 'canceled'),
        ('running', 'failure'),
        ('running', 'queued'),
        ('running', 'success'),
        ('running', 'suspended'),
        ('suspended', 'canceled'),
        ('suspended', 'failure'),
        ('suspended', 'queued'),
        ('suspended', 'skipped'),
        ('suspended', 'success')
    ) THEN
        RAISE EXCEPTION 'a job may not go from % to %', p_from, p_to USING ERRCODE = 'TM005';
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION queue.guard_transition() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM queue.check_transition(OLD.state, NEW.state);
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER guard_transition BEFORE UPDATE OF state ON queue.live_job
FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION queue.guard_transition();

RESET ROLE;
