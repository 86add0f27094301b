"""Tickets in, runs out: a ticket is taken only when a slot is free, and acknowledged when the claim has committed.

    ticket ─▶ free slot? ─ yes ─▶ claim ─▶ ack ─▶ run ─▶ slot is free again
                   └ no: wait 20 ms, then give it back and stop listening until a slot is free

Without the short wait a worker busy with jobs of a few milliseconds would leave and join its queues all the time;
without giving tickets back they would wait here while another worker is free.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from tidemill.chassis.broker import Delivery, Subscription
from tidemill.chassis.telemetry import Metric, observe
from tidemill.shared.catalog import own_tickets, tickets
from tidemill.worker.context import Context
from tidemill.worker.held import Holding
from tidemill.worker.run import run
from tidemill.worker.store import queue

log = logging.getLogger(__name__)

_PATIENCE = 0.02


class Slots:
    """The slots of one worker and the queues that fill them."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._free = asyncio.Semaphore(ctx.me.slots)
        self._subscriptions: list[Subscription] = []
        self._paused = False
        self._closed = False
        self._runs: set[asyncio.Task[None]] = set()
        self._resuming: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def open(self) -> None:
        """Begin to take tickets, and announce each queue as it stands."""
        for queue_ in (*map(tickets, self._ctx.me.tags), own_tickets(self._ctx.me.worker_run)):
            subscription = self._ctx.broker.subscribe(queue_, self._take, prefetch=1, on_ready=self._announce)
            self._subscriptions.append(await self._stack.enter_async_context(subscription))

    async def close(self) -> None:
        """Take no more tickets; what runs goes on."""
        self._closed = True
        await self._stack.aclose()

    async def _announce(self) -> None:
        # Not earlier: a ticket for a queue that does not stand yet is dropped, and its row waits for the next look.
        self._ctx.outbox.publish_soon(await queue.register(self._ctx.database, self._ctx.me))

    async def _take(self, delivery: Delivery) -> None:
        if not await self._slot():
            await delivery.give_back()
            await self._pause()
            return
        holding = self._ctx.held.open()
        try:
            holding.claim = await queue.claim(
                self._ctx.database, self._ctx.me.lines, self._ctx.me.worker_run, holding.key
            )
        except BaseException:
            # If the claim was made all the same, the next beat gives it back, because its key is not held.
            self._release(holding)
            raise
        if holding.claim is None:
            self._release(holding)
        else:
            if holding.claim.rounds == 0:
                waited = datetime.now(UTC) - holding.claim.due_at
                observe(Metric.JOB_WAIT, max(waited, timedelta(0)), tag=holding.claim.tag)
            task = asyncio.create_task(self._run(holding))
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)
        await delivery.ack()

    async def _slot(self) -> bool:
        if self._closed:
            return False
        if not self._free.locked():  # without the task that a wait with a limit would be
            return await self._free.acquire()
        try:
            await asyncio.wait_for(self._free.acquire(), _PATIENCE)
        except TimeoutError:
            return False
        return True

    async def _run(self, holding: Holding) -> None:
        try:
            await run(self._ctx, holding)
        finally:
            self._release(holding)

    def _release(self, holding: Holding) -> None:
        self._ctx.held.close(holding)
        self._free.release()
        if self._paused and not self._closed:
            self._paused = False
            self._resuming = asyncio.create_task(self._resume())

    async def _pause(self) -> None:
        if self._paused or self._closed:
            return
        self._paused = True
        for subscription in self._subscriptions:
            await subscription.pause()
        if not self._free.locked() and self._paused:
            # A slot became free while we were leaving.
            self._paused = False
            await self._resume()

    async def _resume(self) -> None:
        for subscription in self._subscriptions:
            await subscription.resume()
