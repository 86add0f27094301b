-- depends:
SET LOCAL ROLE tidemill_bus_owner;

CREATE TABLE bus.kind (
    type     text PRIMARY KEY,
    exchange text NOT NULL,
    says     text[] NOT NULL
);
COMMENT ON TABLE bus.kind IS 'The catalog of messages; `tidemill migrate` copies it from shared/catalog.py.';

CREATE TABLE bus.outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    said_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    said_by     text NOT NULL,
    taken_until timestamptz,
    exchange    text NOT NULL,
    key         text NOT NULL,
    message_id  uuid NOT NULL,
    body        text NOT NULL,
    traceparent text
) WITH (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE bus.outbox IS 'Messages that were said in a committed transaction and are not yet confirmed by the broker.';

RESET ROLE;
