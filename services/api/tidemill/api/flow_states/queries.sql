-- name: keep
SELECT k.answer, k.said FROM queue.keep_state($1, $2, $3, $4, $5, $6, $7) k;

-- name: kept
SELECT s.value FROM queue.known_state s WHERE s.flow_id = $1 AND s.born = (SELECT queue.locate($1)) AND s.key = $2;

-- name: is_flow
SELECT EXISTS (
    SELECT FROM queue.asked_job j
    WHERE j.id = $2 AND j.born = (SELECT queue.locate($2)) AND j.workspace_id = $1 AND j.kind IN ('flow', 'flowpreview', 'flownode'));
