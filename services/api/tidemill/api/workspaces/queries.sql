-- name: exists
SELECT EXISTS (SELECT FROM platform.workspace w WHERE w.id = $1);

-- name: name_of
SELECT w.name FROM platform.workspace w WHERE w.id = $1;

-- name: add
INSERT INTO platform.workspace (id, name, owner, color) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING RETURNING id;

-- name: add_member
-- Nobody is two members, and no name belongs to two.
INSERT INTO platform.member (workspace_id, username, email, is_admin, operator) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING email;

-- name: set_archived
UPDATE platform.workspace w SET archived = $2 WHERE w.id = $1 AND NOT w.gone RETURNING w.id;

-- name: remove
-- With all that belongs to it.
DELETE FROM platform.workspace w WHERE w.id = $1 AND NOT w.gone RETURNING w.id;

-- name: bury
-- In the transaction of `remove`, so that whoever wants the id waits and then finds it taken.
INSERT INTO platform.workspace (id, name, owner, archived, gone) VALUES ($1, '', '', true, true);

-- name: add_invite
INSERT INTO platform.invite (workspace_id, email, is_admin, operator)
SELECT $1, $2, $3, $4 WHERE NOT EXISTS (SELECT FROM platform.member m WHERE m.workspace_id = $1 AND m.email = $2)
ON CONFLICT (workspace_id, email) DO UPDATE SET is_admin = excluded.is_admin, operator = excluded.operator
RETURNING email;

-- name: take_invite
DELETE FROM platform.invite i USING platform.workspace w
WHERE i.workspace_id = $1 AND i.email = $2 AND w.id = i.workspace_id AND NOT w.archived
RETURNING i.workspace_id, i.email, i.is_admin, i.operator;

-- name: invites_here
SELECT i.workspace_id, i.email, i.is_admin, i.operator FROM platform.invite i WHERE i.workspace_id = $1 ORDER BY i.email;

-- name: invites_of_person
SELECT i.workspace_id, i.email, i.is_admin, i.operator
FROM platform.invite i JOIN platform.workspace w ON w.id = i.workspace_id AND NOT w.archived
WHERE i.email = $1 ORDER BY i.workspace_id;

-- name: memberships
SELECT w.id, w.name, w.owner, w.color, m.username, m.is_admin, m.operator, m.disabled
FROM platform.member m JOIN platform.workspace w ON w.id = m.workspace_id AND NOT w.archived
WHERE m.email = $1 AND ($2::text IS NULL OR w.id = $2)
ORDER BY w.id;

-- name: list_all
SELECT w.id, w.name, w.owner, w.color, w.archived FROM platform.workspace w WHERE NOT w.gone ORDER BY w.id LIMIT $1 OFFSET $2;
