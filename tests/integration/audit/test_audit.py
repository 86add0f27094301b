"""The audit service on real Postgres: every event once, however often it comes."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.support.database import DatabaseUrls
from tests.support.services import running
from tests.support.waiting import eventually
from tidemill.audit.chain import is_signed
from tidemill.audit.key import kept
from tidemill.audit.service import SERVICE
from tidemill.audit.store import anchors
from tidemill.audit.verify import verify
from tidemill.chassis.broker import Fate, Outgoing
from tidemill.chassis.database import Database
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


def in_folder(home: Path) -> dict[str, str]:
    return {"TIDEMILL_HOME": str(home), "TIDEMILL_AUDIT_ANCHOR": "50ms"}


async def entries(urls: DatabaseUrls) -> list[Any]:
    connection = await asyncpg.connect(urls[Service.AUDIT])
    try:
        return await connection.fetch("SELECT * FROM audit.entry ORDER BY id")
    finally:
        await connection.close()


async def test_an_event_is_written_down_once(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    event_id = uuid.uuid4()
    async with running(own_database_urls, SERVICE, settings=in_folder(tmp_path)) as broker:
        assert list(await broker.publish([event(event_id), event(event_id)])) == [Fate.CONFIRMED] * 2
    (entry,) = await entries(own_database_urls)
    assert entry["event_id"] == event_id
    assert entry["resource"] == "u/ann/x"
    assert json.loads(entry["parameters"]) == {"hash": "0011223344556677"}


async def test_nobody_may_change_or_delete_an_entry(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    async with running(own_database_urls, SERVICE, settings=in_folder(tmp_path)) as broker:
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
    own_database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    broker = MemoryBroker()
    async with running(own_database_urls, SERVICE, settings=in_folder(tmp_path), broker=broker):
        broken = Outgoing(exchange=Exchange.EVENTS, key="audit.x", body=b"not a CloudEvent", message_id="broken")
        await broker.publish([broken, event(uuid.uuid4())])

        async def heard() -> bool:
            return len(await entries(own_database_urls)) == 1

        await eventually(heard)


async def test_what_was_written_down_is_signed_with_the_key_of_the_data_folder(
    own_database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    async with running(own_database_urls, SERVICE, settings=in_folder(tmp_path)) as broker:
        await broker.publish([event(uuid.uuid4()), event(uuid.uuid4())])
        async with Database(own_database_urls[Service.AUDIT], name="look") as database:
            anchor = await eventually(lambda: anchors.newest(database, "w"))
    assert anchor is not None
    assert is_signed(kept(tmp_path / "secrets" / "audit-key"), anchor)


async def test_two_replicas_keep_one_unbroken_chain(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    settings = in_folder(tmp_path)
    async with (
        running(own_database_urls, SERVICE, settings=settings) as one,
        running(own_database_urls, SERVICE, settings=settings) as two,
    ):
        events = [event(uuid.uuid4()) for _ in range(100)]
        await asyncio.gather(one.publish(events[:60]), two.publish(events[40:]))
    rows = await entries(own_database_urls)
    assert [row["seq"] for row in rows] == list(range(1, 101))
    async with Database(own_database_urls[Service.AUDIT], name="look") as database:
        key = kept(tmp_path / "secrets" / "audit-key")
        assert await verify(database, key, timedelta(minutes=1), lambda _: None) == []
