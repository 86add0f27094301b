-- depends: 0001.create-outbox
SET LOCAL ROLE tidemill_audit_owner;

CREATE TABLE audit.chain (
    workspace_id text PRIMARY KEY,
    seq          bigint NOT NULL,
    hash         bytea NOT NULL,
    recorded_at  timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE audit.chain IS 'The newest entry of each workspace; whoever appends holds this row, so that a chain never forks.';

CREATE TABLE audit.heard (
    event_id    uuid PRIMARY KEY,
    recorded_at timestamptz NOT NULL
);
COMMENT ON TABLE audit.heard IS 'Which events were written down: a partitioned table can''t hold an id unique across its days.';

CREATE SEQUENCE audit.entry_id;

CREATE TABLE audit.entry (
    id            bigint NOT NULL,
    workspace_id  text NOT NULL,
    seq           bigint NOT NULL,
    event_id      uuid NOT NULL,
    recorded_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    at            timestamptz NOT NULL,
    username      text NOT NULL,
    email         text NOT NULL,
    operation     text NOT NULL,
    action_kind   text NOT NULL,
    resource      text NOT NULL,
    parameters    json NOT NULL,
    span          text,
    previous_hash bytea NOT NULL,
    hash          bytea NOT NULL,
    PRIMARY KEY (id, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX entry_newest ON audit.entry (workspace_id, id DESC);
CREATE INDEX entry_chain ON audit.entry (workspace_id, seq, id);
COMMENT ON TABLE audit.entry IS 'Who did what, one row an event, each with the hash of the one before it; nobody may change or delete one.';
COMMENT ON COLUMN audit.entry.seq IS 'Place in the chain of its workspace, from 1 on without gaps';
COMMENT ON COLUMN audit.entry.recorded_at IS 'When it was written down; one partition a day of it';
COMMENT ON COLUMN audit.entry.hash IS 'SHA-256 of the previous hash and all other columns';

CREATE TABLE audit.anchor (
    workspace_id text NOT NULL,
    seq          bigint NOT NULL,
    is_floor     boolean NOT NULL,
    hash         bytea NOT NULL,
    at           timestamptz NOT NULL,
    signature    bytea NOT NULL,
    PRIMARY KEY (workspace_id, seq, is_floor)
);
COMMENT ON TABLE audit.anchor IS 'What a chain was at some moment, signed by a key that is not in the database.';
COMMENT ON COLUMN audit.anchor.is_floor IS 'Whether retention has dropped the rows up to this one';

RESET ROLE;
