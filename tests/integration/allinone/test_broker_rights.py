"""Attack A26: what a service's own RabbitMQ login can do is what the catalog says, and nothing else."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from tests.support.servers import Rabbit
from tidemill.allinone.rabbitmq import RabbitMqNode
from tidemill.chassis.broker import BrokerUnavailable, Delivery, Fate, Outgoing
from tidemill.chassis.rabbit import RabbitBroker
from tidemill.chassis.rabbit.link import lost_as_unavailable
from tidemill.chassis.rabbit.subscription import RabbitDelivery
from tidemill.chassis.rabbit.topology import arguments
from tidemill.shared.catalog import (
    AUDIT_EVENTS,
    CATALOG,
    DEAD_LETTERS,
    QUEUES_OF,
    SCHEDULER_FLOWS,
    SCHEDULER_WAKEUPS,
    Entry,
    Exchange,
    QueueSpec,
    Service,
    own_tickets,
    publishes,
    replica_inbox,
    tickets,
    worker_inbox,
)

DEADLINE = 30
SAMPLES = {
    Service.API: (replica_inbox("r1"),),
    Service.SCHEDULER: (SCHEDULER_WAKEUPS, SCHEDULER_FLOWS),
    Service.WORKER: (tickets("rights"), worker_inbox("w1")),
    Service.AUDIT: (AUDIT_EVENTS,),
}
Act = Callable[[AbstractChannel], Awaitable[object]]


@pytest.fixture
def node(rabbit: Rabbit) -> RabbitMqNode:
    if rabbit.node is None:
        pytest.skip("this server's users are not ours to make")
    return rabbit.node


@pytest.fixture(scope="module", autouse=True)
async def without_queues_of_others(rabbit: Rabbit) -> None:
    """Remove what earlier tests of this session have declared, perhaps as another type of queue."""
    async with asyncio.timeout(DEADLINE), aiormq.connect(rabbit.url) as connection:
        channel = await connection.channel()
        for queue in {each.name for queues in SAMPLES.values() for each in queues}:
            await channel.queue_delete(queue, if_unused=False, if_empty=False)


async def may(url: str, act: Act) -> bool:
    """Return whether RabbitMQ let it happen; any other refusal than that of a right is an error."""
    async with asyncio.timeout(DEADLINE), aiormq.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        try:
            with lost_as_unavailable():
                await act(channel)
        except BrokerUnavailable:
            await asyncio.wait({channel.closing})
            if isinstance(channel.closing.exception(), aiormq.ChannelAccessRefused):
                return False
            raise
        return True


def publishing(exchange: str, key: str) -> Act:
    return lambda channel: channel.basic_publish(b"{}", exchange=exchange, routing_key=key)


def declaring(queue: QueueSpec) -> Act:
    return lambda channel: channel.queue_declare(
        queue.name, durable=queue.durable, exclusive=not queue.durable, arguments=arguments(queue, "classic")
    )


def test_every_queue_has_a_sample() -> None:
    assert {service: len(queues) for service, queues in SAMPLES.items()} == {
        service: len(queues) for service, queues in QUEUES_OF.items()
    }


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("entry", CATALOG, ids=lambda entry: entry.message.TYPE)
async def test_a_service_publishes_what_the_catalog_says_and_nothing_else(
    node: RabbitMqNode, service: Service, entry: Entry
) -> None:
    # A tag that no queue has and values that nobody is called by: what is let through goes nowhere or to the audit.
    key = re.sub(r"\{\w+\}", "nobody", entry.key)
    assert await may(node.url_of(service), publishing(entry.exchange, key)) is publishes(service, entry)


@pytest.mark.parametrize("service", Service)
@pytest.mark.parametrize("owner", Service)
async def test_a_service_reads_empties_and_deletes_no_queue_of_another(
    node: RabbitMqNode, service: Service, owner: Service
) -> None:
    url = node.url_of(service)
    for queue in SAMPLES[owner]:
        own = service is owner
        assert await may(url, declaring(queue)) is own
        if not own:
            assert not await may(url, lambda channel, name=queue.name: channel.basic_get(name))  # type: ignore[misc]
            assert not await may(url, lambda channel, name=queue.name: channel.queue_purge(name))  # type: ignore[misc]
            assert not await may(url, lambda channel, name=queue.name: channel.queue_delete(name))  # type: ignore[misc]


@pytest.mark.parametrize("service", Service)
async def test_a_service_has_no_way_around_its_rights(node: RabbitMqNode, service: Service) -> None:
    url = node.url_of(service)
    attempts: list[Act] = [
        publishing("", AUDIT_EVENTS.name),
        lambda channel: channel.basic_get(DEAD_LETTERS),
        lambda channel: channel.queue_delete(DEAD_LETTERS),
        lambda channel: channel.queue_declare("foreign"),
        lambda channel: channel.queue_declare(f"{SAMPLES[service][0].name}#"),
        lambda channel: channel.exchange_declare("tidemill.foreign"),
        lambda channel: channel.exchange_delete(Exchange.EVENTS),
    ]
    for number, attempt in enumerate(attempts):
        assert not await may(url, attempt), number


@pytest.mark.parametrize("key", ["#", "audit.#", "reply.*", "follow.#", "job.scheduled"])
async def test_a_replica_overhears_nobody(node: RabbitMqNode, key: str) -> None:
    async def bind(channel: AbstractChannel) -> None:
        await channel.queue_declare("api.r2", exclusive=True)
        await channel.queue_bind("api.r2", Exchange.EVENTS, key)

    assert not await may(node.url_of(Service.API), bind)


@pytest.mark.parametrize("queue", [tickets("rights-again"), own_tickets("w1")], ids=lambda queue: queue.name)
async def test_with_its_rights_a_service_listens_puts_back_and_buries(node: RabbitMqNode, queue: QueueSpec) -> None:
    heard: asyncio.Queue[Delivery] = asyncio.Queue()
    ready = asyncio.Event()

    async def on_ready() -> None:
        ready.set()

    async with (
        asyncio.timeout(DEADLINE),
        RabbitBroker(node.url_of(Service.API), "api") as api,
        RabbitBroker(node.url_of(Service.WORKER), "worker") as worker,
        worker.subscribe(queue, heard.put, on_ready=on_ready),
    ):
        await api.link()
        await ready.wait()
        message = Outgoing(exchange=Exchange.JOBS, key=queue.keys[0], body=b"{}", message_id="rights")
        assert list(await api.publish([message])) == [Fate.CONFIRMED]
        first = await heard.get()
        assert isinstance(first, RabbitDelivery)
        await first.send_to_end()
        again = await heard.get()
        assert again.key == queue.keys[0]
        await again.bury("seen")
    async with asyncio.timeout(DEADLINE), aiormq.connect(node.url) as connection:
        await (await connection.channel()).queue_purge(DEAD_LETTERS)
