"""Flows on a real queue and a real scheduler, with a worker that runs one-line functions at once.

    stage = Stage(...)                                  # fixture `stage` in tests/integration/scheduler
    ended = await stage.run(flow(step("a", "lambda x: x + 1", x=1)))
    assert ended.result == 2

The code of a step is a lambda of the step's arguments; whatever it raises is the failure of its job.
"""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.queue import Claim, Queue, a_job
from tests.support.waiting import eventually
from tidemill.chassis.broker import Broker, Delivery, Outgoing
from tidemill.shared.catalog import tickets

TAGS = ("python3", "bash", "slow")
NOT_GIVEN = object()


@dataclass(frozen=True)
class Finished:
    """How a job ended."""

    id: uuid.UUID
    outcome: str
    result: Any


def expr(source: str) -> dict[str, Any]:
    """Return an input that an expression makes."""
    return {"type": "javascript", "expr": source}


def _transform(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) and "type" in value else {"type": "static", "value": value}


def step(module_id: str, code: str, *, options: Mapping[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    """Return a module of code; an input that is no transform is a static value."""
    transforms = {name: _transform(value) for name, value in inputs.items()}
    value = {"type": "rawscript", "content": code, "language": "python3", "input_transforms": transforms}
    return {"id": module_id, "value": value, **(options or {})}


def loop(module_id: str, items: Any, *modules: Any, options: Mapping[str, Any] | None = None, **how: Any) -> Any:
    """Return a module that goes over a list."""
    value = {"type": "forloopflow", "iterator": _transform(items), "modules": modules, "skip_failures": False, **how}
    return {"id": module_id, "value": value, **(options or {})}


def while_loop(module_id: str, *modules: Any, options: Mapping[str, Any] | None = None, **how: Any) -> Any:
    """Return a module that goes on until it is stopped."""
    value = {"type": "whileloopflow", "modules": modules, "skip_failures": False, **how}
    return {"id": module_id, "value": value, **(options or {})}


def branch_one(
    module_id: str, *cases: tuple[str, Sequence[Any]], default: Sequence[Any] = (), options: Any = None
) -> Any:
    """Return a module that takes the first case that is true."""
    branches = [{"expr": source, "modules": modules} for source, modules in cases]
    return {
        "id": module_id,
        "value": {"type": "branchone", "branches": branches, "default": default},
        **(options or {}),
    }


def branch_all(
    module_id: str, *branches: Sequence[Any], parallel: bool = False, skip: bool = False, options: Any = None
) -> Any:
    """Return a module that takes every branch."""
    listed = [{"modules": modules, "skip_failure": skip} for modules in branches]
    return {
        "id": module_id,
        "value": {"type": "branchall", "branches": listed, "parallel": parallel},
        **(options or {}),
    }


def flow(*modules: Any, **options: Any) -> dict[str, Any]:
    """Return the value of a flow."""
    return {"modules": list(modules), **options}


class Stage:
    """A queue, a scheduler and a worker."""

    def __init__(self, queue: Queue, broker: Broker, slots: int) -> None:
        self.queue = queue
        self.broker = broker
        self.ran: Counter[str] = Counter()
        """How often the step of each module was run."""
        self.most_at_once = 0
        self._at_once = 0
        self._slots = asyncio.Semaphore(slots)
        self.held: asyncio.Event = asyncio.Event()
        """Cleared, it holds every run up before its end."""
        self.held.set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def request(
        self, value: Mapping[str, Any], args: Mapping[str, Any] | None = None, **changes: Any
    ) -> uuid.UUID:
        """Ask for a flow and return its id."""
        asked = a_job(**{"kind": "flowpreview", "code": json.dumps(value), "language": "", "tag": "flow", **changes})
        asked["permissions"] = changes.get("permissions", {"username": "ann", "is_admin": False})
        _, said = await self.queue.ask(asked, args=args or {})
        self.publish(said)
        return uuid.UUID(str(asked["id"]))

    async def run(self, value: Mapping[str, Any], args: Mapping[str, Any] | None = None, **changes: Any) -> Finished:
        """Ask for a flow and wait for its end."""
        return await self.end_of(await self.request(value, args, **changes))

    async def end_of(self, job_id: uuid.UUID, patience: float = 20) -> Finished:
        """Wait for a job's end."""

        async def look() -> Any:
            return await self.queue.look.fetchrow(
                "SELECT outcome, result FROM queue.finished_job WHERE id = $1", job_id
            )

        row = await eventually(look, patience)
        return Finished(job_id, row["outcome"], None if row["result"] is None else json.loads(row["result"]))

    async def deploy_script(self, path: str, code: str, **columns: Any) -> str:
        """Put a version of a script where steps find it and return its hash."""
        row = {
            "workspace_id": "w", "hash": uuid.uuid4().hex[:16], "path": path, "parent_hashes": [], "summary": "",
            "description": "", "content": code, "language": "python3", "kind": "script", "lock": "",
            "is_template": False, "visible_to_runner_only": False, "dedicated_worker": False, "created_by": "ann",
            "serves": True,
        }  # fmt: skip
        await self._insert("platform.script", {**row, **columns})
        return str(row["hash"])

    async def deploy_flow(self, path: str, value: Mapping[str, Any], **columns: Any) -> int:
        """Put a version of a flow where steps find it and return its number."""
        flow_id = await self._insert("platform.flow", {"workspace_id": "w", "path": path}, "id")
        row = {
            "flow_id": flow_id, "summary": "", "description": "", "value": json.dumps(value), "locks": "{}",
            "visible_to_runner_only": False, "created_by": "ann",
        }  # fmt: skip
        version: int = await self._insert("platform.flow_version", {**row, **columns}, "id")
        await self.queue.look.execute("UPDATE platform.flow SET version = $2 WHERE id = $1", flow_id, version)
        return version

    async def _insert(self, table: str, row: Mapping[str, Any], returning: str = "1") -> Any:
        await self.queue.look.execute(
            "INSERT INTO platform.workspace (id, name, owner) VALUES ('w', 'w', 'ann') ON CONFLICT DO NOTHING"
        )
        places = ", ".join(f"${no}" for no in range(1, len(row) + 1))
        return await self.queue.look.fetchval(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places}) RETURNING {returning}", *row.values()
        )

    async def steps(self, flow_id: uuid.UUID) -> dict[str, Any]:
        """Return the rows of a flow's steps by module."""
        rows = await self.queue.look.fetch("SELECT * FROM queue.flow_step WHERE flow_id = $1 ORDER BY no", flow_id)
        return {row["module"]: row for row in rows}

    def publish(self, said: Sequence[Mapping[str, Any]]) -> None:
        """Publish what was said, as its sender does after the commit, without waiting for what comes of it."""
        publishing = self.broker.publish(
            [
                Outgoing(
                    exchange=each["exchange"],
                    key=each["key"],
                    body=each["body"].encode(),
                    message_id=each["message_id"],
                    traceparent=each["traceparent"],
                )
                for each in said
            ]
        )
        self._later(publishing)

    async def take(self, delivery: Delivery) -> None:
        """Take a ticket as a worker does."""
        await self._slots.acquire()
        claim = await self.queue.claim(*TAGS)
        await delivery.ack()
        if claim is None:
            self._slots.release()
            return
        self._later(self._run(claim))

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, claim: Claim) -> None:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.ran[claim.row["step_id"] or claim.row["kind"]] += 1
        try:
            await self.held.wait()
            code = claim.row["code"] or await self.queue.worker.fetchval(
                "SELECT content FROM platform.script_source($1, $2)", claim.row["workspace_id"], claim.row["hash"]
            )
            outcome, result = _answer(code, claim.row["args"])
        finally:
            self._at_once -= 1
            self._slots.release()
        _, said = await self.queue.finish_and_hear(claim, outcome, result)
        self.publish(said)


def _answer(code: str, args: str) -> tuple[str, Any]:
    try:
        return "success", eval(code)(**json.loads(args))
    except Exception as wrong:
        return "failure", {"error": {"name": type(wrong).__name__, "message": str(wrong)}}


@asynccontextmanager
async def stage_on(queue: Queue, broker: Broker, slots: int = 8) -> AsyncIterator[Stage]:
    """Let a worker serve the queue for the block."""
    stage = Stage(queue, broker, slots)
    await queue.start_worker(*TAGS, slots=slots)
    subscriptions = [broker.subscribe(tickets(tag), stage.take, prefetch=slots) for tag in TAGS]
    async with subscriptions[0], subscriptions[1], subscriptions[2]:
        yield stage
