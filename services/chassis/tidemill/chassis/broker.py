"""The broker as the services see it: a port with two adapters, `rabbit` and `memory`.

    publish ── confirmed by the broker, or raises BrokerUnavailable; the outbox row goes only after that
    hint ───── said once, dropped when the broker is away or nobody listens (replies, followers, cancels)
    subscribe ─ durable queues hand each delivery to one subscriber until somebody acknowledges it

A delivery that its handler neither acknowledges nor gives back, because the process died, comes again. The memory
adapter confirms a publish to a durable queue only after its subscriber has handled the message, because nothing
outlives its process: the outbox row is then the only thing that does.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

import msgspec

from tidemill.shared.catalog import QueueSpec


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One encoded message on its way out."""

    exchange: str
    key: str
    body: bytes
    message_id: str
    traceparent: str | None = None


class Fate(StrEnum):
    """What became of a published message."""

    CONFIRMED = "confirmed"
    UNROUTABLE = "unroutable"
    """The broker took it and found no queue for its key."""


class BrokerUnavailable(Exception):
    """The broker can't be reached at this moment; it is being reconnected to."""


class Delivery(Protocol):
    """One message that was handed to a subscriber; one of the three verbs has to follow, the first one counts.

    A verb never fails for want of a connection, except `bury`: what could not be said to the broker makes the message
    come again.
    """

    @property
    def body(self) -> bytes: ...
    @property
    def key(self) -> str: ...
    @property
    def message_id(self) -> str: ...
    @property
    def traceparent(self) -> str | None: ...

    async def ack(self) -> None:
        """Take it off the queue: its work is safe elsewhere."""

    async def give_back(self) -> None:
        """Put it back, for another subscriber or a later moment."""

    async def bury(self, reason: str) -> None:
        """Send it to the dead letters with the reason: it can't be read, now or ever.

        Raises BrokerUnavailable when the dead letters can't be reached; a handler lets that pass.
        """


Handler = Callable[[Delivery], Awaitable[None]]


class Subscription(Protocol):
    """A live subscription; leaving its context cancels its handlers and gives back what was not acknowledged."""

    async def pause(self) -> None:
        """Stop deliveries and give back what was delivered but not yet taken up by the handler."""

    async def resume(self) -> None:
        """Let deliveries come again."""

    async def bind(self, key: str) -> None:
        """Also hear this key from now on (only process-bound queues); while the broker is away, from its return."""

    async def unbind(self, key: str) -> None:
        """No longer hear this key."""


class Broker(Protocol):
    """What a service may ask of the broker."""

    @property
    def connected(self) -> bool:
        """Whether a publish would have a chance now."""

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Fate]:
        """Return each message's fate once the broker has confirmed all; raises BrokerUnavailable when it can't."""

    def hint(self, message: Outgoing) -> None:
        """Say it once without waiting; it is lost when the broker is away or nobody listens."""

    def subscribe(
        self,
        queue: QueueSpec,
        handler: Handler,
        *,
        prefetch: int = 16,
        on_ready: Callable[[], Awaitable[None]] | None = None,
    ) -> AbstractAsyncContextManager[Subscription]:
        """Declare the queue and hand its messages to `handler`, for as long as the context lasts.

        Survives every outage: queue, bindings and consumer are made again after a reconnect, and `on_ready` is
        awaited each time the queue stands, because messages to a process-bound queue may have been missed.
        Handlers of one subscription run side by side, up to `prefetch`. One that raises has its message sent to the
        end of the queue after a pause that grows; when it raises again and again while others go well, the message is
        buried. Entering the context never waits for the broker.
        """

    async def ready_count(self, queue: QueueSpec) -> int | None:
        """Return how many messages wait in a durable queue (0 if there is none), or None when it can't be told now."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was buried, and why."""

    queue: str
    key: str
    body: bytes
    message_id: str
    reason: str
    traceparent: str | None = None


class DeadLetterOffice(Protocol):
    """What an operator may do with buried messages; both adapters are one."""

    async def dead_letters(self, limit: int = 100) -> Sequence[DeadLetter]:
        """Return the oldest buried messages; they stay where they are."""

    async def replay(self, limit: int = 100) -> int:
        """Put up to `limit` buried messages back into the queues they came from and return how many went."""
