SET LOCAL ROLE tidemill_audit_owner;
DROP TABLE audit.entry CASCADE;
RESET ROLE;
