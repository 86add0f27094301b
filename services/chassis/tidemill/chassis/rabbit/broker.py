"""RabbitBroker: one connection that is kept for ever, and the port's verbs upon it.

    connection ─┬─ confirming channel   publish, bury, send to the end
                ├─ whispering channel   hints
                ├─ looking channel      ready_count
                └─ one channel for each subscription

While the connection is away `publish` raises BrokerUnavailable at once, hints are dropped, subscriptions wait. While
the broker takes nothing (short of memory or disk) `publish` waits, then raises, without writing anything.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from random import Random
from types import TracebackType
from typing import Final, Self

from aiormq import ChannelNotFoundEntity
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from yarl import URL

from tidemill.chassis.backoff import delays
from tidemill.chassis.broker import BrokerUnavailable, DeadLetter, Fate, Handler, Outgoing, Subscription
from tidemill.chassis.ending import end
from tidemill.chassis.handling import Handling
from tidemill.chassis.rabbit import envelope
from tidemill.chassis.rabbit.link import STEP_SECONDS, Link, close_channel, lost_as_unavailable
from tidemill.chassis.rabbit.subscription import RabbitSubscription
from tidemill.chassis.rabbit.topology import QueueType
from tidemill.shared.catalog import DEAD_LETTERS, QueueSpec

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = timedelta(milliseconds=100)
LONGEST_PAUSE: Final = timedelta(seconds=3)
STABLE: Final = timedelta(seconds=10)
"""A connection that lasted so long starts with short pauses again when it is lost."""
KEPT_HINTS: Final = 1000
LONGEST_KEY: Final = 255
"""Bytes that AMQP 0-9-1 has room for."""


class RabbitBroker:
    """The broker port over one RabbitMQ connection; enter it to begin connecting, which nobody waits for."""

    def __init__(
        self,
        url: str,
        name: str,
        queue_type: QueueType = "classic",
        *,
        confirm_timeout: timedelta = timedelta(seconds=10),
        rng: Random | None = None,
    ) -> None:
        self._url = URL(url)
        if self._url.scheme not in ("amqp", "amqps") or not self._url.host:
            raise ValueError("the broker's URL has to look like amqp://user:password@host:5672/vhost")
        self._name = name
        self._queue_type = queue_type
        self._confirm_timeout = confirm_timeout
        self._rng = rng or Random()  # noqa: S311 - jitter, not a secret
        self._link: Link | None = None
        self._linked = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._hints: deque[Outgoing] = deque(maxlen=KEPT_HINTS)
        self._hinted = asyncio.Event()
        self._looking: AbstractChannel | None = None
        self._look = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep_connected(), name=f"broker {self._name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeping is not None:
            await end(self._keeping)

    @property
    def connected(self) -> bool:
        """Whether a publish would have a chance now."""
        return self._link is not None and not self._link.lost.is_set()

    async def link(self) -> Link:
        """Return the live link, as soon as there is one."""
        while (link := self._link) is None or link.lost.is_set():
            if link is not None:
                # Lost, and its keeper has not had its turn to say so.
                self._linked.clear()
            await self._linked.wait()
        return link

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Fate]:
        """Return each message's fate once all are confirmed; raises BrokerUnavailable, then any may have arrived."""
        link = self._link
        if link is None or link.lost.is_set():
            raise BrokerUnavailable("not connected")
        with lost_as_unavailable():
            async with asyncio.timeout(self._confirm_timeout.total_seconds()):
                await link.unblocked()
                if len(messages) == 1:
                    return [await self._say(link, messages[0])]
                outcomes = await asyncio.gather(
                    *(self._say(link, message) for message in messages), return_exceptions=True
                )
        fates: list[Fate] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            fates.append(outcome)
        return fates

    def hint(self, message: Outgoing) -> None:
        """Say it once without waiting; the oldest are dropped when the broker does not take them."""
        if self.connected:
            self._hints.append(message)
            self._hinted.set()

    def subscribe(
        self,
        queue: QueueSpec,
        handler: Handler,
        *,
        prefetch: int = 16,
        on_ready: Callable[[], Awaitable[None]] | None = None,
    ) -> AbstractAsyncContextManager[Subscription]:
        """Declare the queue and hand its messages to `handler`, through every outage."""
        return self._subscribe(queue, handler, prefetch, on_ready)

    async def ready_count(self, queue: QueueSpec) -> int | None:
        """Return how many messages wait, 0 when there is no such queue, None when the broker does not answer."""
        link = self._link
        if link is None:
            return None
        async with self._look:
            try:
                with lost_as_unavailable():
                    if self._looking is None or self._looking.is_closed:
                        self._looking = await link.channel()
                    declared = await self._looking.queue_declare(queue.name, passive=True, timeout=STEP_SECONDS)
            except BrokerUnavailable as error:
                self._looking = None
                return 0 if isinstance(error.__cause__, ChannelNotFoundEntity) else None
            return declared.message_count

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest buried messages; they stay where they are. Raises BrokerUnavailable."""
        async with self._digging(limit) as (_, messages):
            return [envelope.dead_letter(message) for message in messages]

    async def replay(self, limit: int = 100) -> int:
        """Put up to `limit` buried messages back into the queues they came from and return how many went."""
        replayed = 0
        async with self._digging(limit) as (link, messages):
            for message in messages:
                letter = envelope.dead_letter(message)
                properties = envelope.properties(letter.message_id, letter.traceparent, also={envelope.KEY: letter.key})
                async with asyncio.timeout(STEP_SECONDS):
                    # By the queue's name: other queues that heard the same event have not asked for it again.
                    fate = await link.say("", letter.queue, letter.body, properties)
                    if letter.queue and fate is Fate.CONFIRMED:
                        await message.channel.basic_ack(message.delivery_tag or 0)
                        replayed += 1
        return replayed

    async def _say(self, link: Link, message: Outgoing) -> Fate:
        if len(message.key.encode()) > LONGEST_KEY:
            return Fate.UNROUTABLE  # no queue can have been bound to it
        properties = envelope.properties(message.message_id, message.traceparent)
        return await link.say(message.exchange, message.key, message.body, properties)

    @asynccontextmanager
    async def _subscribe(
        self, queue: QueueSpec, handler: Handler, prefetch: int, on_ready: Callable[[], Awaitable[None]] | None
    ) -> AsyncIterator[RabbitSubscription]:
        handling = Handling(queue.name, handler, self._rng)
        subscription = RabbitSubscription(self, queue, handling, prefetch, on_ready, self._rng)
        keeping = asyncio.create_task(subscription.keep(), name=f"subscription {queue.name}")
        try:
            yield subscription
        finally:
            await end(keeping)
            await subscription.end()

    async def _keep_connected(self) -> None:
        clock = asyncio.get_running_loop().time
        pauses = delays(FIRST_PAUSE, LONGEST_PAUSE, self._rng)
        away = False
        while True:
            try:
                link = await Link.open(self._url, self._name, self._queue_type)
            except Exception as error:
                if not away:
                    facts = {"host": self._url.host, "port": self._url.port, "reason": str(error)}
                    unexpected = None if isinstance(error, BrokerUnavailable) else error
                    log.warning("broker can't be reached, trying on", exc_info=unexpected, extra=facts)
                away = True
            else:
                log.info("broker is back" if away else "connected to the broker", extra={"host": self._url.host})
                away = False
                since = clock()
                try:
                    await self._use(link)
                finally:
                    self._link = None
                    self._linked.clear()
                    await link.close()
                facts = {"host": self._url.host, "reason": link.why_lost}
                log.warning("connection to the broker lost, trying on", extra=facts)
                away = True
                if clock() - since > STABLE.total_seconds():
                    pauses = delays(FIRST_PAUSE, LONGEST_PAUSE, self._rng)
            await asyncio.sleep(next(pauses).total_seconds())

    async def _use(self, link: Link) -> None:
        self._hints.clear()
        self._looking = None
        self._link = link
        self._linked.set()
        hinting = asyncio.create_task(self._say_hints(link))
        try:
            await link.lost.wait()
        finally:
            await end(hinting)

    async def _say_hints(self, link: Link) -> None:
        while True:
            await self._hinted.wait()
            self._hinted.clear()
            await link.unblocked()
            while self._hints:
                message = self._hints.popleft()
                properties = envelope.properties(
                    message.message_id, message.traceparent, delivery_mode=envelope.TRANSIENT
                )
                try:
                    # Draining after the last of a burst bounds what a slow network can pile up here.
                    await link.whisper(message.exchange, message.key, message.body, properties, drain=not self._hints)
                except BrokerUnavailable:
                    link.lost.set()
                    return
                except ValueError as error:
                    log.error("hint can't be said", extra={"key": message.key, "reason": str(error)})

    @asynccontextmanager
    async def _digging(self, limit: int) -> AsyncIterator[tuple[Link, Sequence[DeliveredMessage]]]:
        """Hold up to `limit` buried messages for a moment; what was not acknowledged goes back in its old order."""
        link = self._link
        if link is None:
            raise BrokerUnavailable("not connected")
        channel = await link.channel()
        try:
            with lost_as_unavailable():
                messages: list[DeliveredMessage] = []
                while len(messages) < limit:
                    message = await channel.basic_get(DEAD_LETTERS, timeout=STEP_SECONDS)
                    if isinstance(message.delivery, Basic.GetEmpty):
                        break
                    messages.append(message)
                yield link, messages
        finally:
            await close_channel(channel)
