-- name: tell
SELECT t.answer, t.said FROM queue.tell_progress($1, $2, $3, $4) t;

-- name: numbers
SELECT j.progress, j.memory_peak_kb FROM queue.any_job j
WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1;
