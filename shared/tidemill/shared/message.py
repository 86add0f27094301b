"""Message, the base of all that travels, and its envelope: CloudEvents 1.0 in structured JSON form.

`id` is the deduplication key. The W3C `traceparent` travels in the broker's headers, not in the body.
"""

import uuid
from datetime import UTC, datetime
from typing import ClassVar, TypeVar

import msgspec

CONTENT_TYPE = "application/cloudevents+json"


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened or is asked for; a new optional field keeps its version, all else is a new struct."""

    TYPE: ClassVar[str]
    """The CloudEvents type with its version, such as `job.ticket.v1`."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """One CloudEvents 1.0.2 event with its data still encoded."""

    id: str
    source: str
    type: str
    time: datetime
    data: msgspec.Raw
    specversion: str = "1.0"
    datacontenttype: str = "application/json"


class BrokenMessage(Exception):
    """The bytes are not a CloudEvent, or its data does not fit its type."""


_envelopes = msgspec.json.Decoder(Envelope)
M = TypeVar("M", bound=Message)


def wrap(message: Message, source: str, *, message_id: str | None = None, now: datetime | None = None) -> bytes:
    """Return the message as the bytes that travel; `source` names the service that says it, as in `/tidemill/api`."""
    return msgspec.json.encode(
        Envelope(
            id=message_id or str(uuid.uuid4()),
            source=source,
            type=message.TYPE,
            time=now or datetime.now(UTC),
            data=msgspec.Raw(msgspec.json.encode(message)),
        )
    )


def open_envelope(body: bytes) -> Envelope:
    """Return the envelope; raises BrokenMessage when the bytes are not a CloudEvent."""
    try:
        return _envelopes.decode(body)
    except msgspec.MsgspecError as error:
        raise BrokenMessage(f"not a CloudEvent: {error}") from error


def read(envelope: Envelope, kind: type[M]) -> M:
    """Return the envelope's data as `kind`; raises BrokenMessage when it does not fit."""
    if envelope.type != kind.TYPE:
        raise BrokenMessage(f"expected {kind.TYPE}, got {envelope.type}")
    try:
        return msgspec.json.decode(envelope.data, type=kind)
    except msgspec.MsgspecError as error:
        raise BrokenMessage(f"{kind.TYPE}: {error}") from error
