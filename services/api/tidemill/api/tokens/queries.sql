-- name: add
INSERT INTO platform.token (hash, prefix, email, label, workspace_id, read_only, expires_at, scopes, is_session)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: list_of_person
-- A job sees the tokens of its own workspace only, a token with scopes those that may do no more: they have no
-- other scopes, the same filter where it has one, and not that filter alone where it has more than that.
SELECT t.prefix, t.label, t.expires_at, t.created_at, t.last_used_at, t.workspace_id, t.read_only, t.scopes
FROM platform.token t
WHERE t.email = $1 AND ($2::text IS NULL OR t.workspace_id = $2)
  AND ($3::text[] IS NULL OR t.scopes <@ $3
       AND t.scopes @> ARRAY(SELECT own FROM unnest($3::text[]) AS own WHERE starts_with(own, 'if_jobs:filter_tags:'))
       AND (t.scopes @> $3 OR EXISTS (SELECT FROM unnest(t.scopes) AS its WHERE NOT starts_with(its, 'if_jobs:filter_tags:'))))
  AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())
ORDER BY t.created_at DESC, t.prefix LIMIT $4 OFFSET $5;

-- part: one_of_theirs
WHERE t.email = $1 AND t.prefix = $2 AND ($3::text IS NULL OR t.workspace_id = $3)
  AND ($4::text[] IS NULL OR t.scopes <@ $4
       AND t.scopes @> ARRAY(SELECT own FROM unnest($4::text[]) AS own WHERE starts_with(own, 'if_jobs:filter_tags:'))
       AND (t.scopes @> $4 OR EXISTS (SELECT FROM unnest(t.scopes) AS its WHERE NOT starts_with(its, 'if_jobs:filter_tags:'))))

-- name: remove_by_prefix
DELETE FROM platform.token t
-- use: one_of_theirs
RETURNING t.prefix, t.workspace_id;

-- name: update_label
UPDATE platform.token t SET label = $5
-- use: one_of_theirs
RETURNING t.prefix;

-- name: update_scopes
UPDATE platform.token t SET scopes = $5
-- use: one_of_theirs
RETURNING t.prefix;

-- name: remove_of_person_here
DELETE FROM platform.token t WHERE t.email = $1 AND t.workspace_id = $2;

-- name: end_sessions
-- All but the one that asks for it.
DELETE FROM platform.token t WHERE t.email = $1 AND t.is_session AND t.hash IS DISTINCT FROM $2;

-- name: remove_by_hash
DELETE FROM platform.token t WHERE t.hash = $1 RETURNING t.prefix;

-- name: may_bind
SELECT EXISTS (
    SELECT FROM platform.workspace w
    WHERE w.id = $1 AND NOT w.archived
      AND ($3 OR EXISTS (SELECT FROM platform.member m WHERE m.workspace_id = w.id AND m.email = $2 AND NOT m.disabled)));

-- name: mark_used
UPDATE platform.token t SET last_used_at = u.at
FROM unnest($1::bytea[], $2::timestamptz[]) AS u (hash, at)
WHERE t.hash = u.hash AND t.last_used_at < u.at;

-- name: forget_expired
WITH gone AS (
    DELETE FROM platform.token t WHERE t.expires_at < clock_timestamp() - interval '1 day' RETURNING 1
)
SELECT count(*) FROM gone;
