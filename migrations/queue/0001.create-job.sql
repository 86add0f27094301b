-- depends: 0001.create-outbox
SET LOCAL ROLE tidemill_queue_owner;

-- What was asked for. Inserted once, never updated, except that an admin may have the arguments forgotten.
CREATE TABLE queue.job (
    id               uuid NOT NULL,
    born             timestamptz NOT NULL,
    workspace_id     text NOT NULL,
    kind             text NOT NULL,
    path             text,
    hash             text,
    language         text NOT NULL,
    code             text,
    entrypoint       text,
    args             json NOT NULL,
    tag              text NOT NULL,
    priority         smallint NOT NULL,
    envs             text[] NOT NULL,
    timeout_s        integer,
    limit_key        text,
    limit_ceiling    integer,
    due_at           timestamptz NOT NULL,
    parent_job       uuid,
    root_job         uuid,
    trigger_kind     text,
    visible_to_owner boolean NOT NULL,
    created_at       timestamptz NOT NULL,
    created_by       text NOT NULL,
    permissioned_as  text NOT NULL,
    email            text NOT NULL,
    permissions      json NOT NULL,
    traceparent      text,
    PRIMARY KEY (id, born)
) PARTITION BY RANGE (born);
CREATE INDEX job_newest ON queue.job (workspace_id, born DESC, id DESC);
COMMENT ON TABLE queue.job IS 'What was asked for; one partition a day of `born`, the instant inside the job''s UUIDv7.';

-- How it ended. Inserted once, except that an admin may have the result forgotten.
CREATE TABLE queue.finished_job (
    id              uuid NOT NULL,
    born            timestamptz NOT NULL,
    outcome         text NOT NULL,
    result          json,
    started_at      timestamptz,
    finished_at     timestamptz NOT NULL,
    worker          text,
    claim_key       uuid,
    claims          smallint NOT NULL,
    canceled_by     text,
    canceled_reason text,
    memory_peak_kb  integer,
    labels          text[],
    deleted         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, born)
) PARTITION BY RANGE (born);
CREATE INDEX finished_job_labels ON queue.finished_job USING gin (labels) WHERE labels IS NOT NULL;
COMMENT ON TABLE queue.finished_job IS 'How jobs ended; the claim key is the one that was allowed to say so.';

-- What it printed, and apart from that what it `streamed` of its result before the end. `units` are UTF-16 code units, because clients count their offsets in them.
CREATE TABLE queue.log_chunk (
    job_id   uuid NOT NULL,
    born     timestamptz NOT NULL,
    claim_no smallint NOT NULL,
    streamed boolean NOT NULL DEFAULT false,
    seq      integer NOT NULL,
    units    integer NOT NULL,
    text     text NOT NULL,
    PRIMARY KEY (job_id, born, streamed, claim_no, seq)
) PARTITION BY RANGE (born);
COMMENT ON TABLE queue.log_chunk IS 'What jobs printed or streamed, each in order of (claim_no, seq).';

-- Jobs whose rows do not lie in the partition that their id would tell: ids chosen by the caller, and rows that
-- retention had to move on.
CREATE TABLE queue.displaced_job (
    id   uuid PRIMARY KEY,
    born timestamptz NOT NULL
);
COMMENT ON TABLE queue.displaced_job IS 'Where the rows of a job lie when its id does not tell.';

-- The hot table: unfinished jobs only.
CREATE TABLE queue.live_job (
    id               uuid PRIMARY KEY,
    born             timestamptz NOT NULL,
    workspace_id     text NOT NULL,
    state            text NOT NULL,
    tag              text NOT NULL,
    urgency          smallint NOT NULL,
    rank             bigint NOT NULL,
    due_at           timestamptz NOT NULL,
    limit_key        text,
    limit_ceiling    integer,
    holds_limit      boolean NOT NULL DEFAULT false,
    root_job         uuid,
    claim_key        uuid,
    claims           smallint NOT NULL DEFAULT 0,
    lost_claims      smallint NOT NULL DEFAULT 0,
    worker_run       uuid,
    claimed_at       timestamptz,
    cancel_at        timestamptz,
    cancel_by        text,
    cancel_reason    text,
    hinted_at        timestamptz,
    hints            smallint NOT NULL DEFAULT 0,
    reply_to         text,
    traceparent      text,
    CHECK (state IN ('scheduled', 'blocked', 'queued', 'running', 'suspended', 'success', 'failure', 'canceled', 'skipped')),
    CHECK ((state = 'running') = (claim_key IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE queue.live_job IS 'The state of every unfinished job; the row leaves when the job ends.';
COMMENT ON COLUMN queue.live_job.urgency IS 'The negative of the priority, so that one ascending index order serves the claim.';
COMMENT ON COLUMN queue.live_job.rank IS 'Place in the fair line, in milliseconds since 1970: a workspace with a long line queues behind its own.';

CREATE INDEX live_job_claim ON queue.live_job (tag, urgency, rank, id) WHERE state = 'queued';
CREATE INDEX live_job_line ON queue.live_job (tag, workspace_id, urgency, rank) WHERE state = 'queued';
CREATE INDEX live_job_due ON queue.live_job (due_at) WHERE state = 'scheduled';
CREATE INDEX live_job_blocked ON queue.live_job (limit_key, urgency, rank, id) WHERE state = 'blocked';
CREATE INDEX live_job_holders ON queue.live_job (limit_key) WHERE holds_limit;
CREATE INDEX live_job_of_worker ON queue.live_job (worker_run) WHERE state = 'running';
CREATE UNIQUE INDEX live_job_claim_key ON queue.live_job (claim_key) WHERE claim_key IS NOT NULL;

-- Requests that name a key of their own: the same one again is the same job, as long as the key is remembered.
CREATE TABLE queue.request_key (
    workspace_id text NOT NULL,
    caller       text NOT NULL,
    key          text NOT NULL,
    digest       text NOT NULL,
    job_id       uuid NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, caller, key)
);
CREATE INDEX request_key_expiry ON queue.request_key (expires_at);
COMMENT ON TABLE queue.request_key IS 'Which job a caller''s own key has led to, and the digest of what was asked for.';

-- Workspaces in which nothing runs any more, because they were archived or deleted.
CREATE TABLE queue.closed_workspace (
    workspace_id text PRIMARY KEY
);
COMMENT ON TABLE queue.closed_workspace IS 'Workspaces of which no job is taken; what was unfinished was canceled when they were closed.';

-- The lock of a concurrency limit: whoever counts holders of a key or changes them holds this row.
CREATE TABLE queue.limit_key (
    key text PRIMARY KEY
);
COMMENT ON TABLE queue.limit_key IS 'One row a concurrency key; locking it is the right to count and change the holders.';

-- One row a worker process: a lease is this row's beat, so a beat touches one row however many jobs are held.
CREATE TABLE queue.worker (
    worker_run    uuid PRIMARY KEY,
    name          text NOT NULL,
    instance      text NOT NULL,
    worker_group  text NOT NULL,
    tags          text[] NOT NULL,
    slots         integer NOT NULL,
    isolation     text NOT NULL,
    version       text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    draining      boolean NOT NULL DEFAULT false,
    jobs_executed bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
COMMENT ON TABLE queue.worker IS 'Worker processes and their last sign of life.';

-- Keys that sign job tokens, as the two padded blocks of HMAC (RFC 2104), because the server has no pgcrypto.
CREATE TABLE queue.token_key (
    no         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    inner_pad  bytea NOT NULL,
    outer_pad  bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE queue.token_key IS 'Keys that sign job tokens; nobody but the functions of this schema reads them.';

RESET ROLE;
