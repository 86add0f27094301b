-- name: anybody
SELECT EXISTS (SELECT FROM platform.person);

-- name: take_turns
-- Replicas that start at once do this one after the other.
SELECT pg_advisory_xact_lock(7433002);

-- name: add_superadmin
INSERT INTO platform.person (email, password_hash, super_admin) VALUES ($1, $2, true);

-- name: add_workspace
INSERT INTO platform.workspace (id, name, owner) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING;

-- name: add_admin
INSERT INTO platform.member (workspace_id, username, email, is_admin) VALUES ($1, $2, $3, true) ON CONFLICT DO NOTHING;
