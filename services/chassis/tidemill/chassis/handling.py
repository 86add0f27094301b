"""What both broker adapters do with a delivery: run its handler, and be patient when the handler raises.

    returns ─────────── done; the handler has used one of the three verbs, or will
    raises ──────────── wait (100 ms, doubling to 30 s), then to the end of the queue; the message comes again
    raises for ever ─── after 20 failures, bury; but only when other messages went well in the meantime
    a neighbour is away  counts as no failure; the pause grows to 3 s only, because it may be back at any moment

To the end and not to the front, where a subscriber with a prefetch of one would never see another message.
The last condition tells a broken message from a broken neighbour: while the database is away everything fails, and
nothing may be thrown to the dead letters for that.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from datetime import timedelta
from random import Random
from typing import Any, Protocol

import msgspec

from tidemill.chassis.backoff import delay, delays
from tidemill.chassis.broker import BrokerUnavailable, Delivery, Handler
from tidemill.chassis.ending import end
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.telemetry import Metric, observe

log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(milliseconds=100)
LONGEST_PAUSE = timedelta(seconds=30)
LONGEST_OUTAGE_PAUSE = timedelta(seconds=3)
PATIENCE = 20
REMEMBERED_FAILURES = 1000
NEIGHBOUR_AWAY = (BrokerUnavailable, DatabaseUnavailable)


class Settleable(Delivery, Protocol):
    """A delivery that knows whether one of its verbs has been used."""

    @property
    def settled(self) -> bool: ...

    async def send_to_end(self) -> None:
        """Put it back behind all that waits."""


class Failure(msgspec.Struct):
    """How often a message made its handler raise, and how many others had gone well when it began to."""

    successes_before: int
    times: int = 0
    outages: int = 0


class Handling:
    """The running handlers of one subscription."""

    def __init__(self, queue: str, handler: Handler, rng: Random) -> None:
        self._queue = queue
        self._kind = queue.partition(".")[0]  # one series for each kind of queue, not for each process
        self._handler = handler
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: OrderedDict[str, Failure] = OrderedDict()
        self._successes = 0
        self._paused = asyncio.Event()
        self._stopped = False
        # Handlers belong to who subscribed, not to whoever happens to publish in the same process.
        self._context = copy_context()

    @property
    def paused(self) -> bool:
        """Whether new deliveries go straight back."""
        return self._paused.is_set()

    def pause(self) -> None:
        """Give back what waits for its next attempt, and from now on whatever still arrives."""
        self._paused.set()

    def resume(self) -> None:
        """Run handlers again."""
        self._paused.clear()

    def take(self, delivery: Settleable) -> None:
        """Start the handler of one delivery; after `stop` it is left alone and comes again elsewhere."""
        if not self._stopped:
            self.start(self._attend(delivery))

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that ends with this subscription."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancel every handler that still runs and wait until all have ended."""
        self._stopped = True
        await end(*self._tasks)

    async def announce(self, on_ready: Callable[[], Awaitable[None]] | None) -> None:
        """Await `on_ready`, again and again while it raises: what was missed has to be asked for."""
        if on_ready is None:
            return
        for pause in delays(FIRST_PAUSE, LONGEST_PAUSE, self._rng):
            try:
                await on_ready()
            except Exception:
                log.exception("catching up after subscribing failed", extra={"queue": self._queue})
                await asyncio.sleep(pause.total_seconds())
            else:
                return

    async def _attend(self, delivery: Settleable) -> None:
        if self.paused:
            await delivery.give_back()
            return
        began = time.perf_counter()
        try:
            await self._handler(delivery)
        except Exception as error:
            self._measure(began, "raised")
            await self._forgive(delivery, error)
        else:
            self._measure(began, "returned")
            self._successes += 1
            self._failures.pop(delivery.message_id, None)

    def _measure(self, began: float, outcome: str) -> None:
        took = timedelta(seconds=time.perf_counter() - began)
        observe(Metric.MESSAGE_HANDLED, took, queue=self._kind, outcome=outcome)

    async def _forgive(self, delivery: Settleable, error: Exception) -> None:
        failure = self._remember(delivery.message_id)
        facts: dict[str, str | int] = {"queue": self._queue, "message_id": delivery.message_id}
        if isinstance(error, NEIGHBOUR_AWAY):
            failure.outages += 1
            log.warning("message waits for a neighbour", extra={**facts, "error": str(error)})
            await self._try_again(delivery, delay(failure.outages, FIRST_PAUSE, LONGEST_OUTAGE_PAUSE, self._rng))
            return
        failure.times += 1
        facts["times"] = failure.times
        if failure.times == 1:
            log.error("message handler failed", exc_info=error, extra=facts)
        else:
            log.warning("message handler failed again", extra={**facts, "error": type(error).__name__})
        if delivery.settled:
            return
        if failure.times >= PATIENCE and self._successes > failure.successes_before:
            try:
                await delivery.bury(f"its handler failed {failure.times} times, last with {type(error).__name__}")
            except BrokerUnavailable:
                log.warning("dead letters can't be reached", extra=facts)
            else:
                self._failures.pop(delivery.message_id, None)
                return
        await self._try_again(delivery, delay(failure.times, FIRST_PAUSE, LONGEST_PAUSE, self._rng))

    async def _try_again(self, delivery: Settleable, after: timedelta) -> None:
        if not delivery.settled:
            await self._wait(after)
            await delivery.send_to_end()

    def _remember(self, message_id: str) -> Failure:
        failure = self._failures.setdefault(message_id, Failure(successes_before=self._successes))
        self._failures.move_to_end(message_id)
        if len(self._failures) > REMEMBERED_FAILURES:
            self._failures.popitem(last=False)
        return failure

    async def _wait(self, pause: timedelta) -> None:
        try:
            async with asyncio.timeout(pause.total_seconds()):
                await self._paused.wait()
        except TimeoutError:
            return
