-- depends: 0001.create-outbox
SET LOCAL ROLE tidemill_platform_owner;

CREATE TABLE platform.person (
    email         text PRIMARY KEY,
    password_hash text,
    super_admin   boolean NOT NULL DEFAULT false,
    name          text,
    company       text,
    disabled      boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE platform.person IS 'People of the installation; passwords as argon2id hashes.';

CREATE TABLE platform.workspace (
    id         text PRIMARY KEY,
    name       text NOT NULL,
    owner      text NOT NULL,
    color      text,
    archived   boolean NOT NULL DEFAULT false,
    -- Deleted with all that belonged to it: the row only keeps the id from being used again. Never without `archived`.
    gone       boolean NOT NULL DEFAULT false CHECK (archived OR NOT gone),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE platform.workspace IS 'Tenants: nothing of one is ever visible in another.';

CREATE TABLE platform.member (
    workspace_id text NOT NULL REFERENCES platform.workspace (id) ON DELETE CASCADE,
    username     text NOT NULL,
    email        text NOT NULL REFERENCES platform.person (email) ON DELETE CASCADE,
    is_admin     boolean NOT NULL DEFAULT false,
    operator     boolean NOT NULL DEFAULT false,
    disabled     boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace_id, username),
    UNIQUE (workspace_id, email)
);
COMMENT ON TABLE platform.member IS 'Who belongs to a workspace, and as what.';

CREATE TABLE platform.invite (
    workspace_id text NOT NULL REFERENCES platform.workspace (id) ON DELETE CASCADE,
    email        text NOT NULL,
    is_admin     boolean NOT NULL DEFAULT false,
    operator     boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace_id, email)
);
CREATE INDEX invite_of_person ON platform.invite (email);
COMMENT ON TABLE platform.invite IS 'Who may join a workspace, and as what; people who are not there yet included.';

CREATE TABLE platform.token (
    hash         bytea PRIMARY KEY,
    prefix       text NOT NULL,
    email        text NOT NULL REFERENCES platform.person (email) ON DELETE CASCADE,
    label        text,
    workspace_id text REFERENCES platform.workspace (id) ON DELETE CASCADE,
    read_only    boolean NOT NULL DEFAULT false,
    is_session   boolean NOT NULL DEFAULT false,
    scopes       text[] CHECK (cardinality(scopes) > 0),
    expires_at   timestamptz,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX token_of_person ON platform.token (email, created_at DESC);
COMMENT ON TABLE platform.token IS 'Bearer tokens and sessions; only the SHA-256 of each is kept.';

-- Immutable versions: only `archived`, `deleted` and `serves` ever change, and a lock is filled in once.
CREATE TABLE platform.script (
    workspace_id           text NOT NULL REFERENCES platform.workspace (id) ON DELETE CASCADE,
    hash                   text NOT NULL,
    path                   text NOT NULL,
    parent_hashes          text[] NOT NULL,
    summary                text NOT NULL,
    description            text NOT NULL,
    content                text NOT NULL,
    language               text NOT NULL,
    kind                   text NOT NULL,
    schema                 json,
    lock                   text,
    lock_job               uuid,
    tag                    text,
    envs                   text[] NOT NULL DEFAULT '{}',
    labels                 text[] NOT NULL DEFAULT '{}',
    concurrent_limit       integer,
    concurrency_key        text,
    priority               smallint,
    timeout_s              integer,
    is_template            boolean NOT NULL,
    visible_to_runner_only boolean NOT NULL,
    auto_kind              text,
    dedicated_worker       boolean NOT NULL,
    cache_ttl_s            integer,
    erase_after_s          integer,
    deployment_message     text,
    created_by             text NOT NULL,
    created_at             timestamptz NOT NULL DEFAULT clock_timestamp(),
    archived               boolean NOT NULL DEFAULT false,
    deleted                boolean NOT NULL DEFAULT false,
    serves                 boolean NOT NULL,
    PRIMARY KEY (workspace_id, hash)
);
-- One head a path: its newest version, which is what is shown.
CREATE UNIQUE INDEX script_head ON platform.script (workspace_id, path) WHERE NOT archived AND NOT deleted;
-- One that serves: what a run by path means. It is the head, or the one before for as long as the head has no lock.
CREATE UNIQUE INDEX script_serving ON platform.script (workspace_id, path) WHERE serves;
CREATE INDEX script_history ON platform.script (workspace_id, path, created_at DESC);
CREATE INDEX script_newest ON platform.script (workspace_id, created_at DESC);
COMMENT ON TABLE platform.script IS 'Every version of every script, by the hash of its content.';
COMMENT ON COLUMN platform.script.lock IS 'What exactly is installed for it; NULL as long as nobody has found that out.';
COMMENT ON COLUMN platform.script.lock_job IS 'The job that was asked for the lock, where it was not clear at once.';

-- A flow lives at its path, which may change; what it does stands in its versions.
CREATE TABLE platform.flow (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id text NOT NULL REFERENCES platform.workspace (id) ON DELETE CASCADE,
    path         text NOT NULL,
    version      bigint,
    archived     boolean NOT NULL DEFAULT false,
    deleted      boolean NOT NULL DEFAULT false
);
CREATE UNIQUE INDEX flow_at_path ON platform.flow (workspace_id, path) WHERE NOT deleted;
COMMENT ON TABLE platform.flow IS 'Which version a path shows and runs; a deleted flow is kept for those of its jobs that go on.';
COMMENT ON COLUMN platform.flow.version IS 'The newest; NULL only within the transaction that makes the flow.';

-- Immutable: only the message ever changes, and locks are filled in once.
CREATE TABLE platform.flow_version (
    id                     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow_id                bigint NOT NULL REFERENCES platform.flow (id) ON DELETE CASCADE,
    summary                text NOT NULL,
    description            text NOT NULL,
    value                  json NOT NULL,
    schema                 json,
    locks                  json,
    lock_job               uuid,
    flows                  text[] NOT NULL DEFAULT '{}',
    tag                    text,
    labels                 text[] NOT NULL DEFAULT '{}',
    concurrent_limit       integer,
    concurrency_key        text,
    priority               smallint,
    timeout_s              integer,
    visible_to_runner_only boolean NOT NULL,
    cache_ttl_s            integer,
    erase_after_s          integer,
    has_preprocessor       boolean NOT NULL DEFAULT false,
    deployment_message     text,
    created_by             text NOT NULL,
    created_at             timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX flow_version_history ON platform.flow_version (flow_id, id DESC);
COMMENT ON TABLE platform.flow_version IS 'Every version of every flow.';
COMMENT ON COLUMN platform.flow_version.value IS 'OpenFlow, as it was sent.';
COMMENT ON COLUMN platform.flow_version.flows IS 'Paths of the flows that its steps name, so that a circle of flows is found.';
COMMENT ON COLUMN platform.flow_version.locks IS 'What exactly is installed for its own code, by module; NULL as long as nobody has found that out.';
COMMENT ON COLUMN platform.flow_version.lock_job IS 'The job that was asked for the locks, where there is something to find out.';

RESET ROLE;
