"""The queue as its callers see it: every call goes through the login role that may make it.

    queue = Queue(...)                                  # fixture `queue` in tests/integration/queue
    job = await queue.request(a_job(tag="bash"))
    claim = await queue.claim("bash")
    assert await queue.finish(claim) == "done"

`queue.look` asks as the superuser, for what no service may see.
"""

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg

from tests.support.database import DatabaseUrls
from tidemill.shared.catalog import Service
from tidemill.shared.ids import new_job_id

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Request: TypeAlias = dict[str, Any]

TAKEN, NO_PARENT, ROOT_CANCELED, NO_SUCH_WORKER, BAD_TRANSITION = (f"TM00{number}" for number in range(1, 6))
LONG_AGO = timedelta(hours=1)
"""How long a scheduler has been connected, when that must not matter."""
AT_ONCE = timedelta(0)
"""A lease that is over as soon as it is looked at."""
NEVER = timedelta(days=1)
"""A lease that does not end during a test."""

_TABLES = (
    "flow_worker",
    "cached_result",
    "erasure",
    "live_job",
    "finished_job",
    "workflow_step",
    "log_chunk",
    "displaced_job",
    "job",
    "limit_key",
    "worker",
    "closed_workspace",
)


def a_job(**changes: Any) -> Request:
    """Return a request for a small script, with whatever the test cares about."""
    asked: Request = {
        "id": new_job_id(),
        "chosen_id": False,
        "workspace_id": "w",
        "kind": "script",
        "path": "f/folder/script",
        "language": "python3",
        "tag": "python3",
        "envs": [],
        "created_by": "ann",
        "permissioned_as": "u/ann",
        "email": "ann@example.com",
        "permissions": {"is_admin": False},
    }
    return asked | changes


def an_audit_event(operation: str = "jobs.run") -> Mapping[str, Any]:
    """Return something to be said in the same transaction as a request."""
    return {"type": "audit.recorded.v1", "key": f"audit.{operation}", "data": {"operation": operation}}


@dataclass(frozen=True)
class Claim:
    """One run of one job by one worker process."""

    job_id: uuid.UUID
    key: uuid.UUID
    run: uuid.UUID
    row: asyncpg.Record


@dataclass(frozen=True)
class Canceled:
    """What a caller is told who cancels a job."""

    answer: str
    worker_run: uuid.UUID | None
    reply_to: str | None
    said: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Tick:
    """What one look of the scheduler has done."""

    said: Sequence[Mapping[str, Any]]
    stranded: Sequence[Mapping[str, Any]]
    ended: Sequence[Mapping[str, Any]]
    dispatched: int
    requeued: int
    failed: int
    stale_tags: Sequence[str]
    next_due_in: timedelta | None


class Queue:
    """Every function of migrations/queue/interface.sql as a method."""

    def __init__(self, pools: Mapping[Service, Pool], admin: Pool) -> None:
        self._pools = pools
        self.look = admin
        self.api = pools[Service.API]
        self.worker = pools[Service.WORKER]
        self.scheduler = pools[Service.SCHEDULER]
        self.run = uuid.uuid4()
        """The worker process that claims when a test does not name one."""

    async def empty(self) -> None:
        """Forget all jobs, workers and messages."""
        await self.look.execute("; ".join(f"DELETE FROM queue.{table}" for table in (*_TABLES,)))
        await self.look.execute("DELETE FROM bus.outbox")

    async def request(
        self, asked: Request, *, args: Any = None, also: Sequence[Any] | None = None, by: Service = Service.API
    ) -> uuid.UUID:
        """Ask for the job and return its id."""
        await self.ask(asked, args=args, also=also, by=by)
        return uuid.UUID(str(asked["id"]))

    async def ask(
        self, asked: Request, *, args: Any = None, also: Sequence[Any] | None = None, by: Service = Service.API
    ) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """Ask for the job and return its state and what was said."""
        row = await self._pools[by].fetchrow(
            "SELECT * FROM queue.request_job($1, $2, $3)",
            json.dumps(asked, default=_plain),
            json.dumps(args if args is not None else {}),
            None if also is None else json.dumps(also),
        )
        assert row is not None
        return row["state"], json.loads(row["said"])

    async def start_worker(self, *tags: str, run: uuid.UUID | None = None, slots: int = 2) -> uuid.UUID:
        """Announce a worker process and return its run."""
        run = run or self.run
        await self.worker.fetchval(
            "SELECT queue.register_worker($1, 'worker', 'host', 'default', $2, $3, 'full', '0.1.0')",
            run,
            list(tags) or ["python3"],
            slots,
        )
        return run

    async def retire_worker(self, run: uuid.UUID | None = None) -> None:
        """Say that a worker process has gone in good order."""
        await self.worker.execute("SELECT queue.retire_worker($1)", run or self.run)

    async def claim(
        self, *tags: str, run: uuid.UUID | None = None, key: uuid.UUID | None = None, by: Any = None
    ) -> Claim | None:
        """Claim the best job of these tags (`python3` when none is named); `by` is a connection of the worker's."""
        run, key = run or self.run, key or uuid.uuid4()
        row = await (by or self.worker).fetchrow(
            "SELECT * FROM queue.claim_job($1, $2, $3)", list(tags) or ["python3"], run, key
        )
        return None if row is None else Claim(row["id"], key, run, row)

    async def claimed(self, *tags: str, run: uuid.UUID | None = None) -> Claim:
        """Claim a job that is known to be there."""
        claim = await self.claim(*tags, run=run)
        assert claim is not None
        return claim

    async def a_claim(self, **changes: Any) -> Claim:
        """Ask for a job and claim it."""
        await self.request(a_job(**changes))
        return await self.claimed(changes.get("tag", "python3"))

    async def renew(
        self, *held: Claim, run: uuid.UUID | None = None, beat: timedelta = NEVER, draining: bool = False
    ) -> dict[uuid.UUID | None, str]:
        """Beat once and return the verdict for each claim key; None stands for what was said."""
        rows = await self.worker.fetch(
            "SELECT * FROM queue.renew($1, $2, $3, 0, $4)", run or self.run, [each.key for each in held], beat, draining
        )
        return {row["claim_key"]: row["verdict"] for row in rows}

    async def append_log(self, claim: Claim, seq: int, text: str) -> bool:
        """Store a chunk of the log and return whether the claim still stands."""
        stored: bool = await self.worker.fetchval(
            "SELECT queue.append_log($1, $2, $3, $4, $5)", claim.job_id, claim.key, seq, text, len(text)
        )
        return stored

    async def finish(
        self, claim: Claim, outcome: str = "success", result: Any = None, by: Any = None, **ending: Any
    ) -> str:
        """Say how a run ended and return the answer."""
        return (await self.finish_and_hear(claim, outcome, result, by, **ending))[0]

    async def finish_and_hear(
        self, claim: Claim, outcome: str = "success", result: Any = None, by: Any = None, **ending: Any
    ) -> tuple[str, Sequence[Mapping[str, Any]]]:
        """Say how a run ended and return the answer and what was said."""
        row = await (by or self.worker).fetchrow(
            "SELECT * FROM queue.finish_job($1, $2, $3, $4)",
            claim.job_id,
            claim.key,
            json.dumps({"outcome": outcome, "worker": "worker"} | ending),
            json.dumps(result),
        )
        assert row is not None
        return row["answer"], json.loads(row["said"] or "[]")

    async def release(self, claim: Claim, by: Any = None) -> Sequence[Mapping[str, Any]]:
        """Give a claimed job back and return what was said."""
        said: list[Mapping[str, Any]] = json.loads(
            await (by or self.worker).fetchval("SELECT queue.release_job($1, $2)", claim.job_id, claim.key)
        )
        return said

    async def suspend(self, claim: Claim, asked: Mapping[str, Any], by: Any = None) -> str:
        """Say what a round of a workflow asks for and return the answer."""
        answer: str = await (by or self.worker).fetchval(
            "SELECT answer FROM queue.suspend_workflow($1, $2, $3, '{}')",
            claim.job_id,
            claim.key,
            json.dumps(asked, default=_plain),
        )
        return answer

    async def checkpoint(self, claim: Claim) -> tuple[Mapping[str, Any], Any]:
        """Return what a round begins with, and the workflow's arguments for one of a task."""
        row = await self.worker.fetchrow("SELECT * FROM queue.read_checkpoint($1, $2)", claim.job_id, claim.key)
        assert row is not None
        return json.loads(row["checkpoint"]), None if row["args"] is None else json.loads(row["args"])

    async def resume(self, job_id: uuid.UUID) -> asyncpg.Record | None:
        """Let a workflow go on if nothing keeps it."""
        return await self.scheduler.fetchrow("SELECT * FROM queue.resume_workflow($1)", job_id)

    async def cancel(
        self,
        job_id: uuid.UUID,
        *,
        force: bool = False,
        reason: str | None = "because",
        workspace: str = "w",
        also: Sequence[Any] | None = None,
    ) -> Canceled:
        """Cancel a job."""
        row = await self.api.fetchrow(
            "SELECT * FROM queue.cancel_job($1, $2, 'bob', $3, $4, $5)",
            workspace,
            job_id,
            reason,
            force,
            None if also is None else json.dumps(also),
        )
        assert row is not None
        return Canceled(row["answer"], row["worker_run"], row["reply_to"], json.loads(row["said"] or "[]"))

    async def explain(self, job_id: uuid.UUID, workspace: str = "w") -> Mapping[str, Any] | None:
        """Ask why a job is not running."""
        answer = await self.api.fetchval("SELECT queue.explain_job($1, $2)", workspace, job_id)
        return None if answer is None else json.loads(answer)

    async def verify(self, token: str) -> asyncpg.Record | None:
        """Ask whom a job's token speaks for."""
        return await self.api.fetchrow("SELECT * FROM queue.verify_job_token($1)", token)

    async def tick(
        self,
        *,
        connected_for: timedelta = LONG_AGO,
        lease: timedelta = NEVER,
        beat: timedelta = AT_ONCE,
        limit: int = 100,
    ) -> Tick:
        """Look once as the scheduler does; no lease is over unless the test says how long one is."""
        row = await self.scheduler.fetchrow(
            "SELECT * FROM queue.tick($1, $2, $3, $4)", connected_for, lease, beat, limit
        )
        assert row is not None
        return Tick(**{name: json.loads(value) if name in _JSON else value for name, value in row.items()})

    async def rehint(self, tag: str, ready: int = 0, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """Ask for new tickets for a tag of which the broker holds `ready`."""
        said: list[Mapping[str, Any]] = json.loads(
            await self.scheduler.fetchval("SELECT queue.rehint($1, $2, $3)", tag, ready, limit)
        )
        return said

    async def prepare_days(self, ahead: int) -> int:
        """Make the partitions of the days ahead."""
        ready: int = await self.scheduler.fetchval("SELECT queue.prepare_days($1)", ahead)
        return ready

    async def days_before(self, before: datetime) -> list[date]:
        """Return the days that retention may look at."""
        return [row[0] for row in await self.scheduler.fetch("SELECT queue.days_before($1)", before)]

    async def move_on(self, day: date, finished_before: datetime, limit: int = 100) -> int:
        """Move on what must outlive the day's partitions, and return how much it was."""
        moved: int = await self.scheduler.fetchval("SELECT queue.move_on($1, $2, $3)", day, finished_before, limit)
        return moved

    async def state_of(self, job_id: uuid.UUID) -> str | None:
        """Return the state of a job as the api sees it, or None when there is no such job."""
        state: str | None = await self.api.fetchval(
            "SELECT state FROM queue.any_job WHERE id = $1 AND born = (SELECT queue.locate($1))", job_id
        )
        return state

    async def job(self, job_id: uuid.UUID) -> asyncpg.Record:
        """Return all that the api may know of a job."""
        row = await self.api.fetchrow(
            "SELECT * FROM queue.any_job WHERE id = $1 AND born = (SELECT queue.locate($1))", job_id
        )
        assert row is not None
        return row

    async def live(self, job_id: uuid.UUID) -> asyncpg.Record:
        """Return the row of an unfinished job."""
        row = await self.look.fetchrow("SELECT * FROM queue.live_job WHERE id = $1", job_id)
        assert row is not None
        return row

    async def until_somebody_waits(self) -> None:
        """Return when a statement waits for a lock of another."""
        await self.look.execute(
            "DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted) LOOP"
            " PERFORM pg_sleep(0.002); END LOOP; END $$"
        )

    async def outbox(self) -> list[asyncpg.Record]:
        """Return all messages that nobody has confirmed."""
        return await self.look.fetch("SELECT * FROM bus.outbox ORDER BY id")


_JSON = {"said", "stranded", "ended"}


@asynccontextmanager
async def queue_of(urls: DatabaseUrls, connections: int = 8) -> AsyncIterator[Queue]:
    """Log in as every service for the block."""
    async with AsyncExitStack() as stack:
        pools = {
            service: await stack.enter_async_context(_pool(urls[service], connections))
            for service in (Service.API, Service.WORKER, Service.SCHEDULER)
        }
        yield Queue(pools, await stack.enter_async_context(_pool(urls.admin, 2)))


def _pool(url: str, connections: int) -> Pool:
    return asyncpg.create_pool(url, min_size=0, max_size=connections, command_timeout=30)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
