-- name: value
SELECT value FROM platform.flow_definition($1, $2)

-- name: keep_locks
SELECT platform.keep_flow_locks($1, $2, $3, $4)
