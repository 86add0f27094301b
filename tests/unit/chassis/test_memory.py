"""What only the memory adapter promises: it confirms an event when it was handled, and holds little."""

import asyncio
from datetime import timedelta

import pytest

from tests.conformance.broker_suite import Inbox, Taking, event, event_queue, fresh, standing, ticket, ticket_queue
from tidemill.chassis import memory
from tidemill.chassis.broker import BrokerUnavailable, Fate, Outgoing
from tidemill.chassis.memory import MemoryBroker
from tidemill.shared.catalog import AUDIT_EVENTS, Exchange

SOON = timedelta(milliseconds=50)


async def test_an_event_is_confirmed_only_after_its_subscriber_has_acknowledged_it() -> None:
    broker, inbox = MemoryBroker(), Inbox()
    async with standing(broker, AUDIT_EVENTS, inbox):
        publishing = asyncio.create_task(broker.publish([event("audit.scripts.create")]))
        delivery = await inbox.next()
        assert not publishing.done()
        await delivery.ack()
        assert list(await publishing) == [Fate.CONFIRMED]


async def test_an_event_that_waits_for_every_durable_queue_is_confirmed_after_the_last() -> None:
    broker, one, two = MemoryBroker(), Inbox(), Inbox()
    key = fresh("deployment")
    async with (
        standing(broker, event_queue(key, durable=True), one),
        standing(broker, event_queue(key, durable=True), two),
    ):
        publishing = asyncio.create_task(broker.publish([event(key)]))
        await (await one.next()).ack()
        second = await two.next()
        assert not publishing.done()
        await second.ack()
        assert list(await publishing) == [Fate.CONFIRMED]


async def test_an_event_that_is_not_handled_in_time_is_refused_and_said_again_without_doubling() -> None:
    broker, inbox = MemoryBroker(confirm_timeout=SOON), Inbox()
    same = event("audit.scripts.create")
    async with standing(broker, AUDIT_EVENTS, inbox):
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await broker.publish([same])
        await (await inbox.next()).ack()
        assert inbox.waiting == 0
        publishing = asyncio.create_task(broker.publish([same]))
        await (await inbox.next()).ack()  # a later repetition is a new message: who listens knows its id
        assert list(await publishing) == [Fate.CONFIRMED]


async def test_an_event_without_a_subscriber_is_refused_at_once_and_kept() -> None:
    broker, taking = MemoryBroker(confirm_timeout=timedelta(hours=1)), Taking()
    queue = ticket_queue()
    async with standing(broker, queue, taking):
        with pytest.raises(BrokerUnavailable, match=r"nobody listens to audit\.events yet"):
            await broker.publish([event("audit.a", b"kept"), ticket(queue, b"ticket")])
        await taking.until(lambda bodies: list(bodies) == [b"ticket"])
    async with standing(broker, AUDIT_EVENTS, taking):
        await taking.until(lambda bodies: list(bodies) == [b"ticket", b"kept"])


async def test_a_buried_event_is_confirmed() -> None:
    broker, inbox = MemoryBroker(), Inbox()
    async with standing(broker, AUDIT_EVENTS, inbox):
        publishing = asyncio.create_task(broker.publish([event("audit.a")]))
        await (await inbox.next()).bury("unreadable")
        assert list(await publishing) == [Fate.CONFIRMED]


async def test_a_ticket_is_confirmed_without_anybody_taking_it() -> None:
    broker, queue = MemoryBroker(), ticket_queue()
    async with standing(broker, queue, Inbox()) as subscription:
        await subscription.pause()
        assert list(await broker.publish([ticket(queue)])) == [Fate.CONFIRMED]


async def test_leaving_the_broker_refuses_what_was_not_handled() -> None:
    async with MemoryBroker() as broker:
        inbox = Inbox()
        async with standing(broker, AUDIT_EVENTS, inbox):
            publishing = asyncio.create_task(broker.publish([event("audit.a")]))
            await inbox.next()
    with pytest.raises(BrokerUnavailable):
        await publishing


async def test_a_full_queue_refuses_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LONGEST_QUEUE", 2)
    broker, queue = MemoryBroker(), ticket_queue()
    async with standing(broker, queue, Inbox()) as subscription:
        await subscription.pause()
        await broker.publish([ticket(queue), ticket(queue)])
        with pytest.raises(BrokerUnavailable, match="is full"):
            await broker.publish([ticket(queue)])
        assert await broker.ready_count(queue) == 2


async def test_subscribers_take_turns() -> None:
    broker, queue, one, two = MemoryBroker(), ticket_queue(), Taking(), Taking()
    async with standing(broker, queue, one), standing(broker, queue, two):
        await broker.publish([ticket(queue, str(number).encode()) for number in range(4)])
        await one.until(lambda bodies: len(bodies) == 2)
        await two.until(lambda bodies: len(bodies) == 2)
    assert (one.bodies, two.bodies) == ([b"0", b"2"], [b"1", b"3"])


async def test_a_hint_is_delivered_in_a_later_turn_of_the_loop() -> None:
    broker, key, taking = MemoryBroker(), fresh("follow"), Taking()
    async with standing(broker, event_queue(key), taking):
        broker.hint(event(key, b"1"))
        assert taking.bodies == []
        await taking.until(lambda bodies: list(bodies) == [b"1"])


async def test_hints_without_ids_are_told_apart() -> None:
    broker, key, inbox = MemoryBroker(), fresh("follow"), Inbox()
    async with standing(broker, event_queue(key), inbox):
        for _ in range(2):
            broker.hint(Outgoing(exchange=Exchange.EVENTS, key=key, body=b"{}", message_id=""))
        ids = {(await inbox.next()).message_id for _ in range(2)}
    assert len(ids) == 2
    assert "" not in ids
