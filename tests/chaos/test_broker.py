"""RabbitMQ purged, stopped, out of patience, and full of what nobody can read, says twice or in the wrong order."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest

from tests.chaos.load import Load
from tests.chaos.site import CONSUMER_TIMEOUT, FINDINGS, SLOTS, Site
from tests.support.waiting import eventually
from tidemill.chassis.broker import Delivery, Fate, Outgoing
from tidemill.chassis.rabbit import RabbitBroker
from tidemill.shared.catalog import (
    AUDIT_EVENTS,
    DEAD_LETTERS,
    EXCHANGES,
    SCHEDULER_WAKEUPS,
    Exchange,
    QueueSpec,
    tickets,
)
from tidemill.shared.messages import AuditRecorded, JobScheduled

OUTAGE = 20
"""Seconds without RabbitMQ."""

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("site", ["distributed"], indirect=True)]


async def purged(site: Site, *queues: str) -> int:
    """Empty queues and return how many messages were lost."""
    lost = 0
    async with aiormq.connect(site.broker.url) as connection:
        channel = await connection.channel()
        for queue in queues:
            lost += (await channel.queue_purge(queue)).message_count or 0
    return lost


@asynccontextmanager
async def a_broker(site: Site) -> AsyncIterator[RabbitBroker]:
    """Connect to the installation's RabbitMQ for the block."""
    async with RabbitBroker(site.broker.url, "chaos") as broker:
        async with asyncio.timeout(30):
            await broker.link()
        yield broker


async def test_all_tickets_are_purged(site: Site) -> None:
    load = Load()
    busy = [await site.ask(load, seconds=2) for _ in range(SLOTS)]
    for job in busy:
        await site.running(job)
    for _ in range(10):
        await site.ask(load)
    lost = await purged(site, tickets("python3").name, tickets("bash").name, SCHEDULER_WAKEUPS.name)
    site.hurts()
    assert lost >= 10
    account = await site.kept(load)
    assert account.claims == {1: len(load.accepted)}
    await site.recovered(f"{lost} tickets purged, all of them ended and the slots tried")


async def test_every_queue_is_purged_under_load(site: Site) -> None:
    lost = 0
    async with site.clients(count=6, pause=0.05) as load:
        for _ in range(10):
            await site.until_accepted(load, len(load.accepted) + 5)
            lost += await purged(site, tickets("python3").name, SCHEDULER_WAKEUPS.name)
        site.hurts()
        await site.recovered("all queues of hints purged ten times under load")
    account = await site.kept(load)
    FINDINGS.append(f"purged under load: {lost} messages lost, {account.jobs} jobs, none of them")
    assert account.claims == {1: account.jobs}


async def test_rabbitmq_is_away_for_a_while_under_load(site: Site) -> None:
    async with site.clients(pause=0.4) as load:
        await site.until_accepted(load, 5)
        await site.broker.stop()
        before = len(load.accepted)
        await asyncio.sleep(OUTAGE)
        assert len(load.accepted) > before
        assert load.repeated == 0
        await site.broker.start()
        site.hurts()
        await site.recovered(f"RabbitMQ back after {OUTAGE} s under load")
    account = await site.kept(load)
    FINDINGS.append(f"RabbitMQ away: {account.jobs} jobs accepted, {account.rerun} run again")


async def test_a_job_may_last_longer_than_the_patience_of_the_broker(site: Site) -> None:
    load = Load()
    await site.ask(load, seconds=CONSUMER_TIMEOUT.total_seconds() + 2)
    account = await site.kept(load)
    assert account.outcomes == {"success": 1}
    assert account.claims == {1: 1}


async def test_what_nobody_can_read_is_buried_and_the_queues_go_on(site: Site) -> None:
    load = Load()
    poison = [
        ("audit.chaos", b"{bad"),
        ("audit.chaos", f'{{"type": "{AuditRecorded.TYPE}"}}'.encode()),
        ("audit.chaos", unknown(AuditRecorded.TYPE.replace(".v1", ".v999"))),
        ("job.scheduled", unknown(JobScheduled.TYPE.replace(".v1", ".v999"))),
        ("job.scheduled", b"\x00\xff"),
    ]
    async with a_broker(site) as broker:

        async def buried() -> bool:
            return len(await broker.dead_letters()) == len(poison)

        fates = await broker.publish(
            [
                Outgoing(exchange=Exchange.EVENTS, key=key, body=body, message_id=f"poison-{no}")
                for no, (key, body) in enumerate(poison)
            ]
        )
        assert set(fates) == {Fate.CONFIRMED}
        await eventually(buried, 30)
        await site.ask(load, query={"scheduled_in_secs": 1})
        await site.kept(load)
        letters = await broker.dead_letters()
        assert {letter.queue for letter in letters} == {AUDIT_EVENTS.name, SCHEDULER_WAKEUPS.name}
        assert all(letter.reason for letter in letters)
        # Still unreadable when they are replayed: they come back and hurt nobody.
        assert await broker.replay() == len(poison)
        await eventually(buried, 30)
    assert await purged(site, DEAD_LETTERS) == len(poison)
    await site.kept(load)


def unknown(kind: str) -> bytes:
    """Return an event of a type that nobody here knows."""
    envelope = {"id": str(uuid.uuid4()), "source": "/chaos", "type": kind, "time": "2026-01-01T00:00:00Z", "data": {}}
    return json.dumps(envelope).encode()


async def test_everything_is_said_three_times_and_in_the_wrong_order(site: Site) -> None:
    async with a_broker(site) as broker, stutter(broker) as repeated, site.clients(count=6) as load:
        await site.until_accepted(load, 40)
    account = await site.kept(load)
    assert account.claims == {1: account.jobs}
    FINDINGS.append(f"said again, twice and backwards: {len(repeated)} messages")
    assert len(repeated) > account.jobs


@asynccontextmanager
async def stutter(broker: RabbitBroker) -> AsyncIterator[set[str]]:
    """Say again whatever is said: twice, later and last first. Gives the ids of what was repeated."""
    heard: list[Outgoing] = []
    known: set[str] = set()

    async def repeat() -> None:
        batch = heard[::-1]
        heard.clear()
        await broker.publish(batch * 2)

    def tap(exchange: Exchange, *keys: str) -> QueueSpec:
        return QueueSpec(name=f"chaos.{exchange}", exchange=exchange, keys=keys, durable=False)

    async def hear(exchange: Exchange, delivery: Delivery) -> None:
        if delivery.message_id not in known:
            known.add(delivery.message_id)
            heard.append(
                Outgoing(exchange=exchange, key=delivery.key, body=delivery.body, message_id=delivery.message_id)
            )
        await delivery.ack()
        if len(heard) >= 10:
            await repeat()

    keys = {Exchange.JOBS: ("python3",), Exchange.EVENTS: ("#",), Exchange.CONTROL: ("#",)}
    async with (
        broker.subscribe(tap(Exchange.JOBS, *keys[Exchange.JOBS]), lambda each: hear(Exchange.JOBS, each)),
        broker.subscribe(tap(Exchange.EVENTS, *keys[Exchange.EVENTS]), lambda each: hear(Exchange.EVENTS, each)),
        broker.subscribe(tap(Exchange.CONTROL, *keys[Exchange.CONTROL]), lambda each: hear(Exchange.CONTROL, each)),
    ):
        assert set(keys) == set(EXCHANGES)
        yield known
        await repeat()
