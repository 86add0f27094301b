"""The scheduler on real Postgres: what is due, lost, stranded or forgotten gets on without anybody asking."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.queue import Queue, a_job, queue_of
from tests.support.services import running
from tests.support.waiting import eventually
from tidemill.chassis.broker import Broker
from tidemill.scheduler.service import SERVICE
from tidemill.shared.catalog import tickets


@pytest.fixture
async def queue(own_database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    async with queue_of(own_database_urls) as queue:
        yield queue


@pytest.fixture
async def broker(own_database_urls: DatabaseUrls, queue: Queue) -> AsyncIterator[Broker]:
    settings = {"TIDEMILL_LEASE": "500ms", "TIDEMILL_BEAT": "100ms", "TIDEMILL_RETENTION": "10d"}
    async with running(own_database_urls, SERVICE, settings=settings) as broker:
        yield broker


async def first_ticket(broker: Broker, tag: str) -> Any:
    """Return the first ticket that comes for a tag."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(delivery: Any) -> None:
        await heard.put(delivery.body)
        await delivery.ack()

    async with broker.subscribe(tickets(tag), hear):
        return json.loads(await asyncio.wait_for(heard.get(), 20))["data"]


async def test_a_scheduled_job_enters_the_line_at_its_time(queue: Queue, broker: Broker) -> None:
    job = await queue.request(a_job(due_in_ms=400))
    assert await queue.state_of(job) == "scheduled"
    assert (await first_ticket(broker, "python3"))["job_id"] == str(job)
    assert await queue.state_of(job) == "queued"


async def test_a_job_of_a_silent_worker_is_queued_again(queue: Queue, broker: Broker) -> None:
    await queue.start_worker()
    claim = await queue.a_claim()

    async def queued() -> bool:
        return await queue.state_of(claim.job_id) == "queued"

    await eventually(queued)
    assert (await queue.live(claim.job_id))["lost_claims"] == 1
    assert await queue.finish(claim) == "stale"


async def test_a_job_whose_workers_keep_dying_fails_and_says_so(queue: Queue, broker: Broker) -> None:
    await queue.start_worker()
    job = await queue.request(a_job())
    for _ in range(3):
        assert await eventually(lambda: queue.claim()) is not None

    async def failed() -> Any:
        row = await queue.job(job)
        return row if row["outcome"] else None

    row = await eventually(failed)
    assert row["outcome"] == "failure"
    assert json.loads(row["result"])["error"]["name"] == "WorkerLost"


async def test_a_message_whose_sender_died_is_relayed(queue: Queue, broker: Broker) -> None:
    job = await queue.request(a_job())
    assert (await first_ticket(broker, "python3"))["job_id"] == str(job)

    async def forgotten() -> bool:
        return await queue.outbox() == []

    await eventually(forgotten)


async def test_a_lost_ticket_is_written_again(queue: Queue, broker: Broker) -> None:
    job = await queue.request(a_job(tag="bash"))
    await queue.look.execute("DELETE FROM bus.outbox")
    await queue.look.execute("UPDATE queue.live_job SET hinted_at = clock_timestamp() - interval '1 hour'")
    assert (await first_ticket(broker, "bash"))["job_id"] == str(job)


async def test_days_beyond_the_retention_are_dropped_and_what_must_stay_moves_on(
    own_database_urls: DatabaseUrls, queue: Queue
) -> None:
    await queue.start_worker()
    long_ago = datetime.now(UTC) - timedelta(days=20)
    old, late, unfinished = (id_at(long_ago) for _ in range(3))
    for job in (old, late):
        await queue.request(a_job(id=job))
        await queue.finish(await queue.claimed())
    await queue.request(a_job(id=unfinished))
    await queue.look.execute("UPDATE queue.finished_job SET finished_at = $2 WHERE id = $1", old, long_ago)
    async with running(own_database_urls, SERVICE, settings={"TIDEMILL_RETENTION": "10d"}):

        async def dropped() -> bool:
            return bool(await queue.look.fetchval("SELECT to_regclass($1) IS NULL", f"queue.job_p{long_ago:%Y%m%d}"))

        await eventually(dropped)
    of_the_day = "SELECT array_agg(relname) FROM pg_class WHERE relname LIKE '%\\_p' || $1"
    assert len(await queue.look.fetchval(of_the_day, f"{datetime.now(UTC):%Y%m%d}")) > 1
    assert await queue.look.fetchval(of_the_day, f"{long_ago:%Y%m%d}") is None
    assert await queue.look.fetchval("SELECT count(*) FROM queue.job WHERE id = $1", old) == 0
    assert (await queue.job(late))["outcome"] == "success"
    assert await queue.state_of(unfinished) == "queued"
    claim = await queue.claimed()
    assert claim.job_id == unfinished
    assert await queue.finish(claim) == "done"
    assert (await queue.job(unfinished))["outcome"] == "success"


def id_at(moment: datetime) -> uuid.UUID:
    """Return a UUIDv7 of another time."""
    millis = int(moment.timestamp() * 1000)
    tail = uuid.uuid4().int & ((1 << 62) - 1)
    return uuid.UUID(int=(millis << 80) | (0x7 << 76) | (0x2 << 62) | tail)
