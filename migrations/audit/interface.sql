-- What the audit log publishes: its service may add and read, the api may read, nobody may change or delete.
SET ROLE tidemill_audit_owner;

CREATE OR REPLACE VIEW audit.published_entry AS
SELECT e.id, e.workspace_id, e.at, e.username, e.email, e.operation, e.action_kind, e.resource, e.parameters, e.span
FROM audit.entry e;

GRANT USAGE ON SCHEMA audit TO tidemill_api, tidemill_audit;
GRANT SELECT, INSERT ON audit.entry TO tidemill_audit;
GRANT SELECT ON audit.published_entry TO tidemill_api;

RESET ROLE;
