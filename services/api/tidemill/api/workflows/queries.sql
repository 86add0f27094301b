-- name: keep_step
SELECT k.answer, k.result FROM queue.keep_step($1, $2, $3, $4, $5, $6) k;

-- name: call_task
SELECT c.answer, c.said FROM queue.call_task($1, $2, $3, $4, $5, $6, $7) c;
