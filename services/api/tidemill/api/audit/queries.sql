-- name: list_entries
SELECT e.id, e.workspace_id, e.at, e.username, e.operation, e.action_kind, e.resource, e.parameters, e.span
FROM audit.published_entry e
WHERE ($1::text[] IS NULL OR e.workspace_id = ANY ($1))
  AND ($2::text IS NULL OR e.email = $2)
  AND ($3::timestamptz IS NULL OR e.at < $3)
  AND ($4::timestamptz IS NULL OR e.at > $4)
  AND ($5::text IS NULL OR e.username = $5)
  AND ($6::text[] IS NULL OR e.operation = ANY ($6))
  AND ($7::text[] IS NULL OR e.operation <> ALL ($7))
  AND ($8::text IS NULL OR e.resource = $8)
  AND ($9::text IS NULL OR e.action_kind = $9)
  AND ($10::bigint IS NULL OR e.id < $10)
ORDER BY e.id DESC LIMIT $11 OFFSET $12;

-- name: entry
SELECT e.id, e.workspace_id, e.at, e.username, e.operation, e.action_kind, e.resource, e.parameters, e.span
FROM audit.published_entry e
WHERE e.id = $1 AND ($2::text[] IS NULL OR e.workspace_id = ANY ($2)) AND ($3::text IS NULL OR e.email = $3);
