"""The RabbitMQ adapter keeps the promises of the port, and more: it outlives its server."""

import asyncio
import logging
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import aiormq
import pytest
from pamqp.common import FieldTable

from tests.conformance.broker_suite import (
    DEADLINE,
    TRACEPARENT,
    BrokerSuite,
    Taking,
    event,
    event_queue,
    eventually,
    fresh,
    standing,
    ticket,
    ticket_queue,
)
from tests.support.servers import Rabbit
from tidemill.allinone.rabbitmq import RabbitMqNode
from tidemill.chassis.broker import BrokerUnavailable, Fate, Outgoing
from tidemill.chassis.rabbit import QueueType, RabbitBroker
from tidemill.shared.catalog import DEAD_LETTERS, DURABLE_QUEUES, Exchange, QueueSpec

QUEUE_TYPES: tuple[QueueType, ...] = ("classic", "quorum")
ARGUMENTS: Mapping[QueueType, FieldTable] = {
    "classic": {"x-queue-type": "classic", "x-dead-letter-exchange": "tidemill.dead-letters"},
    "quorum": {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "tidemill.dead-letters",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 20,
    },
}


async def connected(broker: RabbitBroker) -> RabbitBroker:
    async with asyncio.timeout(DEADLINE):
        await broker.link()
    return broker


async def forget_shared_queues(url: str) -> None:
    """Delete what the other queue type has declared under the same names."""
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        for name in (DEAD_LETTERS, *(queue.name for queue in DURABLE_QUEUES)):
            await channel.queue_delete(name)


@pytest.fixture(scope="module", params=QUEUE_TYPES)
async def queue_type(rabbit: Rabbit, request: pytest.FixtureRequest) -> QueueType:
    await forget_shared_queues(rabbit.url)
    kind: QueueType = request.param
    return kind


@pytest.fixture
async def broker(rabbit: Rabbit, queue_type: QueueType) -> AsyncIterator[RabbitBroker]:
    async with RabbitBroker(rabbit.url, "test", queue_type) as one:
        yield await connected(one)


@pytest.fixture
async def neighbour(rabbit: Rabbit, queue_type: QueueType) -> AsyncIterator[RabbitBroker]:
    """Another process: a connection of its own."""
    async with RabbitBroker(rabbit.url, "neighbour", queue_type) as other:
        yield await connected(other)


class TestRabbitBroker(BrokerSuite):
    async def test_on_the_wire_it_is_a_persistent_cloudevent_with_its_trace_in_the_headers(
        self, broker: RabbitBroker, rabbit: Rabbit
    ) -> None:
        queue = ticket_queue()
        async with standing(broker, queue, Taking()) as subscription:
            await subscription.pause()
            sent = ticket(queue, b'{"specversion":"1.0"}')
            await broker.publish([sent])
            async with aiormq.connect(rabbit.url) as connection:
                raw = await (await connection.channel()).basic_get(queue.name, no_ack=True)
        properties = raw.header.properties
        assert (properties.content_type, properties.delivery_mode) == ("application/cloudevents+json", 2)
        assert properties.message_id == sent.message_id
        assert (properties.headers or {})["traceparent"] == TRACEPARENT

    async def test_durable_queues_are_declared_with_their_dead_letters_and_limits(
        self, broker: RabbitBroker, rabbit: Rabbit, queue_type: QueueType
    ) -> None:
        async with aiormq.connect(rabbit.url) as connection:
            channel = await connection.channel()
            for queue in DURABLE_QUEUES:
                # RabbitMQ refuses any difference.
                await channel.queue_declare(queue.name, durable=True, arguments=ARGUMENTS[queue_type])

    async def test_a_subscription_whose_queue_was_deleted_makes_it_anew(
        self, broker: RabbitBroker, rabbit: Rabbit
    ) -> None:
        queue, taking, readies = ticket_queue(), Taking(), asyncio.Semaphore(0)

        async def on_ready() -> None:
            readies.release()

        async with broker.subscribe(queue, taking, on_ready=on_ready), asyncio.timeout(DEADLINE):
            await readies.acquire()
            async with aiormq.connect(rabbit.url) as connection:
                await (await connection.channel()).queue_delete(queue.name)
            await readies.acquire()
            assert list(await broker.publish([ticket(queue, b"after")])) == [Fate.CONFIRMED]
            await taking.until(lambda bodies: list(bodies) == [b"after"])

    async def test_a_queue_with_other_arguments_is_named_in_the_log_and_used_as_it_stands(
        self, broker: RabbitBroker, rabbit: Rabbit, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue, taking = ticket_queue(), Taking()
        async with aiormq.connect(rabbit.url) as connection:
            channel = await connection.channel()
            await channel.queue_declare(queue.name, durable=True, arguments={"x-max-length": 10})
        with caplog.at_level(logging.ERROR):
            async with standing(broker, queue, taking):
                assert list(await broker.publish([ticket(queue, b"1")])) == [Fate.CONFIRMED]
                await taking.until(lambda bodies: list(bodies) == [b"1"])
        [record] = [record for record in caplog.records if "other arguments" in record.message]
        assert vars(record)["queue"] == queue.name

    async def test_a_queue_that_another_process_owns_is_tried_until_it_is_free(
        self, broker: RabbitBroker, neighbour: RabbitBroker, caplog: pytest.LogCaptureFixture
    ) -> None:
        key = fresh("reply")
        queue, taking, ready = event_queue(key), Taking(), asyncio.Event()

        async def on_ready() -> None:
            ready.set()

        async with standing(neighbour, queue, Taking()), broker.subscribe(queue, taking, on_ready=on_ready):
            await eventually(lambda: _logged(caplog, "subscribing failed"))
            assert not ready.is_set()
        async with standing(broker, queue, taking):
            await broker.publish([event(key, b"mine")])
            await taking.until(lambda bodies: list(bodies) == [b"mine"])

    async def test_a_key_that_is_too_long_for_amqp_is_unroutable(self, broker: RabbitBroker) -> None:
        long = QueueSpec(name="-", exchange=Exchange.JOBS, keys=("x" * 256,))
        assert list(await broker.publish([ticket(long)])) == [Fate.UNROUTABLE]


class TestWithoutItsServer:
    async def test_it_starts_before_its_server_and_says_once_that_it_waits(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with (
            RabbitBroker("amqp://user:topsecret@127.0.0.1:9/", "early") as broker,
            broker.subscribe(ticket_queue(), Taking()) as subscription,
        ):
            await eventually(lambda: _logged(caplog, "can't be reached"))
            assert not broker.connected
            with pytest.raises(BrokerUnavailable):
                await broker.publish([ticket(ticket_queue())])
            assert await broker.ready_count(ticket_queue()) is None
            broker.hint(event("nobody"))
            await subscription.bind("later")
            await subscription.pause()
            await subscription.resume()
        ours = [record for record in caplog.records if record.name.startswith("tidemill")]
        assert [record.message for record in ours] == ["broker can't be reached, trying on"]
        assert "topsecret" not in caplog.text

    @pytest.mark.parametrize("url", ["http://host/", "amqp:///", "nonsense"])
    def test_a_wrong_url_is_refused_at_once(self, url: str) -> None:
        with pytest.raises(ValueError, match="amqp://user:password@host"):
            RabbitBroker(url, "wrong")

    @pytest.mark.parametrize("queue_type", QUEUE_TYPES)
    async def test_all_confirmed_messages_arrive_although_the_server_restarts(
        self, rabbit: Rabbit, queue_type: QueueType, caplog: pytest.LogCaptureFixture
    ) -> None:
        node = own_node(rabbit)
        await forget_shared_queues(rabbit.url)
        caplog.set_level(logging.INFO)
        queue, taking, follow, followed = ticket_queue(), Taking(), fresh("follow"), Taking()
        confirmed: list[bytes] = []
        refused = asyncio.Event()
        stop = asyncio.Event()

        async with (
            RabbitBroker(rabbit.url, "publisher", queue_type, confirm_timeout=timedelta(seconds=5)) as publisher,
            RabbitBroker(rabbit.url, "subscriber", queue_type) as subscriber,
            standing(subscriber, queue, taking),
            standing(subscriber, event_queue(fresh("reply")), followed) as inbox,
        ):
            await inbox.bind(follow)
            await connected(publisher)

            async def publish_for_ever() -> None:
                number = 0
                while not stop.is_set():
                    number += 1
                    body = str(number).encode()
                    try:
                        fates = await publisher.publish([ticket(queue, body), ticket(queue, body + b"'")])
                    except BrokerUnavailable:
                        refused.set()
                        await asyncio.sleep(0.02)  # a loop that tries again, as the relay does
                    else:
                        assert list(fates) == [Fate.CONFIRMED] * 2
                        confirmed.extend([body, body + b"'"])

            publishing = asyncio.create_task(publish_for_ever())
            await taking.until(lambda bodies: len(bodies) > 100)
            await node.stop()
            async with asyncio.timeout(DEADLINE):
                await refused.wait()
            assert not publisher.connected
            before = len(confirmed)
            await node.start()
            await eventually(lambda: _is_true(len(confirmed) > before + 200))
            stop.set()
            await publishing
            await taking.until(lambda bodies: set(confirmed) <= set(bodies))
            await eventually(lambda: _hears(publisher, follow))
            publisher.hint(event(follow, b"still followed"))
            await followed.until(lambda bodies: b"still followed" in bodies)

        lost = Counter(record.message for record in caplog.records if record.name.startswith("tidemill.chassis"))
        assert lost["connection to the broker lost, trying on"] == 2
        assert lost["broker is back"] == 2

    async def test_publishing_is_refused_while_the_server_is_short_of_memory(self, rabbit: Rabbit) -> None:
        node = own_node(rabbit)
        await forget_shared_queues(rabbit.url)
        queue, taking = ticket_queue(), Taking()
        async with (
            RabbitBroker(rabbit.url, "blocked", confirm_timeout=timedelta(milliseconds=300)) as broker,
            standing(broker, queue, taking),
        ):
            await rabbitmqctl(node, "set_vm_memory_high_watermark", "0")
            try:
                with pytest.raises(BrokerUnavailable):
                    await broker.publish([ticket(queue, b"unheard")])
                for _ in range(5000):
                    broker.hint(ticket(queue, b"hint"))
            finally:
                await rabbitmqctl(node, "set_vm_memory_high_watermark", "0.4")
            await eventually(lambda: _is_confirmed(broker, ticket(queue, b"last")))
            await taking.until(lambda bodies: b"last" in bodies)
            await eventually(lambda: _is_true(Counter(taking.bodies)[b"hint"] >= 1000))
        assert Counter(taking.bodies)[b"hint"] < 1100  # the rest was dropped, not piled up

    async def test_a_frozen_server_makes_publishing_fail_in_time(self, rabbit: Rabbit) -> None:
        node = own_node(rabbit)
        await forget_shared_queues(rabbit.url)
        queue, taking = ticket_queue(), Taking()
        async with (
            RabbitBroker(rabbit.url, "frozen", confirm_timeout=timedelta(milliseconds=300)) as broker,
            standing(broker, queue, taking),
        ):
            assert node.pid is not None
            os.kill(node.pid, signal.SIGSTOP)
            try:
                with pytest.raises(BrokerUnavailable, match="no answer in time"):
                    await broker.publish([ticket(queue)])
            finally:
                os.kill(node.pid, signal.SIGCONT)
            await eventually(lambda: _is_confirmed(broker, ticket(queue, b"last")))
            await taking.until(lambda bodies: b"last" in bodies)


def own_node(rabbit: Rabbit) -> RabbitMqNode:
    if rabbit.node is None:
        pytest.skip("this server is not ours to disturb")
    return rabbit.node


async def rabbitmqctl(node: RabbitMqNode, *arguments: str) -> None:
    environment = node._environment(node._ports)  # type: ignore[arg-type]  # it has been started
    process = await asyncio.create_subprocess_exec(node._programs / "rabbitmqctl", "-q", *arguments, env=environment)
    assert await process.wait() == 0


async def _is_confirmed(broker: RabbitBroker, message: Outgoing) -> bool:
    try:
        return list(await broker.publish([message])) == [Fate.CONFIRMED]
    except BrokerUnavailable:
        return False


async def _hears(broker: RabbitBroker, key: str) -> bool:
    return list(await broker.publish([event(key)])) == [Fate.CONFIRMED]


async def _is_true(value: bool) -> bool:
    return value


async def _logged(caplog: pytest.LogCaptureFixture, text: str) -> bool:
    return any(text in record.message for record in caplog.records)
