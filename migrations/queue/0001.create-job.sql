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
    code_hash        text,
    entrypoint       text,
    args             json NOT NULL,
    tag              text NOT NULL,
    priority         smallint NOT NULL,
    envs             text[] NOT NULL,
    timeout_s        integer,
    erase_after_s    integer,
    cache_key        text,
    cache_ttl_s      integer,
    limit_key        text,
    limit_ceiling    integer,
    due_at           timestamptz NOT NULL,
    parent_job       uuid,
    root_job         uuid,
    scope_job        uuid,
    step_id          text,
    trigger_kind     text,
    visible_to_owner boolean NOT NULL,
    created_at       timestamptz NOT NULL,
    created_by       text NOT NULL,
    permissioned_as  text NOT NULL,
    email            text NOT NULL,
    permissions      json NOT NULL,
    traceparent      text,
    restarted_from   json,
    early            json,
    PRIMARY KEY (id, born)
) PARTITION BY RANGE (born);
CREATE INDEX job_newest ON queue.job (workspace_id, born DESC, id DESC);
COMMENT ON TABLE queue.job IS 'What was asked for; one partition a day of `born`, the instant inside the job''s UUIDv7.';
COMMENT ON COLUMN queue.job.scope_job IS 'The innermost flow of its own around the job: whose value it walks and whose results its expressions see.';
COMMENT ON COLUMN queue.job.restarted_from IS 'Of a flow: the run that it takes up, and where.';
COMMENT ON COLUMN queue.job.step_id IS 'The module of the flow above that the job was made for.';
COMMENT ON COLUMN queue.job.early IS 'Of a flow: what answers those who wait for it, while it goes on.';
COMMENT ON COLUMN queue.job.cache_key IS 'Under which its result is kept for `cache_ttl_s`, if it ends well.';
COMMENT ON COLUMN queue.job.erase_after_s IS 'What it was given and leaves behind is erased so long after its end, or after that of the highest flow around it.';
COMMENT ON COLUMN queue.job.entrypoint IS 'The function to call; of a flownode, the body of the flow that it walks.';

-- Code that stands inside flows, kept once however many jobs run it.
CREATE TABLE queue.inline_code (
    hash      text PRIMARY KEY,
    code      text NOT NULL,
    lock      text,
    last_used date NOT NULL
);
COMMENT ON TABLE queue.inline_code IS 'Code and lock under the SHA-256 of both; goes when no job of the kept days can name it.';

-- How far a flow has come: one row a step. A plain step's row knows its job, a container's row counts its children.
CREATE TABLE queue.flow_step (
    flow_id        uuid NOT NULL,
    born           timestamptz NOT NULL,
    no             smallint NOT NULL,
    module         text NOT NULL,
    state          text NOT NULL,
    attempt        smallint NOT NULL DEFAULT 0,
    job_id         uuid,
    failed_job     uuid,
    failed_index   integer,
    outcome        text,
    ended_at       timestamptz,
    stopped        boolean,
    handled        boolean,
    failed_retries uuid[],
    total          integer,
    started        integer NOT NULL DEFAULT 0,
    ended          integer NOT NULL DEFAULT 0,
    failed         integer NOT NULL DEFAULT 0,
    branch         smallint,
    parallelism    integer,
    items          json,
    result         json,
    skipped        boolean,
    needed         smallint,
    since          timestamptz,
    until          timestamptz,
    conditions     json,
    names          json,
    PRIMARY KEY (flow_id, born, no),
    CHECK (state IN ('started', 'ended', 'waiting', 'success', 'failure'))
) PARTITION BY RANGE (born);
CREATE INDEX flow_step_ended ON queue.flow_step (ended_at) WHERE state = 'ended';
COMMENT ON TABLE queue.flow_step IS 'The steps of flows; `ended` is one of whose end the flow has not heard yet.';
COMMENT ON COLUMN queue.flow_step.no IS 'The place: -1 the preprocessor, 0 and on the modules, 32000 the failure module.';
COMMENT ON COLUMN queue.flow_step.stopped IS 'The job ended early by a stop that ends the loop around it as well.';
COMMENT ON COLUMN queue.flow_step.conditions IS 'While it waits: who may approve, and what they are asked for.';
COMMENT ON COLUMN queue.flow_step.names IS 'What only this step''s expressions see, such as what its approvers have said.';
COMMENT ON COLUMN queue.flow_step.handled IS 'The job failed and the failure module has run inside it.';

-- One row an iteration or branch.
CREATE TABLE queue.flow_child (
    flow_id    uuid NOT NULL,
    born       timestamptz NOT NULL,
    no         smallint NOT NULL,
    attempt    smallint NOT NULL,
    index      integer NOT NULL,
    job_id     uuid NOT NULL,
    state      text NOT NULL,
    outcome    text,
    started_at timestamptz,
    ended_at   timestamptz,
    stopped    boolean,
    handled    boolean,
    PRIMARY KEY (flow_id, born, no, attempt, index),
    CHECK (state IN ('started', 'ended', 'success', 'failure'))
) PARTITION BY RANGE (born);
CREATE INDEX flow_child_ended ON queue.flow_child (flow_id, ended_at) WHERE state = 'ended';
COMMENT ON TABLE queue.flow_child IS 'The jobs of loops and branches, in the order of their index.';

-- What approvers have said, each resume id once.
CREATE TABLE queue.flow_resume (
    flow_id   uuid NOT NULL,
    born      timestamptz NOT NULL,
    step_job  uuid,
    resume_id bigint NOT NULL,
    approver  text,
    approved  boolean NOT NULL,
    value     json NOT NULL,
    said_at   timestamptz NOT NULL,
    spent_on  smallint
) PARTITION BY RANGE (born);
CREATE UNIQUE INDEX flow_resume_once ON queue.flow_resume (flow_id, born, step_job, resume_id) NULLS NOT DISTINCT;
COMMENT ON TABLE queue.flow_resume IS 'Resumes and refusals; without a step''s job, for whichever step waits next.';
COMMENT ON COLUMN queue.flow_resume.spent_on IS 'The place of the step that waited for it.';

-- What the steps of a flow have put down for each other and for those who look.
CREATE TABLE queue.flow_state (
    flow_id uuid NOT NULL,
    born    timestamptz NOT NULL,
    key     text NOT NULL,
    value   json NOT NULL,
    PRIMARY KEY (flow_id, born, key)
) PARTITION BY RANGE (born);
COMMENT ON TABLE queue.flow_state IS 'Values that users keep with a flow, by name; few and small.';

-- How far a workflow written as code has come: one row a step, under the key that its own code gives it.
CREATE TABLE queue.workflow_step (
    workflow_id uuid NOT NULL,
    born        timestamptz NOT NULL,
    key         text NOT NULL,
    kind        text NOT NULL,
    state       text NOT NULL,
    name        text NOT NULL,
    asked_at    timestamptz NOT NULL,
    job_id      uuid,
    outcome     text,
    result      json,
    started_at  timestamptz,
    duration_ms bigint,
    ended_at    timestamptz,
    until       timestamptz,
    PRIMARY KEY (workflow_id, born, key),
    CHECK (kind IN ('task', 'inline', 'sleep', 'approval', 'call')),
    CHECK (state IN ('waiting', 'called', 'ended', 'done'))
) PARTITION BY RANGE (born);
CREATE INDEX workflow_step_waiting ON queue.workflow_step (workflow_id) WHERE state = 'waiting';
CREATE INDEX workflow_step_ended ON queue.workflow_step (ended_at) WHERE state = 'ended';
COMMENT ON TABLE queue.workflow_step IS 'The steps of workflows written as code; `ended` is one of whose end the workflow has not heard yet.';
COMMENT ON COLUMN queue.workflow_step.kind IS 'A task is a job of its own, an inline step ran in the workflow''s own job, a call is a job that its caller waits for; what an approval waits for stands in flow_step.';
COMMENT ON COLUMN queue.workflow_step.result IS 'Of a step without a job; a task''s is that of its job.';

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

-- What is to be erased of jobs that have ended.
CREATE TABLE queue.erasure (
    job_id    uuid PRIMARY KEY,
    due_at    timestamptz NOT NULL,
    root_flow uuid,
    after_s   integer NOT NULL
);
CREATE INDEX erasure_due ON queue.erasure (due_at);
CREATE INDEX erasure_of_flow ON queue.erasure (root_flow) WHERE root_flow IS NOT NULL;
COMMENT ON TABLE queue.erasure IS 'Ended jobs whose arguments, result and log go before their day does.';
COMMENT ON COLUMN queue.erasure.root_flow IS 'The flow whose end is awaited; until then `due_at` says when to look whether it is still there.';

-- Results that answer the same request again.
CREATE TABLE queue.cached_result (
    key        text PRIMARY KEY,
    result     json NOT NULL,
    job_id     uuid NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX cached_result_expiry ON queue.cached_result (expires_at);
COMMENT ON TABLE queue.cached_result IS 'Results of at most 1 MiB under the key that tells what was run with which arguments, and the job that gave them.';

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
    parent_job       uuid,
    root_job         uuid,
    flow_born        timestamptz,
    step_no          smallint,
    step_index       integer,
    task_key         text,
    replays          boolean NOT NULL DEFAULT false,
    rounds           smallint NOT NULL DEFAULT 0,
    began_at         timestamptz,
    version          integer NOT NULL DEFAULT 0,
    at_step          smallint,
    wake_at          timestamptz,
    deadline_at      timestamptz,
    progress         smallint,
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
    epilogue         boolean NOT NULL DEFAULT false,
    shares_with      uuid,
    depth            smallint NOT NULL DEFAULT 0,
    CHECK (state IN ('scheduled', 'blocked', 'queued', 'running', 'suspended', 'success', 'failure', 'canceled', 'skipped')),
    CHECK ((state = 'running') = (claim_key IS NOT NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE queue.live_job IS 'The state of every unfinished job; the row leaves when the job ends.';
COMMENT ON COLUMN queue.live_job.flow_born IS 'Where the rows of the flow lie that the job is a step of.';
COMMENT ON COLUMN queue.live_job.task_key IS 'Of a task of a workflow written as code: the step that it is.';
COMMENT ON COLUMN queue.live_job.replays IS 'Of such a task: it runs the workflow''s own code, for this one step.';
COMMENT ON COLUMN queue.live_job.rounds IS 'Of a workflow written as code: how often it has asked for steps and made room.';
COMMENT ON COLUMN queue.live_job.began_at IS 'Of a workflow written as code: when its first round began.';
COMMENT ON COLUMN queue.live_job.version IS 'Of a flow or workflow: how often it was changed; who decides on a flow has to name what was read.';
COMMENT ON COLUMN queue.live_job.at_step IS 'Of a flow: the place of the step that it has come to.';
COMMENT ON COLUMN queue.live_job.wake_at IS 'Of a flow: when it has to be looked at, whatever happens.';
COMMENT ON COLUMN queue.live_job.shares_with IS 'The flow whose worker and folder the job shares.';
COMMENT ON COLUMN queue.live_job.depth IS 'How many flows it runs inside of, other than the one that it belongs to.';
COMMENT ON COLUMN queue.live_job.epilogue IS 'More follows its end: its result is kept for others, or what it leaves behind is erased.';
COMMENT ON COLUMN queue.live_job.progress IS 'In percent, as the job itself tells it.';
COMMENT ON COLUMN queue.live_job.urgency IS 'The negative of the priority, so that one ascending index order serves the claim.';
COMMENT ON COLUMN queue.live_job.rank IS 'Place in the fair line, in milliseconds since 1970: a workspace with a long line queues behind its own.';

CREATE INDEX live_job_claim ON queue.live_job (tag, urgency, rank, id) WHERE state = 'queued';
CREATE INDEX live_job_line ON queue.live_job (tag, workspace_id, urgency, rank) WHERE state = 'queued';
CREATE INDEX live_job_due ON queue.live_job (due_at) WHERE state = 'scheduled';
CREATE INDEX live_job_wake ON queue.live_job (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX live_job_children ON queue.live_job (parent_job) WHERE parent_job IS NOT NULL;
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

-- Which worker process runs the steps of a flow that wants one worker for all of them.
CREATE TABLE queue.flow_worker (
    flow_id    uuid PRIMARY KEY,
    worker_run uuid NOT NULL
);
COMMENT ON TABLE queue.flow_worker IS 'Flows of which all steps run on one worker, and who that is since the first one was claimed.';

-- Keys that sign job tokens, as the two padded blocks of HMAC (RFC 2104), because the server has no pgcrypto.
CREATE TABLE queue.token_key (
    no         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    inner_pad  bytea NOT NULL,
    outer_pad  bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE queue.token_key IS 'Keys that sign job tokens; nobody but the functions of this schema reads them.';

-- The key that signs approval URLs. There is one, and it stays: a URL may have to be good for a year.
CREATE TABLE queue.approval_key (
    no         smallint PRIMARY KEY DEFAULT 1 CHECK (no = 1),
    inner_pad  bytea NOT NULL,
    outer_pad  bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE queue.approval_key IS 'The key that signs approval URLs; nobody but the functions of this schema reads it.';

RESET ROLE;
