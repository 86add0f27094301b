-- name: person_by_token
-- One round trip tells who it is and what they are in the workspace of the path.
SELECT t.prefix, t.email, t.workspace_id AS token_workspace, t.read_only, p.super_admin,
       w.id IS NOT NULL AS workspace_exists, m.username, coalesce(m.is_admin, false) AS is_admin,
       coalesce(m.operator, false) AS operator
FROM platform.token t
JOIN platform.person p ON p.email = t.email AND NOT p.disabled
LEFT JOIN platform.workspace w ON w.id = $2 AND NOT w.archived
LEFT JOIN platform.member m ON m.workspace_id = w.id AND m.email = t.email AND NOT m.disabled
WHERE t.hash = $1 AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp());

-- name: job_by_token
-- What a job may do was written down when it was requested; but nobody disabled since then acts through one.
SELECT j.job_id, j.workspace_id, j.permissioned_as, j.email, j.permissions
FROM queue.verify_job_token($1) j
WHERE NOT EXISTS (SELECT FROM platform.person p WHERE p.email = j.email AND p.disabled);
