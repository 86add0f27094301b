-- name: may_write
SELECT platform.may_write($1, $2, $3);

-- name: lock_flow
-- Two changes of one flow take turns.
SELECT f.id, f.path, f.archived, platform.may_write(f.path, $3, $4) AS may_write
FROM platform.flow f
WHERE f.workspace_id = $1 AND f.path = $2 AND NOT f.deleted AND platform.may_read(f.path, $3, $4) FOR UPDATE;

-- name: is_taken
SELECT EXISTS (SELECT FROM platform.flow f WHERE f.workspace_id = $1 AND f.path = $2 AND NOT f.deleted);

-- name: insert_flow
INSERT INTO platform.flow (workspace_id, path) VALUES ($1, $2) RETURNING id;

-- name: insert_version
-- The new version is what its path shows and runs, also where the flow was archived.
WITH made AS (
    INSERT INTO platform.flow_version (flow_id, summary, description, value, schema, tag, labels, concurrent_limit, concurrency_key,
                                       priority, timeout_s, visible_to_runner_only, cache_ttl_s, erase_after_s, has_preprocessor,
                                       deployment_message, flows, locks, lock_job, created_by)
    VALUES ($1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21) RETURNING id
)
UPDATE platform.flow f SET version = made.id, path = $2, archived = false FROM made WHERE f.id = $1 RETURNING f.version;

-- name: set_archived
UPDATE platform.flow SET archived = $2 WHERE id = $1;

-- name: delete
UPDATE platform.flow SET deleted = true WHERE id = $1;

-- name: set_message
UPDATE platform.flow_version v SET deployment_message = $5 FROM platform.flow f
WHERE v.id = $2 AND f.id = v.flow_id AND f.workspace_id = $1 AND NOT f.deleted AND platform.may_write(f.path, $3, $4) RETURNING f.path;

-- name: absent_scripts
-- Paths and hashes at which there is no script that may be read.
SELECT w.path AS name, false AS is_hash FROM unnest($2::text[]) AS w (path)
WHERE NOT EXISTS (
    SELECT FROM platform.script s
    WHERE s.workspace_id = $1 AND s.path = w.path AND s.serves AND NOT s.deleted AND platform.may_read(s.path, $4, $5))
UNION ALL
SELECT w.hash, true FROM unnest($3::text[]) AS w (hash)
WHERE NOT EXISTS (
    SELECT FROM platform.script s
    WHERE s.workspace_id = $1 AND s.hash = w.hash AND NOT s.deleted AND platform.may_read(s.path, $4, $5));

-- name: below
-- All flows that would run inside of one with these steps, each as deep as it can stand, no deeper than $4, and whether
-- there is one at the path. Nobody looks below the flow itself ($3): where it is found, a circle is closed.
WITH RECURSIVE below (named, path, depth) AS (
    SELECT w.path, w.path, 1 FROM unnest($2::text[]) AS w (path)
    UNION
    SELECT b.named, n.path, b.depth + 1
    FROM below b
    JOIN platform.flow f ON f.workspace_id = $1 AND f.path = b.path AND NOT f.archived AND NOT f.deleted
    JOIN platform.flow_version v ON v.id = f.version
    CROSS JOIN LATERAL unnest(v.flows) AS n (path)
    WHERE b.depth < $4::integer AND b.path IS DISTINCT FROM $3
)
SELECT b.named, b.path, max(b.depth) AS depth, min(b.depth) AS nearest, EXISTS (
    SELECT FROM platform.flow f
    WHERE f.workspace_id = $1 AND f.path = b.path AND NOT f.archived AND NOT f.deleted AND platform.may_read(f.path, $5, $6)) AS is_there
FROM below b GROUP BY b.named, b.path;

-- name: why_no_locks
-- What the jobs that were to find locks have said: nothing as long as they go on, and nothing any more after the retention.
SELECT w.id AS lock_job, j.id IS NOT NULL AS is_known, j.outcome, j.result #>> '{error,message}' AS message
FROM unnest($1::uuid[]) AS w (id)
LEFT JOIN LATERAL (
    SELECT a.id, a.outcome, a.result FROM queue.any_job a WHERE a.id = w.id AND a.born = (SELECT queue.locate(w.id)) LIMIT 1) j ON true;

-- name: newest
SELECT f.workspace_id, f.path, f.archived, v.* FROM platform.flow f JOIN platform.flow_version v ON v.id = f.version
WHERE f.workspace_id = $1 AND f.path = $2 AND NOT f.deleted AND platform.may_read(f.path, $3, $4);

-- name: version
SELECT f.workspace_id, f.path, f.archived, v.* FROM platform.flow_version v JOIN platform.flow f ON f.id = v.flow_id
WHERE f.workspace_id = $1 AND v.id = $2 AND NOT f.deleted AND platform.may_read(f.path, $3, $4);

-- name: exists
SELECT EXISTS (
    SELECT FROM platform.flow f
    WHERE f.workspace_id = $1 AND f.path = $2 AND NOT f.archived AND NOT f.deleted AND platform.may_read(f.path, $3, $4));

-- name: history
SELECT v.id, v.deployment_message, v.created_at, v.created_by
FROM platform.flow f JOIN platform.flow_version v ON v.flow_id = f.id
WHERE f.workspace_id = $1 AND f.path = $2 AND NOT f.deleted AND platform.may_read(f.path, $3, $4)
ORDER BY v.id DESC LIMIT $5 OFFSET $6;

-- name: list_paths
SELECT f.path FROM platform.flow f
WHERE f.workspace_id = $1 AND NOT f.archived AND NOT f.deleted AND platform.may_read(f.path, $2, $3) ORDER BY f.path;

-- name: list_newest_first
SELECT f.workspace_id, f.path, f.archived, v.* FROM platform.flow f JOIN platform.flow_version v ON v.id = f.version
WHERE f.workspace_id = $1 AND NOT f.deleted AND platform.may_read(f.path, $2, $3) AND f.archived = $4
  AND ($5::text IS NULL OR starts_with(f.path, $5))
  AND ($6::text IS NULL OR f.path = $6)
  AND ($7::text IS NULL OR v.created_by = $7)
  AND ($8::text IS NULL OR $8 = ANY (v.labels))
ORDER BY f.version DESC LIMIT $9 OFFSET $10;

-- name: list_oldest_first
SELECT f.workspace_id, f.path, f.archived, v.* FROM platform.flow f JOIN platform.flow_version v ON v.id = f.version
WHERE f.workspace_id = $1 AND NOT f.deleted AND platform.may_read(f.path, $2, $3) AND f.archived = $4
  AND ($5::text IS NULL OR starts_with(f.path, $5))
  AND ($6::text IS NULL OR f.path = $6)
  AND ($7::text IS NULL OR v.created_by = $7)
  AND ($8::text IS NULL OR $8 = ANY (v.labels))
ORDER BY f.version LIMIT $9 OFFSET $10;
