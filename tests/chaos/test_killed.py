"""kill -9 between any two lines."""

import asyncio
import signal

import pytest

from tests.chaos.load import Load
from tests.chaos.site import FINDINGS, ONE_AT_A_TIME, SLOTS, Site
from tidemill.shared.catalog import Service

pytestmark = pytest.mark.slow
distributed = pytest.mark.parametrize("site", ["distributed"], indirect=True)


@pytest.mark.parametrize(
    ("fault", "claims"),
    [
        pytest.param("worker.before.queue.claim_job", 1, id="before the claim"),
        pytest.param("worker.after.queue.claim_job", 2, id="after the claim"),
        pytest.param("worker.before.queue.finish_job", 2, id="between the script's end and its record"),
        pytest.param("worker.after.queue.finish_job", 1, id="after the record"),
    ],
)
async def test_a_worker_is_killed(site: Site, fault: str, claims: int) -> None:
    load = Load()
    site.arm(fault)
    await site.ask(load)
    await site.struck(fault)
    await site.recovered(f"worker killed {fault.removeprefix('worker.')}")
    account = await site.kept(load)
    assert account.outcomes == {"success": 1}
    assert account.claims == {claims: 1}


async def test_a_worker_is_killed_in_the_middle_of_its_jobs(site: Site) -> None:
    load = Load()
    jobs = [await site.ask(load, seconds=2) for _ in range(3)]
    for job in jobs:
        await site.running(job)
    await site.kill(Service.WORKER)
    await site.recovered("worker killed in the middle of 3 jobs")
    account = await site.kept(load)
    assert account.outcomes == {"success": 3}
    assert account.claims == {2: 3}


async def test_the_api_is_killed_between_its_commit_and_its_answer(site: Site) -> None:
    load = Load()
    before = await site.value("SELECT count(*) FROM queue.job")
    site.arm("api.after.queue.request_job")
    async with asyncio.TaskGroup() as group:
        group.create_task(site.ask(load))
        await site.struck("api.after.queue.request_job")
    assert await site.value("SELECT count(*) FROM queue.job") == before + 1
    await site.recovered("api killed between commit and publish")
    account = await site.kept(load)
    assert load.repeated
    assert account.outcomes == {"success": 1}


@distributed
async def test_the_api_is_killed_between_its_publish_and_its_note_of_it(site: Site) -> None:
    load = Load()
    site.arm("api.before.bus.forget")
    await site.ask(load)
    await site.struck("api.before.bus.forget")
    await site.recovered("api killed between publish and forgetting")
    account = await site.kept(load)
    assert account.claims == {1: 1}


@distributed
async def test_the_scheduler_is_killed_with_what_it_has_to_say(site: Site) -> None:
    load = Load()
    for _ in range(6):
        await site.ask(load, query={"scheduled_in_secs": 1})
    site.arm("scheduler.after.queue.tick")
    await site.struck("scheduler.after.queue.tick")
    await site.recovered("scheduler killed between commit and publish")
    account = await site.kept(load)
    assert account.outcomes == {"success": 6}
    assert account.claims == {1: 6}


@distributed
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_audit_is_killed_while_events_flow(site: Site, moment: str) -> None:
    fault = f"audit.{moment}.audit.entry"
    async with site.clients() as load:
        site.arm(fault)
        await site.struck(fault)
        await site.recovered(f"audit killed {moment} its entry")
    account = await site.kept(load)
    assert account.claims == {1: account.jobs}


@distributed
async def test_nothing_is_lost_while_audit_is_down(site: Site) -> None:
    entries = "SELECT count(*) FROM audit.entry"
    async with site.clients() as load:
        site.arm("audit.before.audit.entry", signal.SIGSTOP)
        frozen = await site.struck("audit.before.audit.entry")
        written = await site.value(entries)
        await site.until_accepted(load, len(load.accepted) + 20)
        assert await site.value(entries) == written
        site.wake(frozen)
    account = await site.kept(load)
    assert account.claims == {1: account.jobs}


@distributed
async def test_two_schedulers_do_nothing_twice(site: Site) -> None:
    load = Load()
    async with site.another(Service.SCHEDULER):
        for _ in range(10):
            await site.ask(load, query={"scheduled_in_secs": 1})
        await site.kill(Service.SCHEDULER)
        await site.recovered("one of two schedulers killed")
        account = await site.kept(load)
    assert account.outcomes == {"success": 10}
    assert account.claims == {1: 10}


@distributed
async def test_the_holder_of_a_limit_of_one_is_killed(site: Site) -> None:
    load = Load()
    holder = await site.ask(load, ONE_AT_A_TIME, seconds=1)
    await site.running(holder)
    following = [await site.ask(load, ONE_AT_A_TIME) for _ in range(3)]
    assert (
        await site.value("SELECT count(*) FROM queue.live_job WHERE state = 'blocked' AND id = ANY ($1)", following)
        == 3
    )
    await site.kill(Service.WORKER)
    await site.recovered("worker killed that held a concurrency limit")
    account = await site.kept(load)
    assert account.outcomes == {"success": 4}
    assert account.claims == {1: 3, 2: 1}


async def test_everything_is_killed_at_once_under_load(site: Site) -> None:
    async with site.clients() as load:
        await site.until_accepted(load, 12)
        await site.kill(*Service)
        await site.recovered("all services killed at once under load")
        await site.until_accepted(load, len(load.accepted) + 12)
    account = await site.kept(load)
    FINDINGS.append(f"{site.shape}: all services killed: {account.jobs} jobs, {account.rerun} run again")
    assert account.outcomes == {"success": account.jobs}
    assert account.rerun <= SLOTS
