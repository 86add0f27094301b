-- name: load
SELECT queue.load_flow($1, $2, $3)

-- name: advance
SELECT answer, said FROM queue.advance_flow($1, $2, $3, $4)

-- name: definition
SELECT value, locks FROM platform.flow_definition($1, $2)

-- name: code
SELECT queue.flow_code($1)

-- name: args
SELECT queue.flow_args($1)

-- name: job_result
SELECT queue.job_result($1)

-- name: cached
SELECT queue.cached($1)

-- name: child_results
SELECT queue.child_results($1, $2)

-- name: step_result
SELECT result FROM queue.step_result($1, $2, $3)

-- name: slots
SELECT queue.slots_of($1)

-- name: script_to_run
SELECT hash, path, language, tag, envs, timeout_s, concurrent_limit, concurrency_key, priority, cache_ttl_s, erase_after_s
FROM platform.script_to_run($1, $2, $3, $4, $5)

-- name: flow_to_run
SELECT version, path, tag, timeout_s, concurrent_limit, concurrency_key, priority, cache_ttl_s, erase_after_s
FROM platform.flow_to_run($1, $2, $3, $4)
