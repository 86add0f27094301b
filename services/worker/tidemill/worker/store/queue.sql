-- name: register
SELECT queue.register_worker($1, $2, $3, $4, $5, $6, $7, $8)

-- name: retire
SELECT queue.retire_worker($1)

-- name: claim
SELECT id, workspace_id, kind, path, hash, language, code, entrypoint, args, tag, envs, timeout_s, due_at, parent_job,
       root_job, created_by, permissioned_as, email, permissions, claims, reply_to, traceparent, token, lock, step_id, root_flow,
       flow_path, shares_with, rounds, checkpointed
FROM queue.claim_job($1, $2, $3)

-- name: ended_flows
SELECT queue.ended_flows($1)

-- name: renew
SELECT claim_key, verdict, reason, said FROM queue.renew($1, $2, $3, $4, $5)

-- name: append_log
SELECT queue.append_log($1, $2, $3, $4, $5)

-- name: append_stream
SELECT queue.append_stream($1, $2, $3, $4, $5)

-- name: finish
SELECT answer, said FROM queue.finish_job($1, $2, $3, $4)

-- name: release
SELECT queue.release_job($1, $2)
