-- name: tick
SELECT said, stranded, ended, dispatched, requeued, failed, stale_tags, next_due_in FROM queue.tick($1, $2, $3, $4)

-- name: rehint
SELECT queue.rehint($1, $2, $3)

-- name: prepare_days
SELECT queue.prepare_days($1)

-- name: days_before
SELECT day FROM queue.days_before($1) AS day

-- name: forget_code
SELECT queue.forget_code($1)

-- name: move_on
SELECT queue.move_on($1, $2, $3)

-- name: backlog
SELECT tag, waiting, oldest FROM queue.backlog
