-- name: exists
SELECT EXISTS (SELECT FROM platform.workspace w WHERE w.id = $1);

-- name: name_of
SELECT w.name FROM platform.workspace w WHERE w.id = $1;

-- name: add
INSERT INTO platform.workspace (id, name, owner, color) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: add_member
INSERT INTO platform.member (workspace_id, username, email, is_admin) VALUES ($1, $2, $3, $4);

-- name: memberships
SELECT w.id, w.name, w.owner, w.color, m.username, m.is_admin, m.operator, m.disabled
FROM platform.member m JOIN platform.workspace w ON w.id = m.workspace_id AND NOT w.archived
WHERE m.email = $1 AND ($2::text IS NULL OR w.id = $2)
ORDER BY w.id;

-- name: list_all
SELECT w.id, w.name, w.owner, w.color, w.archived FROM platform.workspace w ORDER BY w.id LIMIT $1 OFFSET $2;
