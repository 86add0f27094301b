-- name: source
SELECT content, lock, dedicated_worker FROM platform.script_source($1, $2)

-- name: keep_lock
SELECT platform.keep_lock($1, $2, $3, $4)
