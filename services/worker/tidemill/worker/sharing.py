"""The folders that steps of one flow share: each step finds it as `./shared`, and it goes when the flow has ended."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from tidemill.chassis.database import Database
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.service import background
from tidemill.worker.sandbox.answers import failed
from tidemill.worker.sandbox.execution import Ending
from tidemill.worker.sandbox.pool import Sandbox
from tidemill.worker.sandbox.shared import MOST_FILES, is_full
from tidemill.worker.store import queue

_MEASURED_EVERY = timedelta(seconds=1)
_LOOKED_EVERY = timedelta(seconds=5)


class Sharing:
    """The shared folders of this worker, by their flows."""

    def __init__(self, sandbox: Sandbox, database: Database, most_bytes: int) -> None:
        self._sandbox = sandbox
        self._database = database
        self._most_bytes = most_bytes
        self._flows: set[UUID] = set()
        self._used: Counter[UUID] = Counter()

    @asynccontextmanager
    async def folder(self, flow: UUID | None) -> AsyncIterator[str | None]:
        """Give the folder of a flow, which stays for the block; of no flow, none."""
        if flow is None:
            yield None
            return
        self._flows.add(flow)
        self._used[flow] += 1
        try:
            yield self._sandbox.share(str(flow))
        finally:
            self._used[flow] -= 1

    async def bounded(
        self, folder: str | None, stop: asyncio.Event, execute: Callable[[asyncio.Event], Awaitable[Ending]]
    ) -> Ending:
        """Return how an execution ended, which is stopped when more is in the folder than there may be."""
        if folder is None:
            return await execute(stop)
        either = asyncio.Event()
        async with background(self._watch(folder, either), _pass_on(stop, either)):
            ending = await execute(either)
        if not stop.is_set() and await self._is_full(folder):
            may = f"{self._most_bytes >> 20} MiB and {MOST_FILES} files, in folders that can be read"
            return failed("disk", "ExecutionErr", f"the folder ./shared may hold {may}")
        return ending

    async def tend(self) -> None:
        """Remove the folders of flows that have ended, again and again."""
        while True:
            await asyncio.sleep(_LOOKED_EVERY.total_seconds())
            unused = [flow for flow in self._flows if not self._used[flow]]
            if not unused:
                continue
            try:
                ended = await queue.ended_flows(self._database, unused)
            except DatabaseUnavailable:
                continue
            for flow in ended:
                if not self._used[flow]:
                    self._flows.discard(flow)
                    del self._used[flow]
                    await self._sandbox.unshare(str(flow))

    async def _watch(self, folder: str, full: asyncio.Event) -> None:
        while True:
            if await self._is_full(folder):
                full.set()
                return
            await asyncio.sleep(_MEASURED_EVERY.total_seconds())

    async def _is_full(self, folder: str) -> bool:
        return await asyncio.to_thread(is_full, folder, self._most_bytes)


async def _pass_on(stop: asyncio.Event, either: asyncio.Event) -> None:
    await stop.wait()
    either.set()
