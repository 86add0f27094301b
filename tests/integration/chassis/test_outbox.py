"""The outbox: said in the transaction, published after the commit, forgotten after the confirm."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest

from tests.support.database import DatabaseUrls
from tests.support.queue import Queue, queue_of
from tests.support.waiting import eventually
from tidemill.chassis.broker import BrokerUnavailable, Delivery, Fate, Outgoing
from tidemill.chassis.database import Database
from tidemill.chassis.memory import MemoryBroker
from tidemill.chassis.outbox import Outbox
from tidemill.chassis.service import background
from tidemill.shared.catalog import AUDIT_EVENTS, Service
from tidemill.shared.messages import AuditRecorded, WorkerAnnounced

ENTRY = AuditRecorded(
    workspace_id="w",
    at=datetime(2026, 11, 23, tzinfo=UTC),
    username="ann",
    email="ann@example.com",
    operation="scripts.create",
    action_kind="Created",
    resource="u/ann/x",
)


class Away(MemoryBroker):
    """A broker that can't be reached."""

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Fate]:
        raise BrokerUnavailable("away")


@pytest.fixture
async def database(own_database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with Database(own_database_urls[Service.API], name="api") as database:
        yield database


@pytest.fixture
async def queue(own_database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    async with queue_of(own_database_urls) as queue:
        yield queue


async def test_what_was_said_is_published_and_then_forgotten(database: Database, queue: Queue) -> None:
    broker = MemoryBroker()
    heard: list[bytes] = []

    async def hear(delivery: Delivery) -> None:
        heard.append(delivery.body)
        await delivery.ack()

    outbox = Outbox(database, broker)
    async with broker.subscribe(AUDIT_EVENTS, hear), background(outbox.run()):
        async with outbox.transaction() as tx:
            await tx.say(ENTRY)

        async def forgotten() -> bool:
            return await queue.outbox() == []

        await eventually(forgotten)
    assert len(heard) == 1


async def test_what_was_said_in_a_transaction_that_failed_was_never_said(database: Database, queue: Queue) -> None:
    outbox = Outbox(database, MemoryBroker())
    with pytest.raises(ZeroDivisionError):
        await say_and_fail(outbox)
    assert await queue.outbox() == []


async def say_and_fail(outbox: Outbox) -> None:
    async with outbox.transaction() as tx:
        await tx.say(ENTRY)
        raise ZeroDivisionError


async def test_while_the_broker_is_away_the_row_stays(database: Database, queue: Queue) -> None:
    outbox = Outbox(database, Away())
    async with outbox.transaction() as tx:
        await tx.say(ENTRY)
    await outbox.drain()
    (row,) = await queue.outbox()
    assert row["key"] == "audit.scripts.create"


async def test_a_service_may_say_only_what_the_catalog_lets_it_say(database: Database, queue: Queue) -> None:
    outbox = Outbox(database, MemoryBroker())
    message = WorkerAnnounced(worker_run=queue.run, name="forged", tags=["x"])
    with pytest.raises(Exception, match=r"tidemill_api may not say worker\.announced\.v1"):
        async with outbox.transaction() as tx:
            await tx.say(message)
