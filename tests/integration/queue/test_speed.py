"""The hot calls look at a handful of rows, however long the line is.

What is bounded is the number of pages a call touches, which does not depend on the machine. Connections that have made
their plans while the queue was empty go on with them when it is full, and so they do here.
"""

import json
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from tests.support.queue import Queue, a_job
from tidemill.chassis.database import Executor, Transaction

WAITING = 100_000
BLOCKED = 20_000
PAGES = 400
"""More than any of these calls needs, and far less than reading 100,000 rows would."""

CALLS: Mapping[str, tuple[str, str]] = {
    "request": ("api", "SELECT * FROM queue.request_job($1, '{}', NULL)"),
    "claim": ("worker", "SELECT * FROM queue.claim_job($1, $2, $3)"),
    "finish": ("worker", "SELECT * FROM queue.finish_job($1, $2, $3, '1')"),
    "renew": ("worker", "SELECT * FROM queue.renew($1, $2, '1 h', 0, false)"),
    "cancel": ("api", "SELECT * FROM queue.cancel_job('w', $1, 'bob', NULL, false, NULL)"),
    "tick": ("scheduler", "SELECT * FROM queue.tick('1 h', '1 h', '1 s', 100)"),
    "rehint": ("scheduler", "SELECT queue.rehint('python3', 10, 1)"),
}


class Calls:
    """Makes the hot calls over one connection a service, as a long-lived process does."""

    def __init__(self, queue: Queue, connections: Mapping[str, Executor]) -> None:
        self._queue = queue
        self._connections = connections

    async def values(self, call: str) -> list[Any]:
        """Return arguments with which the call has something to do."""
        match call:
            case "request":
                return [json.dumps(a_job(workspace_id="w3"), default=str)]
            case "claim":
                return [["bash", "python3"], self._queue.run, uuid.uuid4()]
            case "finish":
                claim = await self._queue.a_claim(tag="own")
                return [claim.job_id, claim.key, '{"outcome": "success"}']
            case "renew":
                return [self._queue.run, [uuid.uuid4()]]
            case "cancel":
                return [await self._queue.request(a_job(tag="own"))]
            case _:
                return []

    async def time(self, call: str, times: int = 30) -> timedelta:
        """Return the median of how long the call takes."""
        service, statement = CALLS[call]
        took = []
        for _ in range(times):
            values = await self.values(call)
            began = time.perf_counter()
            await self._connections[service].fetch(statement, *values)
            took.append(time.perf_counter() - began)
        return timedelta(seconds=statistics.median(took))

    async def pages(self, call: str) -> int:
        """Return how many pages one call touches."""
        service, statement = CALLS[call]
        values = await self.values(call)
        # What lies there unpublished would be a tick's work, up to its limit.
        await self._queue.look.execute("DELETE FROM bus.outbox")
        answer = await self._connections[service].fetchval(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT json) {statement}", *values
        )
        plan = json.loads(answer)[0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@asynccontextmanager
async def long_lived(queue: Queue) -> AsyncIterator[Calls]:
    async with queue.api.acquire() as api, queue.worker.acquire() as worker, queue.scheduler.acquire() as scheduler:
        connections = {"api": api, "worker": worker, "scheduler": scheduler}
        yield Calls(queue, {name: Transaction(each, lambda: None) for name, each in connections.items()})


async def fill(queue: Queue, waiting: int, blocked: int) -> None:
    """Put long lines into the queue: ten workspaces behind one tag, some of it behind one limit."""
    await queue.look.execute(_FILL, waiting, blocked)


@pytest.mark.slow
async def test_a_long_line_makes_no_call_read_more_than_a_handful_of_pages(queue: Queue) -> None:
    measured: dict[str, list[timedelta]] = {call: [] for call in CALLS}
    pages: dict[str, list[int]] = {call: [] for call in CALLS}

    async with long_lived(queue) as calls:

        async def measure(of: Callable[[str], Awaitable[Any]], into: dict[str, list[Any]]) -> None:
            for call in CALLS:
                into[call].append(await of(call))

        await measure(calls.time, measured)
        await fill(queue, WAITING, BLOCKED)
        await measure(calls.pages, pages)
        await measure(calls.time, measured)
        await queue.look.execute("ANALYZE queue.live_job")
        await measure(calls.time, measured)
        await measure(calls.pages, pages)

    for call in CALLS:
        empty, full, analyzed = (f"{each / timedelta(milliseconds=1):.2f}" for each in measured[call])
        took = f"{empty} ms empty, {full} ms with {WAITING} waiting, {analyzed} ms analyzed"
        print(f"{call:8} {took}; pages {pages[call]}")
    assert {call: count for call, count in pages.items() if max(count) > PAGES} == {}


_FILL = """
    WITH filled AS (
        INSERT INTO queue.live_job (id, born, workspace_id, state, tag, urgency, rank, due_at, limit_key, limit_ceiling,
                                    hinted_at)
        SELECT gen_random_uuid(), now(), 'w' || n % 10, CASE WHEN n <= $2 THEN 'blocked' ELSE 'queued' END, 'python3',
               -(n % 3), n, now(), CASE WHEN n <= $2 THEN 'full' || n % 5 END, CASE WHEN n <= $2 THEN 0 END,
               now() - interval '1 h'
        FROM generate_series(1, $1::bigint + $2::bigint) n RETURNING *)
    INSERT INTO queue.job (id, born, workspace_id, kind, language, args, tag, priority, envs, due_at, visible_to_owner,
                           created_at, created_by, permissioned_as, email, permissions)
    SELECT id, born, workspace_id, 'script', 'python3', '{}', tag, -urgency, '{}', due_at, true,
           now(), 'ann', 'u/ann', 'ann@example.com', '{}'
    FROM filled
"""
