-- name: checkpoint
SELECT checkpoint, args, count, size FROM queue.read_checkpoint($1, $2)

-- name: keep
SELECT queue.keep_claimed_step($1, $2, $3, $4, $5, $6)

-- name: suspend
SELECT answer, said FROM queue.suspend_workflow($1, $2, $3, $4)

-- name: script
SELECT hash, path, language, tag, envs, timeout_s, concurrent_limit, concurrency_key, priority
FROM platform.script_to_run($1, $2, NULL, $3, $4)

-- name: flow
SELECT version::text AS hash, path, tag, timeout_s, concurrent_limit, concurrency_key, priority FROM platform.flow_to_run($1, $2, $3, $4)
