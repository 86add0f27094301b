"""One live connection to RabbitMQ with its publishing channels; once lost it is never used again."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final, Self

from aiormq import (
    AMQPError,
    Channel,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelPreconditionFailed,
    Connection,
    PublishError,
)
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic
from yarl import URL

from tidemill.chassis.broker import BrokerUnavailable, Fate
from tidemill.chassis.rabbit import topology
from tidemill.chassis.rabbit.topology import QueueType
from tidemill.shared.catalog import DURABLE_QUEUES, QueueSpec

log = logging.getLogger(__name__)

HEARTBEAT: Final = timedelta(seconds=10)
STEP: Final = timedelta(seconds=5)
"""How long one question to the broker may take."""
OPENING: Final = timedelta(seconds=20)
STEP_SECONDS: Final = STEP.total_seconds()


@contextmanager
def lost_as_unavailable() -> Iterator[None]:
    """Raise BrokerUnavailable for whatever the library raises when its connection or channel is gone."""
    try:
        yield
    except asyncio.CancelledError:
        # The library cancels what waits on a closing connection, although nobody asked this task to stop.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable("the connection was closed") from None
    except (AMQPError, OSError, TimeoutError, ChannelInvalidStateError) as error:
        raise BrokerUnavailable(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """Return an error in one line; the library's own text when it has one."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


class _Connection(Connection):
    # Two missed heartbeats instead of three: a silent partition is noticed after 22 s.
    HEARTBEAT_GRACE_MULTIPLIER = 2


class Link:
    """An open connection: `say` with a confirm, `whisper` without."""

    def __init__(
        self, connection: Connection, confirming: AbstractChannel, whispering: Channel, queue_type: QueueType
    ) -> None:
        self.queue_type = queue_type
        self.lost = asyncio.Event()
        self._connection = connection
        self._confirming = confirming
        self._whispering = whispering
        self._saying: dict[str, asyncio.Future[None]] = {}
        self.why_lost = ""
        for part in (connection, confirming, whispering):
            part.closing.add_done_callback(self._note_loss)

    @classmethod
    async def open(cls, url: URL, name: str, queue_type: QueueType) -> Self:
        """Connect, open the channels and declare what everybody needs; raises BrokerUnavailable."""
        connection = _Connection(url.update_query(heartbeat=str(int(HEARTBEAT.total_seconds())), name=name))
        try:
            with lost_as_unavailable():
                async with asyncio.timeout(OPENING.total_seconds()):
                    await connection.connect()
                    confirming = await connection.channel(publisher_confirms=True)
                    whispering = await connection.channel(publisher_confirms=False)
                    assert isinstance(whispering, Channel)  # `wait` is not part of its abstract class
                    link = cls(connection, confirming, whispering, queue_type)
                    await link._declare_all()
        except BaseException:
            await _close(connection)
            raise
        return link

    async def close(self) -> None:
        """Close the connection; a peer that does not answer is left behind."""
        await _close(self._connection)

    async def unblocked(self) -> None:
        """Return once the broker takes messages: it refuses them while it is short of memory or disk."""
        await self._connection.ready()

    async def channel(self) -> AbstractChannel:
        """Open one more channel; raises BrokerUnavailable."""
        if self._connection.is_closed:
            raise BrokerUnavailable("the connection was closed")
        with lost_as_unavailable():
            async with asyncio.timeout(STEP_SECONDS):
                return await self._connection.channel(publisher_confirms=False)

    async def say(self, exchange: str, key: str, body: bytes, properties: Basic.Properties) -> Fate:
        """Publish and await the confirm; raises BrokerUnavailable, and waits as long as the caller lets it."""
        message_id = properties.message_id or ""
        # The library tells returned messages apart by their id alone, so the same id goes out once at a time.
        while (earlier := self._saying.get(message_id)) is not None:
            await asyncio.wait([earlier])
        said = self._saying[message_id] = asyncio.get_running_loop().create_future()
        try:
            with lost_as_unavailable():
                await self._confirming.basic_publish(
                    body, exchange=exchange, routing_key=key, properties=properties, mandatory=True
                )
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, PublishError):
                return Fate.UNROUTABLE
            raise
        finally:
            del self._saying[message_id]
            said.set_result(None)
        return Fate.CONFIRMED

    async def whisper(self, exchange: str, key: str, body: bytes, properties: Basic.Properties, *, drain: bool) -> None:
        """Publish without a confirm; with `drain`, not faster than the network takes it."""
        with lost_as_unavailable():
            await self._whispering.basic_publish(
                body, exchange=exchange, routing_key=key, properties=properties, wait=drain
            )

    async def declare(self, channel: AbstractChannel, queue: QueueSpec) -> AbstractChannel:
        """Declare a queue and return the channel to go on with: a refusal has closed the given one.

        A durable queue that already stands with other arguments is used as it is, because it may hold messages.
        """
        try:
            await topology.declare(channel, queue, self.queue_type, STEP_SECONDS)
        except ChannelPreconditionFailed as refusal:
            log.error(
                "queue stands with other arguments and is used as it is; to have it made anew with the configured"
                " ones, let it run empty and delete it",
                extra={"queue": queue.name, "queue_type": self.queue_type, "reason": str(refusal)},
            )
            channel = await self.channel()
            await topology.bind(channel, queue, STEP_SECONDS)
        except ChannelAccessRefused as refusal:
            log.error(
                "broker user may not declare this queue; give it configure, write and read permission for it",
                extra={"queue": queue.name, "reason": str(refusal)},
            )
            raise
        return channel

    def _note_loss(self, closing: asyncio.Future[None]) -> None:
        if not self.lost.is_set() and not closing.cancelled() and (error := closing.exception()) is not None:
            self.why_lost = reason_of(error)
        self.lost.set()

    async def _declare_all(self) -> None:
        channel = await self.channel()
        try:
            await topology.declare_exchanges(channel, STEP_SECONDS)
        except ChannelAccessRefused:
            # A service's own user: whoever made it has declared what all share, and a listener declares its queue.
            channel = await self.channel()
            await topology.find_exchanges(channel, STEP_SECONDS)
            await channel.close()
            return
        try:
            await topology.declare_dead_letters(channel, self.queue_type, STEP_SECONDS)
        except ChannelPreconditionFailed as refusal:
            log.error(
                "dead-letter queue stands with other arguments and is used as it is",
                extra={"queue_type": self.queue_type, "reason": str(refusal)},
            )
            channel = await self.channel()
        for queue in DURABLE_QUEUES:
            channel = await self.declare(channel, queue)
        await channel.close()


async def close_channel(channel: AbstractChannel) -> None:
    """Close a channel, which gives back everything that it holds."""
    with suppress(BrokerUnavailable), lost_as_unavailable():
        async with asyncio.timeout(STEP_SECONDS):
            await channel.close()


async def _close(connection: Connection) -> None:
    with suppress(BrokerUnavailable), lost_as_unavailable():
        async with asyncio.timeout(STEP_SECONDS):
            await connection.close()
