-- name: append
-- An event may come twice; its id makes the second one change nothing.
INSERT INTO audit.entry (event_id, workspace_id, at, username, email, operation, action_kind, resource, parameters, span)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (event_id) DO NOTHING
