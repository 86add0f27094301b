-- name: password_of
SELECT p.password_hash, p.disabled FROM platform.person p WHERE p.email = $1;

-- name: person
SELECT p.email, p.super_admin, p.name, p.company, p.disabled, p.created_at FROM platform.person p WHERE p.email = $1;

-- name: member_since
SELECT p.name, coalesce(m.created_at, p.created_at) AS created_at
FROM platform.person p
LEFT JOIN platform.member m ON m.email = p.email AND m.workspace_id = $1
WHERE p.email = $2;

-- name: email_of_username
SELECT m.email FROM platform.member m WHERE m.workspace_id = $1 AND m.username = $2;

-- name: person_exists
SELECT EXISTS (SELECT FROM platform.person p WHERE p.email = $1);

-- name: list_people
SELECT p.email, p.super_admin, p.name, p.company, p.disabled FROM platform.person p ORDER BY p.email LIMIT $1 OFFSET $2;

-- name: superadmins
-- Locked: of two who leave at once, the second finds itself to be the last.
SELECT p.email FROM platform.person p WHERE p.super_admin AND NOT p.disabled ORDER BY p.email FOR UPDATE;

-- name: add_person
INSERT INTO platform.person (email, password_hash, super_admin, name, company) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (email) DO NOTHING RETURNING email;

-- name: update_person
UPDATE platform.person p
SET super_admin = coalesce($2, p.super_admin), name = coalesce($3, p.name), disabled = coalesce($4, p.disabled)
WHERE p.email = $1 RETURNING p.email;

-- name: set_password
UPDATE platform.person p SET password_hash = $2 WHERE p.email = $1 RETURNING p.email;

-- name: remove_person
DELETE FROM platform.person p WHERE p.email = $1 RETURNING p.email;

-- name: remove_invites_of_person
DELETE FROM platform.invite i WHERE i.email = $1;

-- name: members
SELECT m.email, m.username, m.is_admin, m.operator, m.disabled OR p.disabled AS disabled, m.created_at, p.super_admin, p.name
FROM platform.member m JOIN platform.person p ON p.email = m.email
WHERE m.workspace_id = $1 AND ($2::text IS NULL OR m.username = $2)
ORDER BY m.username;

-- name: update_member
UPDATE platform.member m
SET is_admin = CASE WHEN $4 THEN false ELSE coalesce($3, m.is_admin) END,
    operator = CASE WHEN $3 THEN false ELSE coalesce($4, m.operator) END,
    disabled = coalesce($5, m.disabled)
WHERE m.workspace_id = $1 AND m.username = $2 RETURNING m.email;

-- name: remove_member
DELETE FROM platform.member m WHERE m.workspace_id = $1 AND m.username = $2 RETURNING m.email;
