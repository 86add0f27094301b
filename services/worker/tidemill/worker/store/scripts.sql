-- name: source
SELECT content, lock FROM platform.script_source($1, $2)
