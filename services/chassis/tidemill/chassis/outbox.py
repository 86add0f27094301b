"""The transactional outbox: a message is a row of the transaction that it tells about, until the broker confirms it.

    transaction ── bus.say() writes the row ── commit ─┬─ fast path: published at once, then the row is forgotten
                                                       └─ it died here: the scheduler's relay finds the row, 1 s later

Published messages may come twice, so every consumer is idempotent. Rows are forgotten in batches, because a delete and
its commit for each message would cost as much as the job itself.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from tidemill.chassis.broker import Broker, BrokerUnavailable, Fate, Outgoing
from tidemill.chassis.database import Database, Transaction
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.telemetry import current_traceparent
from tidemill.shared.catalog import BY_MESSAGE, Exchange, routing_key
from tidemill.shared.message import Message, wrap

log = logging.getLogger(__name__)

_BATCH = 200
_LINGER = 0.1


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One outbox row, as `bus.say()` and the functions built on it return it."""

    id: int
    exchange: str
    key: str
    message_id: str
    body: str
    traceparent: str | None = None


_said = msgspec.json.Decoder(list[Said])


def to_say(messages: Sequence[Message]) -> str:
    """Return messages as the list that `bus.say_all()` and the queue's functions take, in the present trace."""
    here = current_traceparent()
    return msgspec.json.encode(
        [{"type": each.TYPE, "key": routing_key(each), "data": each, "traceparent": here} for each in messages]
    ).decode()


class SayingTransaction(Transaction):
    """A transaction that remembers what was said in it, so that it can be published after the commit."""

    def __init__(self, transaction: Transaction) -> None:
        super().__init__(transaction.connection, transaction.lost)
        self.said: list[str] = []

    async def say(self, *messages: Message) -> None:
        """Write messages into the outbox as part of this transaction."""
        self.said.append(await self.fetchval("SELECT bus.say_all($1, $2)", to_say(messages), current_traceparent()))


class Outbox:
    """The fast path of one process: what its transactions said goes out right after they have committed."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._publishing: set[asyncio.Task[int]] = set()
        self._confirmed: list[int] = []
        self._something_confirmed = asyncio.Event()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SayingTransaction]:
        """Open a transaction in which messages can be said; they are published once it has committed."""
        async with self._database.transaction() as inner:
            transaction = SayingTransaction(inner)
            yield transaction
        for said in transaction.said:
            self.publish_soon(said)

    def publish_soon(self, said: str | None) -> None:
        """Publish what a committed statement returned as said, in the background; None and `[]` are nothing."""
        if said is None or said == "[]":
            return
        messages = _said.decode(said)
        task = asyncio.create_task(self._publish(messages))
        self._publishing.add(task)
        task.add_done_callback(self._publishing.discard)

    async def relay(self, stranded: str) -> int:
        """Publish rows that a dead process left behind and return how many the broker has confirmed."""
        return await self._publish(_said.decode(stranded))

    async def run(self) -> None:
        """Forget confirmed rows in batches, for as long as the process lives."""
        while True:
            await self._something_confirmed.wait()
            await asyncio.sleep(_LINGER)
            await self._forget()

    async def drain(self) -> None:
        """Wait for what is being published and forget what was confirmed: the last act of a good end."""
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=5)
        await self._forget()

    async def _publish(self, messages: Sequence[Said]) -> int:
        try:
            fates = await self._broker.publish([_outgoing(each) for each in messages])
        except BrokerUnavailable:
            # The rows stay; the relay publishes them when the broker is back.
            return 0
        confirmed = [each.id for each, fate in zip(messages, fates, strict=True) if _is_settled(each, fate)]
        self._confirmed += confirmed
        if self._confirmed:
            self._something_confirmed.set()
        return len(confirmed)

    async def _forget(self) -> None:
        while self._confirmed:
            batch = self._confirmed[:_BATCH]
            try:
                await self._database.execute("SELECT bus.forget($1)", batch)
            except DatabaseUnavailable:
                # They will be published once more by the relay: consumers are idempotent.
                self._confirmed.clear()
                break
            del self._confirmed[: len(batch)]
        self._something_confirmed.clear()


def _outgoing(said: Said) -> Outgoing:
    return Outgoing(
        exchange=said.exchange,
        key=said.key,
        body=said.body.encode(),
        message_id=said.message_id,
        traceparent=said.traceparent,
    )


def _is_settled(said: Said, fate: Fate) -> bool:
    # A ticket that no worker's queue takes is dropped: `explain` says so, and the row is hinted at again.
    return fate is Fate.CONFIRMED or said.exchange == Exchange.JOBS


def hint_of(message: Message, source: str, **also: str) -> Outgoing:
    """Return a message that is said once and never written down: a reply, a follower's update, a cancel."""
    message_id = str(uuid.uuid4())
    return Outgoing(
        exchange=BY_MESSAGE[type(message)].exchange,
        key=routing_key(message, **also),
        body=wrap(message, source, message_id=message_id),
        message_id=message_id,
        traceparent=current_traceparent(),
    )
