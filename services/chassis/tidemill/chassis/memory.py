"""The broker inside one process: for `make up` and for tests.

    publish ── route by exchange and key ── queue ── next subscriber with room ── handler task
                                              ▲                                      │
                                              └──────── given back, to the front ────┘

Nothing here outlives the process, so an event for a durable queue counts as confirmed only once its subscriber has
settled it: until then the outbox row is what survives. A ticket is a hint whose row is looked at again anyway, and is
confirmed as soon as it is queued. Nothing polls: a message moves when it arrives, is settled, or room appears.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import lru_cache
from random import Random
from types import TracebackType
from typing import Self

import msgspec

from tidemill.chassis.broker import BrokerUnavailable, DeadLetter, Fate, Handler, Outgoing, Subscription
from tidemill.chassis.handling import Handling
from tidemill.chassis.telemetry import Metric, count
from tidemill.shared.catalog import DURABLE_QUEUES, EXCHANGES, Exchange, QueueSpec

log = logging.getLogger(__name__)

LONGEST_QUEUE = 100_000
KEPT_DEAD_LETTERS = 10_000


@lru_cache(maxsize=4096)
def topic_matches(pattern: str, key: str) -> bool:
    """Return whether an AMQP topic pattern matches: `*` stands for one word, `#` for any number of words."""

    def rest_matches(words: tuple[str, ...], of: tuple[str, ...]) -> bool:
        if not words:
            return not of
        if words[0] == "#":
            return any(rest_matches(words[1:], of[skipped:]) for skipped in range(len(of) + 1))
        return bool(of) and words[0] in ("*", of[0]) and rest_matches(words[1:], of[1:])

    return rest_matches(tuple(pattern.split(".")), tuple(key.split(".")))


class _Message:
    """One message in one queue."""

    __slots__ = ("handled", "outgoing")

    def __init__(self, outgoing: Outgoing, handled: asyncio.Future[None] | None) -> None:
        self.outgoing = outgoing
        self.handled = handled
        """Resolved when a subscriber has settled it for good; None for hints and tickets."""


class _Queue:
    """Messages that wait, the keys that lead here, and the subscribers that take turns."""

    def __init__(self, spec: QueueSpec, keys: set[str]) -> None:
        self.spec = spec
        self.keys = keys
        self.waiting: deque[_Message] = deque()
        self.subscribers: deque[MemorySubscription] = deque()
        self.unsettled: dict[str, _Message] = {}
        """By message id, those that a publisher waits for: saying one again joins it instead of doubling it."""

    def hears(self, outgoing: Outgoing) -> bool:
        if self.spec.exchange != outgoing.exchange:
            return False
        if EXCHANGES[self.spec.exchange] == "direct":
            return outgoing.key in self.keys
        # Most keys are bound as they are, and a follower's key is asked for once: no pattern pays off there.
        return outgoing.key in self.keys or any(
            topic_matches(pattern, outgoing.key) for pattern in self.keys if "*" in pattern or "#" in pattern
        )

    def put(self, outgoing: Outgoing, *, confirm: bool) -> asyncio.Future[None] | None:
        """Queue it and return what resolves when it is settled; raises BrokerUnavailable when the queue is full."""
        if confirm and (same := self.unsettled.get(outgoing.message_id)) is not None:
            return same.handled
        if len(self.waiting) >= LONGEST_QUEUE:
            raise BrokerUnavailable(f"queue {self.spec.name} is full")
        handled = asyncio.get_running_loop().create_future() if confirm else None
        message = _Message(outgoing, handled)
        if confirm:
            self.unsettled[outgoing.message_id] = message
        self.waiting.append(message)
        self.hand_out()
        return handled

    def hand_out(self) -> None:
        """Give waiting messages to subscribers in turn, as long as one has room."""
        while self.waiting:
            for _ in range(len(self.subscribers)):
                subscriber = self.subscribers[0]
                self.subscribers.rotate(-1)
                if subscriber.has_room:
                    subscriber.take(self.waiting.popleft())
                    break
            else:
                return

    def settle(self, message: _Message) -> None:
        if message.handled is not None:
            self.unsettled.pop(message.outgoing.message_id, None)
            if not message.handled.done():
                message.handled.set_result(None)


class MemoryDelivery:
    """One message in the hands of one subscriber; the first verb counts, later ones change nothing."""

    __slots__ = ("_message", "_subscription", "settled")

    def __init__(self, message: _Message, subscription: "MemorySubscription") -> None:
        self._message = message
        self._subscription = subscription
        self.settled = False

    @property
    def body(self) -> bytes:
        return self._message.outgoing.body

    @property
    def key(self) -> str:
        return self._message.outgoing.key

    @property
    def message_id(self) -> str:
        return self._message.outgoing.message_id

    @property
    def traceparent(self) -> str | None:
        return self._message.outgoing.traceparent

    async def ack(self) -> None:
        """Take it off the queue."""
        if self._settle():
            self._subscription.queue.settle(self._message)
            self._subscription.queue.hand_out()

    async def give_back(self) -> None:
        """Put it back to the front of its queue."""
        if self._settle():
            self._subscription.queue.waiting.appendleft(self._message)
            self._subscription.queue.hand_out()

    async def send_to_end(self) -> None:
        """Put it back behind all that waits."""
        if self._settle():
            self._subscription.queue.waiting.append(self._message)
            self._subscription.queue.hand_out()

    async def bury(self, reason: str) -> None:
        """Move it to the dead letters."""
        if self._settle():
            self._subscription.bury(self._message, reason)
            self._subscription.queue.settle(self._message)
            self._subscription.queue.hand_out()

    def _settle(self) -> bool:
        if self.settled:
            return False
        self.settled = True
        self._subscription.held.pop(self, None)
        return True


class MemorySubscription:
    """A live subscription to one queue of this process."""

    def __init__(
        self, queue: _Queue, handling: Handling, prefetch: int, bury: Callable[[_Queue, _Message, str], None]
    ) -> None:
        self.queue = queue
        self.held: dict[MemoryDelivery, _Message] = {}
        self._handling = handling
        self._prefetch = prefetch
        self._bury = bury

    @property
    def has_room(self) -> bool:
        return not self._handling.paused and len(self.held) < self._prefetch

    def take(self, message: _Message) -> None:
        delivery = MemoryDelivery(message, self)
        self.held[delivery] = message
        self._handling.take(delivery)

    def bury(self, message: _Message, reason: str) -> None:
        self._bury(self.queue, message, reason)

    async def pause(self) -> None:
        """Stop deliveries and give back what no handler has taken up."""
        self._handling.pause()
        self.queue.hand_out()

    async def resume(self) -> None:
        """Let deliveries come again."""
        self._handling.resume()
        self.queue.hand_out()

    async def bind(self, key: str) -> None:
        """Also hear this key from now on."""
        self.queue.keys.add(key)

    async def unbind(self, key: str) -> None:
        """No longer hear this key."""
        self.queue.keys.discard(key)

    async def end(self) -> None:
        """Stop the handlers and put everything unsettled back in its old order."""
        self.queue.subscribers.remove(self)
        await self._handling.stop()
        for delivery in self.held:
            delivery.settled = True
        self.queue.waiting.extendleft(reversed(self.held.values()))
        self.held.clear()
        self.queue.hand_out()


class MemoryBroker:
    """The broker port within one event loop."""

    def __init__(self, *, confirm_timeout: timedelta = timedelta(seconds=10), rng: Random | None = None) -> None:
        self._queues: dict[str, _Queue] = {}
        self._confirm_timeout = confirm_timeout
        self._rng = rng or Random()  # noqa: S311 - jitter, not a secret
        self._dead_letters: deque[tuple[DeadLetter, QueueSpec]] = deque(maxlen=KEPT_DEAD_LETTERS)
        for spec in DURABLE_QUEUES:
            self._declare(spec)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for queue in self._queues.values():
            for message in queue.unsettled.values():
                if message.handled is not None:
                    message.handled.cancel()
        self._queues.clear()

    @property
    def connected(self) -> bool:
        """Return True: there is nothing that could be away."""
        return True

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Fate]:
        """Return each message's fate; an event's only when it was handled, else BrokerUnavailable after a time-out.

        An event whose durable queue has no subscriber is queued, and refused at once: there is nobody to wait for.
        """
        fates: list[Fate] = []
        unheard: list[str] = []
        handled: list[asyncio.Future[None]] = []
        for outgoing in messages:
            queues = [queue for queue in self._queues.values() if queue.hears(outgoing)]
            fates.append(Fate.CONFIRMED if queues else Fate.UNROUTABLE)
            for queue in queues:
                waits = queue.spec.durable and outgoing.exchange != Exchange.JOBS
                done = queue.put(outgoing, confirm=waits)
                if done is None or done.done():
                    continue
                if queue.subscribers:
                    handled.append(done)
                else:
                    unheard.append(queue.spec.name)
        if unheard:
            raise BrokerUnavailable(f"nobody listens to {', '.join(sorted(set(unheard)))} yet")
        if handled:
            await self._all_handled(handled)
        return fates

    def hint(self, message: Outgoing) -> None:
        """Say it once, in the next turn of the event loop."""
        if not message.message_id:
            message = msgspec.structs.replace(message, message_id=uuid.uuid4().hex)
        asyncio.get_running_loop().call_soon(self._deliver_hint, message)

    def subscribe(
        self,
        queue: QueueSpec,
        handler: Handler,
        *,
        prefetch: int = 16,
        on_ready: Callable[[], Awaitable[None]] | None = None,
    ) -> AbstractAsyncContextManager[Subscription]:
        """Hand the queue's messages to `handler` for as long as the context lasts."""
        return self._subscribe(queue, handler, prefetch, on_ready)

    async def ready_count(self, queue: QueueSpec) -> int | None:
        """Return how many messages wait; 0 for a queue that nobody has declared."""
        known = self._queues.get(queue.name)
        return len(known.waiting) if known else 0

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest buried messages; they stay where they are."""
        return [letter for letter, _ in list(self._dead_letters)[:limit]]

    async def replay(self, limit: int = 100) -> int:
        """Put up to `limit` buried messages back into the queues they came from and return how many went."""
        replayed = 0
        for letter, spec in [self._dead_letters.popleft() for _ in range(min(limit, len(self._dead_letters)))]:
            queue = self._queues.get(spec.name)
            if queue is None:
                self._dead_letters.append((letter, spec))
                continue
            queue.put(
                Outgoing(
                    exchange=spec.exchange,
                    key=letter.key,
                    body=letter.body,
                    message_id=letter.message_id,
                    traceparent=letter.traceparent,
                ),
                confirm=False,
            )
            replayed += 1
        return replayed

    def _declare(self, spec: QueueSpec) -> _Queue:
        queue = self._queues.get(spec.name)
        if queue is None:
            queue = self._queues[spec.name] = _Queue(spec, set(spec.keys))
        else:
            queue.keys.update(spec.keys)
        return queue

    @asynccontextmanager
    async def _subscribe(
        self, spec: QueueSpec, handler: Handler, prefetch: int, on_ready: Callable[[], Awaitable[None]] | None
    ) -> AsyncIterator[MemorySubscription]:
        queue = self._declare(spec)
        handling = Handling(spec.name, handler, self._rng)
        subscription = MemorySubscription(queue, handling, prefetch, self._bury)
        queue.subscribers.append(subscription)
        handling.start(handling.announce(on_ready))
        queue.hand_out()
        try:
            yield subscription
        finally:
            await subscription.end()
            if not spec.durable:
                self._queues.pop(spec.name, None)

    async def _all_handled(self, handled: Sequence[asyncio.Future[None]]) -> None:
        _, late = await asyncio.wait(handled, timeout=self._confirm_timeout.total_seconds())
        if late or any(future.cancelled() for future in handled):
            raise BrokerUnavailable(f"{len(late)} of {len(handled)} events have not been handled yet")

    def _deliver_hint(self, message: Outgoing) -> None:
        for queue in self._queues.values():
            if queue.hears(message):
                try:
                    queue.put(message, confirm=False)
                except BrokerUnavailable as full:
                    log.warning("hint dropped", extra={"queue": queue.spec.name, "reason": str(full)})

    def _bury(self, queue: _Queue, message: _Message, reason: str) -> None:
        letter = DeadLetter(
            queue=queue.spec.name,
            key=message.outgoing.key,
            body=message.outgoing.body,
            message_id=message.outgoing.message_id,
            reason=reason,
            traceparent=message.outgoing.traceparent,
        )
        self._dead_letters.append((letter, queue.spec))
        count(Metric.MESSAGES_BURIED, queue=letter.queue)
        log.error("message buried", extra={"queue": letter.queue, "message_id": letter.message_id, "reason": reason})
