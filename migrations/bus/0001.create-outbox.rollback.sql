SET LOCAL ROLE tidemill_bus_owner;
DROP TABLE bus.outbox;
DROP TABLE bus.kind;
RESET ROLE;
