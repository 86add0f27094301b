"""Flows while services are killed between any two statements, and while their servers go away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
import pytest

from tests.chaos.load import Load
from tests.chaos.site import Site
from tests.support.flows import branch_all, branch_one, expr, flow, loop, step
from tidemill.shared.catalog import SCHEDULER_FLOWS, SCHEDULER_WAKEUPS, tickets

pytestmark = pytest.mark.slow
distributed = pytest.mark.parametrize("site", ["distributed"], indirect=True)

FLOW = "u/admin/walk"
ITEM, BEFORE = expr("flow_input.iter.value"), expr("previous_result")
SAME, TWICE = "def main(x):\n    return x", "def main(x):\n    return x * 2"
WALK = flow(
    step("a", SAME, x=expr("flow_input.n")),
    loop("each", [1, 2], step("b", SAME, x=ITEM), step("c", TWICE, x=BEFORE)),
    loop("wide", [1, 2, 3, 4], step("d", TWICE, x=ITEM), parallel=True, parallelism=2),
    branch_one("way", ("results.a == 3", [step("e", SAME, x="yes"), step("f", TWICE, x=BEFORE)])),
    branch_all("all", [step("g", SAME, x=1)], [], [step("h", SAME, x=2), step("i", TWICE, x=BEFORE)], parallel=True),
    step("last", SAME, x=expr("[results.each, results.wide, results.way, results.all]")),
)
RESULT = [[2, 4], [2, 4, 6, 8], "yesyes", [1, [], 4]]
STEPS = {"b": 2, "c": 2, "d": 4} | dict.fromkeys("aefghi", 1) | {"last": 1}


@asynccontextmanager
async def walking(site: Site, flows: int) -> AsyncIterator[Load]:
    """Let flows run during the block; each of them comes to the same end as ever."""
    if not await site.value("SELECT count(*) FROM platform.flow WHERE path = $1", FLOW):
        body = {"path": FLOW, "summary": "", "description": "", "value": WALK}
        await site.tidemill.call("POST", "/w/:w/flows/create", body)
    load = Load()
    for _ in range(flows):
        await site.ask_flow(load, FLOW, n=3)
    yield load
    await site.flows_kept(load, RESULT, STEPS)


async def some_steps(site: Site, load: Load, count: int) -> None:
    """Wait until so many steps of the flows have ended."""
    ended = "SELECT count(*) >= $2 FROM queue.job j JOIN queue.finished_job f USING (id) WHERE j.root_job = ANY ($1)"
    await site.until(ended, load.jobs, count)


@pytest.mark.parametrize("service", ["scheduler", "worker"])
async def test_a_service_is_killed_around_what_it_writes_of_a_flow(site: Site, service: str) -> None:
    calls = {"scheduler": ("load_flow", "advance_flow"), "worker": ("finish_job",)}[service]
    # A whole installation takes its time to come back, and before is a moment like any other for it.
    moments = ("before", "after") if site.shape == "distributed" else ("after",)
    async with walking(site, 1) as load:
        for call in calls:
            for moment in moments:
                fault = f"{service}.{moment}.queue.{call}"
                site.arm(fault)
                async with asyncio.TaskGroup() as group:
                    # One that walks already may be struck first, and nobody answers until all is started again.
                    group.create_task(site.ask_flow(load, FLOW, n=3))
                    await site.struck(fault)
                await site.recovered(f"{service} killed {moment} {call} of a flow")


@distributed
async def test_what_is_said_of_flows_is_purged_and_rabbitmq_restarted(site: Site) -> None:
    async with walking(site, 2) as load:
        for count in (3, 8):
            await some_steps(site, load, count)
            async with aiormq.connect(site.broker.url) as connection:
                channel = await connection.channel()
                for queue in (SCHEDULER_FLOWS, SCHEDULER_WAKEUPS, tickets("python3")):
                    await channel.queue_purge(queue.name)
        await site.broker.stop()
        await asyncio.sleep(1)
        await site.broker.start()
        site.hurts()
        await site.recovered("RabbitMQ purged and restarted under flows")


async def test_postgres_is_restarted_under_flows(site: Site) -> None:
    async with walking(site, 2) as load:
        for count in (3, 12):
            await some_steps(site, load, count)
            await site.postgres.stop()
            await site.postgres.start()
            site.hurts()
            await site.recovered("Postgres restarted under flows")
