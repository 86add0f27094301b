"""What every broker adapter promises; each adapter runs all of it with its own `broker` and `neighbour`."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from tidemill.chassis.broker import (
    Broker,
    BrokerUnavailable,
    DeadLetter,
    DeadLetterOffice,
    Delivery,
    Fate,
    Handler,
    Outgoing,
    Subscription,
)
from tidemill.shared.catalog import Exchange, QueueSpec

DEADLINE = 20
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

TOPICS = [
    ("job.scheduled", "job.scheduled", True),
    ("job.scheduled", "job.scheduled.late", False),
    ("job.*", "job.scheduled", True),
    ("job.*", "job", False),
    ("job.*", "job.a.b", False),
    ("*.scheduled", "job.scheduled", True),
    ("audit.#", "audit", True),
    ("audit.#", "audit.scripts.create", True),
    ("audit.#", "audits.scripts", False),
    ("#", "anything.at.all", True),
    ("#.create", "audit.scripts.create", True),
    ("audit.#.create", "audit.create", True),
    ("audit.#.create", "audit.a.b.create", True),
    ("audit.#.create", "audit.a.b.delete", False),
    ("audit.*.#", "audit", False),
    ("audit.*.#", "audit.scripts", True),
]


class TestedBroker(Broker, DeadLetterOffice, Protocol):
    """The port and the dead letters."""


class Inbox:
    """A handler that keeps what it is given for the test to look at; the test uses the verbs."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Delivery] = asyncio.Queue()

    async def __call__(self, delivery: Delivery) -> None:
        self._arrived.put_nowait(delivery)

    async def next(self) -> Delivery:
        async with asyncio.timeout(DEADLINE):
            return await self._arrived.get()

    @property
    def waiting(self) -> int:
        return self._arrived.qsize()


class Taking:
    """A handler that acknowledges everything and counts it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._changed = asyncio.Event()

    async def __call__(self, delivery: Delivery) -> None:
        await delivery.ack()
        self.bodies.append(delivery.body)
        self._changed.set()

    async def until(self, condition: Callable[[Sequence[bytes]], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition(self.bodies):
                self._changed.clear()
                await self._changed.wait()


def fresh(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:12]}"


def ticket_queue() -> QueueSpec:
    tag = fresh("tag")
    return QueueSpec(name=f"jobs.{tag}", exchange=Exchange.JOBS, keys=(tag,))


def event_queue(*keys: str, durable: bool = False) -> QueueSpec:
    return QueueSpec(name=fresh("test.events"), exchange=Exchange.EVENTS, keys=keys, durable=durable)


def ticket(queue: QueueSpec, body: bytes = b"{}", message_id: str | None = None) -> Outgoing:
    return Outgoing(
        exchange=queue.exchange,
        key=queue.keys[0],
        body=body,
        message_id=message_id or str(uuid.uuid4()),
        traceparent=TRACEPARENT,
    )


def event(key: str, body: bytes = b"{}") -> Outgoing:
    return Outgoing(exchange=Exchange.EVENTS, key=key, body=body, message_id=str(uuid.uuid4()))


@asynccontextmanager
async def standing(
    broker: Broker, queue: QueueSpec, handler: Handler, *, prefetch: int = 16
) -> AsyncIterator[Subscription]:
    """Subscribe and wait until the queue stands."""
    ready = asyncio.Event()

    async def on_ready() -> None:
        ready.set()

    async with broker.subscribe(queue, handler, prefetch=prefetch, on_ready=on_ready) as subscription:
        async with asyncio.timeout(DEADLINE):
            await ready.wait()
        yield subscription


async def has_ready(broker: Broker, queue: QueueSpec, count: int) -> None:
    """Return when so many messages wait; the broker counts a little after it has been told."""
    async with asyncio.timeout(DEADLINE):
        while await broker.ready_count(queue) != count:  # noqa: ASYNC110 - a server's count can't be awaited
            await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await condition():  # noqa: ASYNC110 - nor can other facts of a server
            await asyncio.sleep(0.02)


class BrokerSuite:
    async def test_a_ticket_reaches_its_subscriber_as_it_was_sent(self, broker: TestedBroker) -> None:
        queue, inbox = ticket_queue(), Inbox()
        async with standing(broker, queue, inbox):
            sent = ticket(queue, b'{"job_id":"1"}')
            assert list(await broker.publish([sent])) == [Fate.CONFIRMED]
            got = await inbox.next()
            await got.ack()
        assert (got.body, got.key, got.message_id, got.traceparent) == (
            sent.body,
            sent.key,
            sent.message_id,
            TRACEPARENT,
        )

    async def test_a_message_without_a_trace_arrives_without_one(self, broker: TestedBroker) -> None:
        key, inbox = fresh("plain"), Inbox()
        async with standing(broker, event_queue(key), inbox):
            await broker.publish([event(key)])
            got = await inbox.next()
            await got.ack()
        assert got.traceparent is None

    async def test_a_ticket_that_no_queue_hears_is_unroutable(self, broker: TestedBroker) -> None:
        assert list(await broker.publish([ticket(ticket_queue())])) == [Fate.UNROUTABLE]

    async def test_a_batch_has_one_fate_for_each_message_in_order(self, broker: TestedBroker) -> None:
        queue, taking = ticket_queue(), Taking()
        async with standing(broker, queue, taking):
            batch = [ticket(queue, b"1"), ticket(ticket_queue()), ticket(queue, b"2"), ticket(ticket_queue())]
            fates = list(await broker.publish(batch))
            await taking.until(lambda bodies: len(bodies) == 2)
        assert fates == [Fate.CONFIRMED, Fate.UNROUTABLE] * 2
        assert taking.bodies == [b"1", b"2"]

    async def test_an_empty_batch_has_no_fates(self, broker: TestedBroker) -> None:
        assert list(await broker.publish([])) == []

    async def test_one_id_in_flight_twice_has_the_right_fate_twice(self, broker: TestedBroker) -> None:
        heard, unheard, taking = ticket_queue(), ticket_queue(), Taking()
        async with standing(broker, heard, taking):
            fates = await broker.publish([ticket(heard, message_id="same"), ticket(unheard, message_id="same")])
            await taking.until(lambda bodies: len(bodies) == 1)
        assert list(fates) == [Fate.CONFIRMED, Fate.UNROUTABLE]

    async def test_a_direct_exchange_knows_no_wildcards(self, broker: TestedBroker) -> None:
        name = fresh("tag")
        queue = QueueSpec(name=f"jobs.{name}", exchange=Exchange.JOBS, keys=(f"{name}.#",))
        other = QueueSpec(name="-", exchange=Exchange.JOBS, keys=(f"{name}.x",))
        async with standing(broker, queue, Inbox()):
            assert list(await broker.publish([ticket(other)])) == [Fate.UNROUTABLE]

    @pytest.mark.parametrize(("pattern", "key", "hears"), TOPICS)
    async def test_topics_match_as_in_amqp(self, broker: TestedBroker, pattern: str, key: str, hears: bool) -> None:
        # The control exchange has no queues of its own, so that an unheard key is seen as unroutable.
        queue = QueueSpec(name=fresh("test.control"), exchange=Exchange.CONTROL, keys=(pattern,), durable=False)
        message = Outgoing(exchange=Exchange.CONTROL, key=key, body=b"{}", message_id=fresh("id"))
        async with standing(broker, queue, Taking()):
            fates = await broker.publish([message])
        assert list(fates) == [Fate.CONFIRMED if hears else Fate.UNROUTABLE]

    async def test_each_message_goes_to_one_of_several_subscribers_of_a_queue(
        self, broker: TestedBroker, neighbour: TestedBroker
    ) -> None:
        queue, one, two = ticket_queue(), Taking(), Taking()
        async with standing(broker, queue, one, prefetch=1), standing(neighbour, queue, two, prefetch=1):
            bodies = [str(number).encode() for number in range(40)]
            await broker.publish([ticket(queue, body) for body in bodies])
            await eventually(lambda: _is_true(len(one.bodies) + len(two.bodies) == len(bodies)))
        assert Counter(one.bodies + two.bodies) == Counter(bodies)
        assert one.bodies
        assert two.bodies

    async def test_each_queue_that_hears_an_event_gets_it(self, broker: TestedBroker, neighbour: TestedBroker) -> None:
        key, one, two = fresh("deployment"), Taking(), Taking()
        async with standing(broker, event_queue(key), one), standing(neighbour, event_queue(key), two):
            await broker.publish([event(key, b"new")])
            await one.until(lambda bodies: len(bodies) == 1)
            await two.until(lambda bodies: len(bodies) == 1)

    async def test_an_acknowledged_message_does_not_come_again(self, broker: TestedBroker) -> None:
        queue, inbox = ticket_queue(), Inbox()
        async with standing(broker, queue, inbox):
            await broker.publish([ticket(queue, b"first")])
            await (await inbox.next()).ack()
        async with standing(broker, queue, inbox):
            await broker.publish([ticket(queue, b"second")])
            got = await inbox.next()
            await got.ack()
        assert got.body == b"second"

    async def test_a_message_that_is_given_back_comes_again_first(self, broker: TestedBroker) -> None:
        queue, inbox = ticket_queue(), Inbox()
        async with standing(broker, queue, inbox, prefetch=1):
            await broker.publish([ticket(queue, b"1"), ticket(queue, b"2")])
            await (await inbox.next()).give_back()
            again = await inbox.next()
            await again.ack()
            last = await inbox.next()
            await last.ack()
        assert (again.body, last.body) == (b"1", b"2")

    async def test_a_message_may_be_given_back_more_often_than_a_queue_delivers(self, broker: TestedBroker) -> None:
        queue, inbox = ticket_queue(), Inbox()
        async with standing(broker, queue, inbox):
            sent = ticket(queue, b"patient")
            await broker.publish([sent])
            for _ in range(45):
                await (await inbox.next()).give_back()
            got = await inbox.next()
            await got.ack()
        assert (got.body, got.key, got.message_id, got.traceparent) == (
            b"patient",
            sent.key,
            sent.message_id,
            TRACEPARENT,
        )

    async def test_only_the_first_verb_counts(self, broker: TestedBroker) -> None:
        queue, inbox = ticket_queue(), Inbox()
        async with standing(broker, queue, inbox):
            await broker.publish([ticket(queue, b"1")])
            got = await inbox.next()
            await got.ack()
            await got.give_back()
            await got.ack()
            await got.bury("too late")
            await broker.publish([ticket(queue, b"2")])
            after = await inbox.next()
            await after.ack()
        assert after.body == b"2"
        assert not await _buried_from(broker, queue)

    async def test_what_was_not_acknowledged_goes_to_the_next_subscriber(
        self, broker: TestedBroker, neighbour: TestedBroker
    ) -> None:
        queue, first, second = ticket_queue(), Inbox(), Inbox()
        async with standing(broker, queue, first):
            await broker.publish([ticket(queue, b"1"), ticket(queue, b"2")])
            held = [await first.next(), await first.next()]
        async with standing(neighbour, queue, second):
            got = [await second.next(), await second.next()]
            for delivery in got:
                await delivery.ack()
        assert [delivery.body for delivery in got] == [b"1", b"2"]
        await held[0].ack()  # says nothing to a queue that has it no longer

    async def test_leaving_the_context_cancels_running_handlers(self, broker: TestedBroker) -> None:
        queue, started, cancelled = ticket_queue(), asyncio.Event(), asyncio.Event()

        async def handler(_: Delivery) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with standing(broker, queue, handler):
            await broker.publish([ticket(queue)])
            await started.wait()
        assert cancelled.is_set()
        await has_ready(broker, queue, 1)

    async def test_no_more_than_prefetch_messages_are_held(self, broker: TestedBroker) -> None:
        queue, inbox = ticket_queue(), Inbox()
        async with standing(broker, queue, inbox, prefetch=3):
            await broker.publish([ticket(queue) for _ in range(10)])
            held = [await inbox.next() for _ in range(3)]
            await has_ready(broker, queue, 7)
            assert inbox.waiting == 0
            await held[0].ack()
            await inbox.next()
            await has_ready(broker, queue, 6)

    async def test_handlers_of_one_subscription_run_side_by_side(self, broker: TestedBroker) -> None:
        queue, barrier = ticket_queue(), asyncio.Barrier(4)

        async def handler(delivery: Delivery) -> None:
            await barrier.wait()
            await delivery.ack()

        async with standing(broker, queue, handler, prefetch=4):
            await broker.publish([ticket(queue) for _ in range(3)])
            async with asyncio.timeout(DEADLINE):
                await barrier.wait()

    async def test_a_paused_subscriber_leaves_messages_to_others(
        self, broker: TestedBroker, neighbour: TestedBroker
    ) -> None:
        queue, busy, free = ticket_queue(), Inbox(), Taking()
        async with standing(broker, queue, busy, prefetch=1) as subscription:
            await broker.publish([ticket(queue, b"1"), ticket(queue, b"2")])
            held = await busy.next()
            await subscription.pause()
            async with standing(neighbour, queue, free):
                await free.until(lambda bodies: len(bodies) == 1)
                await broker.publish([ticket(queue, b"3")])
                await free.until(lambda bodies: len(bodies) == 2)
            await held.ack()
            assert busy.waiting == 0
        assert free.bodies == [b"2", b"3"]

    async def test_a_resumed_subscriber_gets_what_waited(self, broker: TestedBroker) -> None:
        queue, taking = ticket_queue(), Taking()
        async with standing(broker, queue, taking) as subscription:
            await subscription.pause()
            await broker.publish([ticket(queue, b"1")])
            await has_ready(broker, queue, 1)
            assert taking.bodies == []
            await subscription.resume()
            await taking.until(lambda bodies: list(bodies) == [b"1"])

    async def test_pausing_and_resuming_quickly_loses_nothing(self, broker: TestedBroker) -> None:
        queue, taking = ticket_queue(), Taking()
        async with standing(broker, queue, taking, prefetch=2) as subscription:
            for number in range(30):
                await broker.publish([ticket(queue, str(number).encode())])
                await subscription.pause()
                await subscription.resume()
            await taking.until(lambda bodies: len(bodies) == 30)
        assert Counter(taking.bodies) == Counter(str(number).encode() for number in range(30))

    async def test_a_process_bound_queue_survives_a_pause(self, broker: TestedBroker) -> None:
        key, taking = fresh("reply"), Taking()
        async with standing(broker, event_queue(key), taking) as subscription:
            await subscription.pause()
            await broker.publish([event(key, b"meanwhile")])
            await subscription.resume()
            await taking.until(lambda bodies: list(bodies) == [b"meanwhile"])

    async def test_keys_can_be_bound_and_unbound_while_listening(self, broker: TestedBroker) -> None:
        own, follow, taking = fresh("reply"), fresh("follow"), Taking()
        async with standing(broker, event_queue(own), taking) as subscription:
            assert list(await broker.publish([event(follow, b"early")])) == [Fate.UNROUTABLE]
            await subscription.bind(follow)
            assert list(await broker.publish([event(follow, b"followed")])) == [Fate.CONFIRMED]
            await subscription.unbind(follow)
            assert list(await broker.publish([event(follow, b"late")])) == [Fate.UNROUTABLE]
            await broker.publish([event(own, b"own")])
            await taking.until(lambda bodies: len(bodies) == 2)
        assert taking.bodies == [b"followed", b"own"]

    async def test_a_process_bound_queue_is_gone_with_its_subscriber(self, broker: TestedBroker) -> None:
        key = fresh("reply")
        async with standing(broker, event_queue(key), Taking()):
            assert list(await broker.publish([event(key)])) == [Fate.CONFIRMED]
        assert list(await broker.publish([event(key)])) == [Fate.UNROUTABLE]

    async def test_a_durable_queue_keeps_messages_while_nobody_listens(self, broker: TestedBroker) -> None:
        queue, taking = ticket_queue(), Taking()
        async with standing(broker, queue, Taking()):
            pass
        assert list(await broker.publish([ticket(queue, b"kept")])) == [Fate.CONFIRMED]
        assert await broker.ready_count(queue) == 1
        async with standing(broker, queue, taking):
            await taking.until(lambda bodies: list(bodies) == [b"kept"])

    async def test_an_event_for_a_durable_queue_is_confirmed_when_it_was_handled(self, broker: TestedBroker) -> None:
        key, taking = fresh("audit"), Taking()
        async with standing(broker, event_queue(key, durable=True), taking):
            assert list(await broker.publish([event(key, b"1"), event(key, b"2")])) == [Fate.CONFIRMED] * 2
            await taking.until(lambda bodies: len(bodies) == 2)

    async def test_entering_a_subscription_does_not_wait_for_it_to_be_ready(self, broker: TestedBroker) -> None:
        entered, ready = asyncio.Event(), asyncio.Event()

        async def on_ready() -> None:
            await entered.wait()
            ready.set()

        async with broker.subscribe(ticket_queue(), Taking(), on_ready=on_ready):
            entered.set()
            async with asyncio.timeout(DEADLINE):
                await ready.wait()

    async def test_on_ready_is_called_again_when_it_raises(self, broker: TestedBroker) -> None:
        calls, done = 0, asyncio.Event()

        async def on_ready() -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ConnectionError("the database is away")
            done.set()

        async with broker.subscribe(ticket_queue(), Taking(), on_ready=on_ready):
            async with asyncio.timeout(DEADLINE):
                await done.wait()
        assert calls == 2

    async def test_a_message_whose_handler_raises_comes_again_and_others_pass(self, broker: TestedBroker) -> None:
        queue, taking, attempts = ticket_queue(), Taking(), Counter[bytes]()

        async def handler(delivery: Delivery) -> None:
            attempts[delivery.body] += 1
            if delivery.body == b"bad" and attempts[b"bad"] < 3:
                raise LookupError("not yet")
            await taking(delivery)

        async with standing(broker, queue, handler, prefetch=1):
            await broker.publish([ticket(queue, b"bad"), ticket(queue, b"good")])
            await taking.until(lambda bodies: len(bodies) == 2)
        assert taking.bodies == [b"good", b"bad"]
        assert attempts[b"bad"] == 3

    async def test_a_buried_message_goes_to_the_dead_letters_and_the_queue_goes_on(self, broker: TestedBroker) -> None:
        queue, taking = ticket_queue(), Taking()

        async def handler(delivery: Delivery) -> None:
            await (delivery.bury("not a CloudEvent") if delivery.body == b"poison" else taking(delivery))

        sent = ticket(queue, b"poison")
        async with standing(broker, queue, handler, prefetch=1):
            await broker.publish([sent, ticket(queue, b"after")])
            await taking.until(lambda bodies: list(bodies) == [b"after"])
            assert await broker.ready_count(queue) == 0
        [letter] = await _buried_from(broker, queue)
        assert (letter.body, letter.key, letter.message_id, letter.reason, letter.traceparent) == (
            b"poison",
            sent.key,
            sent.message_id,
            "not a CloudEvent",
            TRACEPARENT,
        )

    async def test_dead_letters_go_back_to_their_queue_when_replayed(self, broker: TestedBroker) -> None:
        queue, taking, broken = ticket_queue(), Taking(), True

        async def handler(delivery: Delivery) -> None:
            await (delivery.bury("unknown type") if broken else taking(delivery))

        async with standing(broker, queue, handler):
            await broker.publish([ticket(queue, b"1"), ticket(queue, b"2")])
            await eventually(lambda: _has_buried(broker, queue, 2))
            broken = False
            assert await broker.replay(limit=1000) >= 2
            await taking.until(lambda bodies: sorted(bodies) == [b"1", b"2"])
        assert not await _buried_from(broker, queue)

    async def test_a_hint_reaches_who_listens(self, broker: TestedBroker, neighbour: TestedBroker) -> None:
        key, taking = fresh("follow"), Taking()
        async with standing(neighbour, event_queue(key), taking):
            for number in range(5):
                broker.hint(event(key, str(number).encode()))
            await taking.until(lambda bodies: list(bodies) == [b"0", b"1", b"2", b"3", b"4"])

    async def test_a_hint_to_nobody_is_dropped(self, broker: TestedBroker) -> None:
        key, taking = fresh("follow"), Taking()
        broker.hint(event(fresh("nobody")))
        async with standing(broker, event_queue(key), taking):
            broker.hint(event(key, b"heard"))
            await taking.until(lambda bodies: list(bodies) == [b"heard"])

    async def test_ready_count_tells_how_many_wait(self, broker: TestedBroker) -> None:
        queue, inbox = ticket_queue(), Inbox()
        assert await broker.ready_count(queue) == 0
        async with standing(broker, queue, inbox) as subscription:
            await subscription.pause()
            await broker.publish([ticket(queue) for _ in range(4)])
            await has_ready(broker, queue, 4)
            await subscription.resume()
            for _ in range(4):
                await (await inbox.next()).ack()
            await has_ready(broker, queue, 0)

    async def test_it_is_connected(self, broker: TestedBroker) -> None:
        assert broker.connected

    async def test_publishing_from_many_tasks_at_once_confirms_each(self, broker: TestedBroker) -> None:
        queue, taking = ticket_queue(), Taking()
        async with standing(broker, queue, taking, prefetch=64):
            bodies = [str(number).encode() for number in range(200)]
            fates = await asyncio.gather(*(broker.publish([ticket(queue, body)]) for body in bodies))
            await taking.until(lambda seen: len(seen) == len(bodies))
        assert {fate for one in fates for fate in one} == {Fate.CONFIRMED}
        assert Counter(taking.bodies) == Counter(bodies)

    async def test_nothing_is_left_running_afterwards(self, broker: TestedBroker) -> None:
        before = asyncio.all_tasks()
        queue = ticket_queue()
        async with standing(broker, queue, Inbox()) as subscription:
            await broker.publish([ticket(queue) for _ in range(20)])
            await subscription.pause()
        await eventually(lambda: _is_true(not {task for task in asyncio.all_tasks() if _is_ours(task)} - before))


def _is_ours(task: asyncio.Task[object]) -> bool:
    # Tasks of the driver end a moment after their channel; they are waited for as well, by name of their coroutine.
    return not task.done() and "heartbeat" not in repr(task)


async def _is_true(value: bool) -> bool:
    return value


async def _buried_from(broker: TestedBroker, queue: QueueSpec) -> list[DeadLetter]:
    return [letter for letter in await broker.dead_letters(limit=1000) if letter.queue == queue.name]


async def _has_buried(broker: TestedBroker, queue: QueueSpec, count: int) -> bool:
    try:
        return len(await _buried_from(broker, queue)) == count
    except BrokerUnavailable:
        return False
