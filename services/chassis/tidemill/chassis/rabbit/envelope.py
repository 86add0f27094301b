"""What a message looks like in RabbitMQ: properties and headers, in both directions."""

from collections.abc import Mapping
from typing import Final, Literal

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from tidemill.chassis.broker import DeadLetter
from tidemill.shared.message import CONTENT_TYPE

TRACEPARENT: Final = "traceparent"
KEY: Final = "tidemill-key"
"""The routing key that it was first published with, when it has been put somewhere by the name of a queue."""
QUEUE: Final = "tidemill-queue"
"""Where a buried message comes from."""
REASON: Final = "tidemill-reason"

TRANSIENT: Final = 1
PERSISTENT: Final = 2


def properties(
    message_id: str,
    traceparent: str | None,
    *,
    delivery_mode: Literal[1, 2] = PERSISTENT,
    also: Mapping[str, str] | None = None,
) -> Basic.Properties:
    """Return the properties of a message on its way out."""
    headers = dict(also or {})
    if traceparent is not None:
        headers[TRACEPARENT] = traceparent
    return Basic.Properties(
        content_type=CONTENT_TYPE,
        delivery_mode=delivery_mode,
        message_id=message_id,
        headers=dict(headers) or None,
    )


def headers_of(message: DeliveredMessage) -> Mapping[str, object]:
    """Return the headers, empty when there are none."""
    return message.header.properties.headers or {}


def text(headers: Mapping[str, object], name: str) -> str | None:
    """Return a header that is text."""
    value = headers.get(name)
    return value if isinstance(value, str) else None


def number(headers: Mapping[str, object], name: str) -> int:
    """Return a header that is a number, 0 without it."""
    value = headers.get(name)
    return value if isinstance(value, int) else 0


def key_of(message: DeliveredMessage) -> str:
    """Return the routing key that the message was first published with."""
    return text(headers_of(message), KEY) or message.routing_key or ""


def dead_letter(message: DeliveredMessage) -> DeadLetter:
    """Return a buried message: buried by us, or by RabbitMQ after too many deliveries (its `x-death` header)."""
    headers = headers_of(message)
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}
    return DeadLetter(
        queue=text(headers, QUEUE) or text(last, "queue") or "",
        key=key_of(message),
        body=message.body,
        message_id=message.header.properties.message_id or "",
        reason=text(headers, REASON) or text(last, "reason") or "unknown",
        traceparent=text(headers, TRACEPARENT),
    )
