"""The audit service on real Postgres: every event once, however often it comes."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from tests.support.database import DatabaseUrls
from tests.support.services import running
from tests.support.waiting import eventually
from tidemill.audit.service import SERVICE
from tidemill.chassis.broker import Fate, Outgoing
from tidemill.chassis.memory import MemoryBroker
from tidemill.shared.catalog import Exchange, Service
from tidemill.shared.message import wrap
from tidemill.shared.messages import AuditRecorded

ENTRY = AuditRecorded(
    workspace_id="w",
    at=datetime(2026, 11, 23, tzinfo=UTC),
    username="ann",
    email="ann@example.com",
    operation="scripts.create",
    action_kind="Created",
    resource="u/ann/x",
    parameters={"hash": "0011223344556677"},
)


def event(message_id: uuid.UUID) -> Outgoing:
    return Outgoing(
        exchange=Exchange.EVENTS,
        key="audit.scripts.create",
        body=wrap(ENTRY, "/tidemill/api", message_id=str(message_id)),
        message_id=str(message_id),
    )


async def entries(urls: DatabaseUrls) -> list[Any]:
    connection = await asyncpg.connect(urls[Service.AUDIT])
    try:
        return await connection.fetch("SELECT * FROM audit.entry ORDER BY id")
    finally:
        await connection.close()


async def test_an_event_is_written_down_once(own_database_urls: DatabaseUrls) -> None:
    event_id = uuid.uuid4()
    async with running(own_database_urls, SERVICE) as broker:
        assert list(await broker.publish([event(event_id), event(event_id)])) == [Fate.CONFIRMED] * 2
    (entry,) = await entries(own_database_urls)
    assert entry["event_id"] == event_id
    assert entry["resource"] == "u/ann/x"
    assert json.loads(entry["parameters"]) == {"hash": "0011223344556677"}


async def test_nobody_may_change_or_delete_an_entry(own_database_urls: DatabaseUrls) -> None:
    async with running(own_database_urls, SERVICE) as broker:
        await broker.publish([event(uuid.uuid4())])
    connection = await asyncpg.connect(own_database_urls[Service.AUDIT])
    try:
        for statement in ("UPDATE audit.entry SET username = 'bob'", "DELETE FROM audit.entry", "TRUNCATE audit.entry"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
    assert len(await entries(own_database_urls)) == 1


async def test_a_message_that_can_not_be_read_is_buried_and_the_next_one_is_heard(
    own_database_urls: DatabaseUrls,
) -> None:
    broker = MemoryBroker()
    async with running(own_database_urls, SERVICE, broker=broker):
        broken = Outgoing(exchange=Exchange.EVENTS, key="audit.x", body=b"not a CloudEvent", message_id="broken")
        await broker.publish([broken, event(uuid.uuid4())])

        async def heard() -> bool:
            return len(await entries(own_database_urls)) == 1

        await eventually(heard)
