"""A durable queue's messages on their way to the handlers of one service: opened, traced, handled, acknowledged.

What can't be read is buried at once. What a handler can't do now, because a neighbour is away, is given back and comes
again; every handler is idempotent, because every message may come twice.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from opentelemetry.trace import SpanKind

from tidemill.chassis.broker import Broker, Delivery, Subscription
from tidemill.chassis.telemetry import span
from tidemill.shared.catalog import QueueSpec
from tidemill.shared.message import BrokenMessage, Envelope, Message, open_envelope, read

log = logging.getLogger(__name__)

Handler = Callable[[Any, Envelope], Awaitable[None]]
"""Takes the message, of the type that its table names, and the envelope it came in."""


def listen(
    broker: Broker, queue: QueueSpec, handlers: Mapping[type[Message], Handler], *, prefetch: int = 16
) -> AbstractAsyncContextManager[Subscription]:
    """Hand the queue's messages to their handlers for as long as the context lasts."""
    kinds = {kind.TYPE: (kind, handler) for kind, handler in handlers.items()}

    def opened(body: bytes) -> tuple[Handler, Message, Envelope]:
        envelope = open_envelope(body)
        if envelope.type not in kinds:
            raise BrokenMessage(f"nobody here handles {envelope.type}")
        kind, handler = kinds[envelope.type]
        return handler, read(envelope, kind), envelope

    async def handle(delivery: Delivery) -> None:
        try:
            handler, message, envelope = opened(delivery.body)
        except BrokenMessage as broken:
            log.warning("message buried", extra={"queue": queue.name, "reason": str(broken)})
            await delivery.bury(str(broken))
            return
        with span(f"process {queue.name}", kind=SpanKind.CONSUMER, parent=delivery.traceparent):
            await handler(message, envelope)
        await delivery.ack()

    return broker.subscribe(queue, handle, prefetch=prefetch)
