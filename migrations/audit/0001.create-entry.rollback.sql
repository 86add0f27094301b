SET LOCAL ROLE tidemill_audit_owner;
DROP TABLE audit.anchor, audit.entry, audit.heard, audit.chain CASCADE;
DROP SEQUENCE audit.entry_id;
RESET ROLE;
