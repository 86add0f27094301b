"""What is declared in RabbitMQ, and with which arguments.

| what                | kind     | arguments                                                                     |
|---------------------|----------|-------------------------------------------------------------------------------|
| exchanges           | catalog  | durable                                                                       |
| again               | topic    | durable; each queue is bound to it by its own name                             |
| dead letters        | fanout   | durable exchange and queue of one name; never expires, never gives up          |
| durable queues      | classic  | dead-letter exchange                                                          |
|                     | quorum   | the same, at least once, and a delivery limit                                 |
| process-bound queue | classic  | exclusive, not durable: gone with its connection                              |

Process-bound queues are not auto-delete: pausing their only consumer would delete them.
"""

from collections.abc import Mapping
from typing import Final, Literal

from aiormq.abc import AbstractChannel
from pamqp.common import FieldTable

from tidemill.shared.catalog import AGAIN, DEAD_LETTERS, EXCHANGES, QueueSpec

QueueType = Literal["classic", "quorum"]

ALL_EXCHANGES: Final[Mapping[str, str]] = {
    **{exchange.value: kind for exchange, kind in EXCHANGES.items()},
    DEAD_LETTERS: "fanout",
    AGAIN: "topic",
}

DELIVERY_LIMIT: Final = 20
"""A message that came back so often kills its consumers. Said explicitly: the default differs between versions."""

NO_LIMIT: Final = 1_000_000
"""For the dead letters, where looking at a message counts as a delivery; -1 is not understood before 4.0."""


def arguments(queue: QueueSpec, queue_type: QueueType) -> FieldTable:
    """Return the arguments that a queue is declared with."""
    if not queue.durable:
        return {}
    if queue_type == "classic":
        return {"x-queue-type": "classic", "x-dead-letter-exchange": DEAD_LETTERS}
    return {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD_LETTERS,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # at-least-once dead-lettering asks for it
    }


def dead_letter_arguments(queue_type: QueueType) -> FieldTable:
    """Return the arguments of the queue that keeps the dead letters."""
    if queue_type == "classic":
        return {"x-queue-type": "classic"}
    return {"x-queue-type": "quorum", "x-delivery-limit": NO_LIMIT}


async def declare_exchanges(channel: AbstractChannel, timeout: float) -> None:
    """Declare all exchanges."""
    for exchange, kind in ALL_EXCHANGES.items():
        await channel.exchange_declare(exchange, exchange_type=kind, durable=True, timeout=timeout)


async def find_exchanges(channel: AbstractChannel, timeout: float) -> None:
    """Return when all exchanges stand; the library raises for the first one that doesn't."""
    for exchange in ALL_EXCHANGES:
        await channel.exchange_declare(exchange, passive=True, timeout=timeout)


async def declare_dead_letters(channel: AbstractChannel, queue_type: QueueType, timeout: float) -> None:
    """Declare the queue that keeps the dead letters."""
    await channel.queue_declare(
        DEAD_LETTERS, durable=True, arguments=dead_letter_arguments(queue_type), timeout=timeout
    )
    await channel.queue_bind(DEAD_LETTERS, DEAD_LETTERS, timeout=timeout)


async def declare(channel: AbstractChannel, queue: QueueSpec, queue_type: QueueType, timeout: float) -> None:
    """Declare one queue and bind the keys that it is born with."""
    await channel.queue_declare(
        queue.name,
        durable=queue.durable,
        exclusive=not queue.durable,
        arguments=arguments(queue, queue_type),
        timeout=timeout,
    )
    await bind(channel, queue, timeout)


async def bind(channel: AbstractChannel, queue: QueueSpec, timeout: float) -> None:
    """Bind the keys that a queue is born with, and its own name."""
    for exchange, key in bindings(queue):
        await channel.queue_bind(queue.name, exchange, key, timeout=timeout)


def bindings(queue: QueueSpec) -> list[tuple[str, str]]:
    """Return exchange and key of what a queue is born with."""
    return [*((queue.exchange.value, key) for key in queue.keys), (AGAIN, queue.name)]
