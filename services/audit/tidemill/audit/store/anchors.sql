-- name: add
INSERT INTO audit.anchor (workspace_id, seq, is_floor, hash, at, signature)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING;

-- name: of_workspace
SELECT a.workspace_id, a.seq, a.is_floor, a.hash, a.at, a.signature FROM audit.anchor a
WHERE a.workspace_id = $1 ORDER BY a.seq, a.is_floor;

-- name: newest
SELECT a.workspace_id, a.seq, a.is_floor, a.hash, a.at, a.signature FROM audit.anchor a
WHERE a.workspace_id = $1 ORDER BY a.seq DESC, a.is_floor DESC LIMIT 1;

-- name: unanchored
-- Chains that have grown, or shrunk, since they were signed last.
SELECT c.workspace_id FROM audit.chain c
WHERE c.seq IS DISTINCT FROM (SELECT max(a.seq) FROM audit.anchor a WHERE a.workspace_id = c.workspace_id)
ORDER BY 1;
