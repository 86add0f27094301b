-- name: append
-- An event may come twice: the trigger makes nothing of the second one. Chains are locked in one order everywhere.
INSERT INTO audit.entry (event_id, workspace_id, at, username, email, operation, action_kind, resource, parameters, span)
SELECT e.event_id, e.workspace_id, e.at, e.username, e.email, e.operation, e.action_kind, e.resource, e.parameters::json, e.span
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[])
    WITH ORDINALITY AS e (event_id, workspace_id, at, username, email, operation, action_kind, resource, parameters, span, place)
ORDER BY e.workspace_id, e.place;

-- name: prepare_days
SELECT audit.prepare_days($1);

-- name: drop_day
SELECT audit.drop_day($1);

-- name: days_before
WITH partitions AS MATERIALIZED (
    SELECT c.relname::text AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'audit.entry'::regclass
)
SELECT to_date(right(p.name, 8), 'YYYYMMDD') AS day FROM partitions p
WHERE to_date(right(p.name, 8), 'YYYYMMDD') < $1 ORDER BY 1;

-- name: last_of_day
-- The place of each chain's last entry of a day.
SELECT DISTINCT ON (e.workspace_id) e.workspace_id, e.seq, e.hash FROM audit.entry e
WHERE e.recorded_at >= $1::timestamptz AND e.recorded_at < $1::timestamptz + interval '24 hours'
ORDER BY e.workspace_id, e.seq DESC;

-- name: next_entries
SELECT e.id, e.workspace_id, e.seq, e.event_id, e.recorded_at, e.at, e.username, e.email, e.operation, e.action_kind,
       e.resource, e.parameters, e.span, e.previous_hash, e.hash
FROM audit.entry e WHERE e.workspace_id = $1 AND (e.seq, e.id) > ($2, $3) ORDER BY e.seq, e.id LIMIT $4;

-- name: workspaces
-- Whatever has left a trace: an anchor still knows a chain whose entries are all gone.
SELECT c.workspace_id FROM audit.chain c
UNION SELECT a.workspace_id FROM audit.anchor a
UNION SELECT e.workspace_id FROM audit.entry e
ORDER BY 1;

-- name: head
SELECT c.seq, c.hash FROM audit.chain c WHERE c.workspace_id = $1;

-- name: now
SELECT clock_timestamp();
