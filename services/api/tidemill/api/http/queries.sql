-- name: person_by_token
-- One round trip tells who it is and what they are in the workspace of the path.
SELECT t.prefix, t.email, t.workspace_id AS token_workspace, t.read_only, t.scopes, t.expires_at, p.super_admin,
       w.id IS NOT NULL AS workspace_exists, m.username, coalesce(m.is_admin, false) AS is_admin,
       coalesce(m.operator, false) AS operator
FROM platform.token t
JOIN platform.person p ON p.email = t.email AND NOT p.disabled
LEFT JOIN platform.workspace w ON w.id = $2 AND NOT w.archived
LEFT JOIN platform.member m ON m.workspace_id = w.id AND m.email = t.email AND NOT m.disabled
WHERE t.hash = $1 AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp());

-- name: is_archived
-- For those who could enter it otherwise.
SELECT EXISTS (
    SELECT FROM platform.workspace w WHERE w.id = $1 AND w.archived AND NOT w.gone
    AND ($3 OR EXISTS (SELECT FROM platform.member m WHERE m.workspace_id = w.id AND m.email = $2 AND NOT m.disabled)));

-- name: job_by_token
-- What a job may do was written down when it was requested; but nobody who has been disabled or has gone since then acts
-- through one, and nothing acts in a workspace that is closed.
SELECT j.job_id, j.workspace_id, j.permissioned_as, j.email, j.permissions
FROM queue.verify_job_token($1) j
JOIN platform.person p ON p.email = j.email AND NOT p.disabled
JOIN platform.workspace w ON w.id = j.workspace_id AND NOT w.archived
WHERE p.super_admin
   OR EXISTS (SELECT FROM platform.member m WHERE m.workspace_id = w.id AND m.email = j.email AND NOT m.disabled);

-- name: job_of
-- The path of a deployed script's or flow's job only: a preview may name one that is not its own. Of a step also that of
-- the flow on top, and whether the job that asks ($3) runs below the same job as this one.
SELECT CASE WHEN j.kind IN ('script', 'flow') THEN j.path END AS path, j.kind, j.created_by, j.tag,
       CASE WHEN j.step_id IS NOT NULL THEN (
           SELECT r.path FROM queue.asked_job r
           WHERE r.id = j.root_job AND r.born = (SELECT queue.locate(j.root_job)) AND r.kind = 'flow') END AS flow_path,
       coalesce(j.root_job, j.id) = (
           SELECT coalesce(o.root_job, o.id) FROM queue.any_job o
           WHERE o.id = $3 AND o.born = (SELECT queue.locate($3))) AS of_own_run
FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1;
