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
