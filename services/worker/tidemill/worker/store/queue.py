"""The queue's interface as the worker calls it; every call may be repeated with the same key."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

from tidemill.chassis.database import Database, Executor
from tidemill.chassis.sql import load
from tidemill.shared.catalog import own_line
from tidemill.shared.script import Outcome

QUERIES = load(__package__, "queue.sql")


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One start of one worker process."""

    worker_run: UUID
    name: str
    instance: str
    group: str
    tags: tuple[str, ...]
    slots: int
    isolation: str
    version: str

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that this worker takes jobs from: those of its tags, and its own."""
        return (*self.tags, own_line(self.worker_run))


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job that is ours to run, and all that is needed to run it."""

    key: UUID
    id: UUID
    workspace_id: str
    kind: str
    path: str | None
    hash: str | None
    language: str
    code: str | None
    entrypoint: str | None
    args: str
    tag: str
    envs: list[str]
    timeout_s: int | None
    due_at: datetime
    parent_job: UUID | None
    root_job: UUID | None
    created_by: str
    permissioned_as: str
    email: str
    permissions: str
    claims: int
    reply_to: str | None
    traceparent: str | None
    token: str
    lock: str | None
    step_id: str | None
    root_flow: UUID | None
    """The highest flow around the job; outside of flows there is none."""
    flow_path: str | None
    shares_with: UUID | None
    """The flow whose steps all run here and share a folder."""
    rounds: int
    checkpointed: bool


class Verdict(StrEnum):
    """What a beat says of a claim."""

    KEEP = "keep"
    CANCEL = "cancel"
    DROP = "drop"
    SAID = "said"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is reported of a run besides its result."""

    outcome: Outcome
    worker: str
    memory_peak_kb: int | None = None
    labels: list[str] | None = None
    log_seq: int | None = None
    log_text: str | None = None
    log_units: int | None = None


class Answer(StrEnum):
    """What became of a report."""

    DONE = "done"
    ALREADY_DONE = "already_done"
    STALE = "stale"
    UNKNOWN = "unknown"
    SUSPENDED = "suspended"
    TOO_MANY_ROUNDS = "too_many_rounds"


async def register(database: Database, me: Identity) -> str:
    """Make this worker known; return what is to be published."""
    said: str = await database.fetchval(
        QUERIES.register,
        me.worker_run,
        me.name,
        me.instance,
        me.group,
        list(me.tags),
        me.slots,
        me.isolation,
        me.version,
    )
    return said


async def retire(database: Database, worker_run: UUID) -> None:
    """Forget this worker, which holds nothing any more."""
    await database.execute(QUERIES.retire, worker_run)


async def claim(database: Database, tags: Sequence[str], worker_run: UUID, key: UUID) -> Claim | None:
    """Return the best queued job of the tags, now ours under this key, or None."""
    row = await database.fetchrow(QUERIES.claim, list(tags), worker_run, key)
    return None if row is None else Claim(key=key, **row)


async def ended_flows(database: Database, ids: Sequence[UUID]) -> list[UUID]:
    """Return those of the flows that have ended."""
    ended: list[UUID] = await database.fetchval(QUERIES.ended_flows, list(ids))
    return ended


async def renew(
    database: Database, worker_run: UUID, held: Sequence[UUID], beat: timedelta, executed: int, draining: bool
) -> tuple[dict[UUID, Verdict], str | None]:
    """Return the verdict on each held claim, and what is to be published."""
    rows = await database.fetch(QUERIES.renew, worker_run, list(held), beat, executed, draining)
    said = next((row["said"] for row in rows if row["verdict"] == Verdict.SAID), None)
    return {row["claim_key"]: Verdict(row["verdict"]) for row in rows if row["claim_key"] is not None}, said


async def append_log(database: Database, claim: Claim, seq: int, text: str, units: int) -> bool:
    """Store a chunk of the log; return False when the claim is over."""
    kept: bool = await database.fetchval(QUERIES.append_log, claim.id, claim.key, seq, text, units)
    return kept


async def append_stream(database: Database, claim: Claim, seq: int, text: str, units: int) -> bool:
    """Store a chunk of the result that is streamed; return False when the claim is over."""
    kept: bool = await database.fetchval(QUERIES.append_stream, claim.id, claim.key, seq, text, units)
    return kept


async def finish(database: Executor, claim: Claim, report: Report, result: bytes | None) -> tuple[Answer, str | None]:
    """Store how the run ended; return what became of that, and what is to be published."""
    row = await database.fetchrow(
        QUERIES.finish,
        claim.id,
        claim.key,
        msgspec.json.encode(report).decode(),
        None if result is None else result.decode(),
    )
    assert row is not None
    return Answer(row["answer"]), row["said"]


async def release(database: Database, claim: Claim) -> str:
    """Give the job back unfinished; return what is to be published."""
    said: str = await database.fetchval(QUERIES.release, claim.id, claim.key)
    return said
