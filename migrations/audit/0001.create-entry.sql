-- depends: 0001.create-outbox
SET LOCAL ROLE tidemill_audit_owner;

CREATE TABLE audit.entry (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id     uuid NOT NULL UNIQUE,
    workspace_id text NOT NULL,
    at           timestamptz NOT NULL,
    username     text NOT NULL,
    email        text NOT NULL,
    operation    text NOT NULL,
    action_kind  text NOT NULL,
    resource     text NOT NULL,
    parameters   json NOT NULL,
    span         text
);
CREATE INDEX entry_newest ON audit.entry (workspace_id, id DESC);
COMMENT ON TABLE audit.entry IS 'Who did what, one row an event; nobody may change or delete one.';

RESET ROLE;
