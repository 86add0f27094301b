"""One subscription to RabbitMQ, which stands up again after every outage.

    wait for a link ─► open a channel ─► declare, bind, consume ─► say that it stands ─► lost ─┐
         ▲                                                                                     │
         └──────────────────────── pause, growing while it fails ◄─────────────────────────────┘

What a caller wants (keys, paused or not) is kept here and the channel is brought in line with it, so a wish that comes
while the broker is away is fulfilled when it is back.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from random import Random
from typing import Final, Protocol

from aiormq.abc import AbstractChannel, DeliveredMessage

from tidemill.chassis.backoff import delays
from tidemill.chassis.broker import BrokerUnavailable, Fate
from tidemill.chassis.ending import end
from tidemill.chassis.handling import Handling
from tidemill.chassis.rabbit import envelope
from tidemill.chassis.rabbit.link import STEP_SECONDS, Link, close_channel, lost_as_unavailable
from tidemill.chassis.rabbit.topology import DELIVERY_LIMIT
from tidemill.chassis.telemetry import Metric, count
from tidemill.shared.catalog import AGAIN, DEAD_LETTERS, QueueSpec

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = timedelta(milliseconds=100)
LONGEST_PAUSE: Final = timedelta(seconds=3)
SETTING_UP: Final = timedelta(seconds=20)


class Links(Protocol):
    """Where a subscription gets its connection from."""

    async def link(self) -> Link:
        """Return the live link, as soon as there is one."""


class RabbitDelivery:
    """One message in the hands of one subscriber; the first verb counts, later ones change nothing."""

    __slots__ = ("_headers", "_link", "_message", "_queue", "settled")

    def __init__(self, message: DeliveredMessage, link: Link, queue: str) -> None:
        self._message = message
        self._headers = envelope.headers_of(message)
        self._link = link
        self._queue = queue
        self.settled = False

    @property
    def body(self) -> bytes:
        return self._message.body

    @property
    def key(self) -> str:
        return envelope.key_of(self._message)

    @property
    def message_id(self) -> str:
        return self._message.header.properties.message_id or ""

    @property
    def traceparent(self) -> str | None:
        return envelope.text(self._headers, envelope.TRACEPARENT)

    async def ack(self) -> None:
        """Take it off the queue."""
        if not self.settled:
            self.settled = True
            await self._ack()

    async def give_back(self) -> None:
        """Put it back to the front of its queue."""
        # Before 4.3 each return counts towards the limit after which a quorum queue buries a message; a copy counts
        # from 0 again.
        if envelope.number(self._headers, "x-delivery-count") >= DELIVERY_LIMIT // 2:
            await self.send_to_end()
        elif not self.settled:
            self.settled = True
            await self._return()

    async def send_to_end(self) -> None:
        """Put it back behind all that waits: say it again to its queue, then acknowledge it."""
        if self.settled:
            return
        self.settled = True
        try:
            fate = await self._say_again(AGAIN, self._queue, {envelope.KEY: self.key})
        except BrokerUnavailable:
            await self._return()
        else:
            await (self._ack() if fate is Fate.CONFIRMED else self._return())

    async def bury(self, reason: str) -> None:
        """Move it to the dead letters, with the reason and where it came from."""
        if self.settled:
            return
        also = {envelope.KEY: self.key, envelope.QUEUE: self._queue, envelope.REASON: reason}
        if await self._say_again(DEAD_LETTERS, self.key, also) is not Fate.CONFIRMED:
            raise BrokerUnavailable(f"there is no queue for {DEAD_LETTERS}")
        count(Metric.MESSAGES_BURIED, queue=self._queue)
        log.error("message buried", extra={"queue": self._queue, "message_id": self.message_id, "reason": reason})
        self.settled = True
        await self._ack()

    async def _say_again(self, exchange: str, key: str, also: dict[str, str]) -> Fate:
        properties = envelope.properties(self.message_id, self.traceparent, also=also)
        with lost_as_unavailable():
            async with asyncio.timeout(STEP_SECONDS):
                return await self._link.say(exchange, key, self.body, properties)

    async def _ack(self) -> None:
        # A lost channel gives its messages back by itself.
        with suppress(BrokerUnavailable), lost_as_unavailable():
            async with asyncio.timeout(STEP_SECONDS):
                await self._message.channel.basic_ack(self._message.delivery_tag or 0, wait=False)

    async def _return(self) -> None:
        with suppress(BrokerUnavailable), lost_as_unavailable():
            async with asyncio.timeout(STEP_SECONDS):
                await self._message.channel.basic_nack(self._message.delivery_tag or 0, requeue=True, wait=False)


class RabbitSubscription:
    """A live subscription; `keep` runs it until it is cancelled, `end` gives back what it holds."""

    def __init__(
        self,
        links: Links,
        queue: QueueSpec,
        handling: Handling,
        prefetch: int,
        on_ready: Callable[[], Awaitable[None]] | None,
        rng: Random,
    ) -> None:
        self._links = links
        self._queue = queue
        self._handling = handling
        self._prefetch = prefetch
        self._on_ready = on_ready
        self._rng = rng
        self._wanted = set(queue.keys)
        self._bound: set[str] = set()
        self._channel: AbstractChannel | None = None
        self._consumer: str | None = None
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._aligning = asyncio.Lock()

    async def pause(self) -> None:
        """Stop deliveries and give back what no handler has taken up."""
        self._handling.pause()
        await self._align_if_connected()

    async def resume(self) -> None:
        """Let deliveries come again."""
        self._handling.resume()
        await self._align_if_connected()

    async def bind(self, key: str) -> None:
        """Also hear this key from now on."""
        self._wanted.add(key)
        await self._align_if_connected()

    async def unbind(self, key: str) -> None:
        """No longer hear this key."""
        self._wanted.discard(key)
        await self._align_if_connected()

    async def keep(self) -> None:
        """Stand, and stand up again, until cancelled."""
        pauses = delays(FIRST_PAUSE, LONGEST_PAUSE, self._rng)
        told = ""
        while True:
            link = await self._links.link()
            try:
                await self._stand_up(link)
            except BrokerUnavailable as error:
                # A lost connection is logged once, by the broker; this is about the queue.
                if not link.lost.is_set() and told != str(error):
                    told = str(error)
                    log.warning("subscribing failed, trying on", extra={"queue": self._queue.name, "reason": told})
            except Exception:
                log.exception("subscribing failed, trying on", extra={"queue": self._queue.name})
            else:
                pauses, told = delays(FIRST_PAUSE, LONGEST_PAUSE, self._rng), ""
                announcing = asyncio.create_task(self._handling.announce(self._on_ready))
                try:
                    await self._lost.wait()
                finally:
                    await end(announcing)
            await self._let_go()
            await asyncio.sleep(next(pauses).total_seconds())

    async def end(self) -> None:
        """Cancel the handlers and give back what they held; a process-bound queue goes."""
        await self._handling.stop()
        if self._channel is not None and not self._queue.durable:
            with suppress(BrokerUnavailable), lost_as_unavailable():
                await self._channel.queue_delete(self._queue.name, timeout=STEP_SECONDS)
        await self._let_go()

    async def _stand_up(self, link: Link) -> None:
        self._lost = lost = asyncio.Event()
        channel = await link.channel()
        with lost_as_unavailable():
            async with asyncio.timeout(SETTING_UP.total_seconds()):
                try:
                    if not self._queue.durable:
                        # What is left of it on this connection may have keys that are no longer wanted.
                        await channel.queue_delete(self._queue.name, timeout=STEP_SECONDS)
                    channel = await link.declare(channel, self._queue)
                    await channel.basic_qos(prefetch_count=self._prefetch, timeout=STEP_SECONDS)
                except BaseException:
                    await close_channel(channel)
                    raise
                channel.closing.add_done_callback(lambda _: lost.set())
                channel.on_consumer_cancel_callbacks.add(lambda _: lost.set())  # somebody deleted the queue
                self._link, self._channel, self._consumer = link, channel, None
                self._bound = set(self._queue.keys)
                await self._align()

    async def _let_go(self) -> None:
        channel, self._channel, self._consumer = self._channel, None, None
        if channel is not None:
            await close_channel(channel)

    async def _align_if_connected(self) -> None:
        try:
            with lost_as_unavailable():
                await self._align()
        except BrokerUnavailable as error:
            log.debug("left for the next connection", extra={"queue": self._queue.name, "reason": str(error)})
            self._lost.set()

    async def _align(self) -> None:
        """Do one thing at a time until the channel is as wanted; wishes may change while it is being done."""
        async with self._aligning:
            while (channel := self._channel) is not None:
                if missing := self._wanted - self._bound:
                    key = missing.pop()
                    await channel.queue_bind(self._queue.name, self._queue.exchange, key, timeout=STEP_SECONDS)
                    self._bound.add(key)
                elif extra := self._bound - self._wanted:
                    key = extra.pop()
                    await channel.queue_unbind(self._queue.name, self._queue.exchange, key, timeout=STEP_SECONDS)
                    self._bound.discard(key)
                elif self._consumer is None and not self._handling.paused:
                    consuming = await channel.basic_consume(self._queue.name, self._deliver, timeout=STEP_SECONDS)
                    self._consumer = consuming.consumer_tag
                elif self._consumer is not None and self._handling.paused:
                    tag, self._consumer = self._consumer, None
                    await channel.basic_cancel(tag, timeout=STEP_SECONDS)
                else:
                    return

    async def _deliver(self, message: DeliveredMessage) -> None:
        # A task of our own: the library cancels its own when the channel closes, in the middle of a handler's work.
        if self._link is not None:
            self._handling.take(RabbitDelivery(message, self._link, self._queue.name))
