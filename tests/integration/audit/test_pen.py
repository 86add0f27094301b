"""Entries that are written down together: all of them stand, and one that can't stand keeps no other out."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.integration.audit.conftest import Log, an_event
from tidemill.audit.pen import LARGEST_BATCH, Pen
from tidemill.audit.store import entries
from tidemill.audit.store.entries import Event
from tidemill.chassis.service import background


@pytest.fixture
async def pen(log: Log) -> AsyncIterator[Pen]:
    pen = Pen(log.database)
    async with background(pen.run()):
        yield pen


def events(count: int) -> list[Event]:
    return [Event(uuid.uuid4(), an_event(resource=str(number))) for number in range(count)]


async def written(log: Log) -> list[str]:
    rows = await entries.next_entries(log.database, "w", entries.BEFORE_ALL, 10_000)
    return [row.resource for row in rows]


async def test_events_of_one_moment_stand_in_their_order(log: Log, pen: Pen) -> None:
    count = LARGEST_BATCH + 10
    await asyncio.gather(*(pen.write(event) for event in events(count)))
    assert await written(log) == [str(number) for number in range(count)]
    assert await log.findings() == []


async def test_an_event_stands_when_its_writer_goes_on(log: Log, pen: Pen) -> None:
    for event in events(3):
        await pen.write(event)
        assert (await written(log))[-1] == event.said.resource


async def test_one_that_can_not_be_written_down_keeps_no_other_out(log: Log, pen: Pen) -> None:
    broken = Event(uuid.uuid4(), an_event(resource="no\0text"))
    first, last = events(2)
    answers = await asyncio.gather(*(pen.write(each) for each in (first, broken, last)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), asyncpg.CharacterNotInRepertoireError, type(None)]
    assert await written(log) == ["0", "1"]


async def test_a_writer_that_gave_up_leaves_the_others_alone(log: Log, pen: Pen) -> None:
    given_up, kept = (asyncio.ensure_future(pen.write(each)) for each in events(2))
    await asyncio.sleep(0)
    given_up.cancel()
    await kept
    assert "1" in await written(log)
