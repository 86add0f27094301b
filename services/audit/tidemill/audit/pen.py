"""Entries on their way into the log: those of one moment share a statement and its commit.

    write(event) ─┐
    write(event) ─┼─ 50 ms ─▶ one statement ─┬─ committed: every writer returns
    write(event) ─┘                          └─ refused: each alone, so that one can't keep the others out

Nobody waits for an entry but the message that carried it, which is acknowledged when it stands.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from tidemill.audit.store import entries
from tidemill.audit.store.entries import Event
from tidemill.chassis.database import Database
from tidemill.chassis.errors import DatabaseUnavailable

LINGER = timedelta(milliseconds=50)
LARGEST_BATCH = 200

Waiting = tuple[Event, asyncio.Future[None]]


class Pen:
    """Writes events down in batches, in the order in which they came."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[Waiting] = []
        self._something = asyncio.Event()

    async def write(self, event: Event) -> None:
        """Return when the event stands in the log; raises what has kept it out."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, written))
        self._something.set()
        await written

    async def run(self) -> None:
        """Write down what waits, for as long as the service lives."""
        while True:
            await self._something.wait()
            await asyncio.sleep(LINGER.total_seconds())
            self._something.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:LARGEST_BATCH], self._waiting[LARGEST_BATCH:]
                await self._write(batch)

    async def _write(self, batch: Sequence[Waiting]) -> None:
        try:
            await entries.append(self._database, [event for event, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, DatabaseUnavailable):
                for each in batch:
                    await self._write([each])
                return
            for _, written in batch:
                if not written.done():
                    written.set_exception(error)
        else:
            for _, written in batch:
                if not written.done():
                    written.set_result(None)
