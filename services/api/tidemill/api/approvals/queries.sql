-- name: sign
SELECT s.answer, s.job_id, s.signature FROM queue.resume_signature($1, $2, $3, $4, $5) s;

-- name: sign_key
SELECT s.resume_id, s.signature FROM queue.workflow_signature($1, $2, $3, $4) s;

-- name: read
SELECT a.flow_id, a.step_job, a.module, a.stands, a.said, a.lacks, a.needed, a.until, a.conditions, a.approvers
FROM queue.read_approval($1, $2) a;

-- name: decide
SELECT r.answer, r.flow_id, r.said FROM queue.resume_flow($1, $2, $3, $4) r;

-- name: asked_by
-- Who has started a flow, of which path, and what the step before its wait has answered.
SELECT f.created_by, s.path, v.summary, CASE WHEN octet_length(x.result::text) < 1048576 THEN x.result END AS result
FROM queue.any_job f
JOIN queue.any_job s ON s.id = coalesce(f.scope_job, f.id) AND s.born = (SELECT queue.locate(coalesce(f.scope_job, f.id)))
LEFT JOIN platform.flow_version v ON v.id = CASE s.kind WHEN 'flow' THEN s.hash::bigint END
LEFT JOIN queue.any_job x ON x.id = $3 AND x.born = (SELECT queue.locate($3))
WHERE f.id = $2 AND f.born = (SELECT queue.locate($2)) AND f.workspace_id = $1;

-- name: flow_value
-- What the flow that a job walks through is made of: sent with the request, or a version.
SELECT coalesce(s.code, v.value::text)
FROM queue.any_job j
JOIN queue.any_job s ON s.id = coalesce(j.scope_job, j.id) AND s.born = (SELECT queue.locate(coalesce(j.scope_job, j.id)))
LEFT JOIN platform.flow_version v ON v.id = CASE s.kind WHEN 'flow' THEN s.hash::bigint END
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1;
