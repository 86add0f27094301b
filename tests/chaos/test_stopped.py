"""Jobs that are stopped on purpose: canceled in every state, out of time, or handed back by a worker that goes."""

import asyncio
import json
import signal
import time
import uuid
from typing import Any

import pytest

from tests.chaos.load import Load
from tests.chaos.site import FINDINGS, ONE_AT_A_TIME, ONE_SECOND, WORK, Site
from tidemill.shared.catalog import Service

pytestmark = pytest.mark.slow
distributed = pytest.mark.parametrize("site", ["distributed"], indirect=True)


async def state(site: Site, job: uuid.UUID) -> Any:
    return await site.value("SELECT state FROM queue.live_job WHERE id = $1", job)


async def test_a_job_is_canceled_in_every_state(site: Site) -> None:
    load = Load()
    scheduled = await site.ask(load, query={"scheduled_in_secs": 600})
    queued = await site.ask(load, query={"tag": "nobody"})
    holder = await site.ask(load, ONE_AT_A_TIME, seconds=600)
    await site.running(holder)
    blocked = await site.ask(load, ONE_AT_A_TIME)
    jobs = {"scheduled": scheduled, "queued": queued, "blocked": blocked, "running": holder}
    for expected, job in jobs.items():
        assert await state(site, job) == expected
    for expected, job in jobs.items():
        began = time.monotonic()
        await site.cancel(job)
        await site.ended(job)
        FINDINGS.append(f"{site.shape}: a job that was {expected} was canceled within {time.monotonic() - began:.2f} s")
        await site.cancel(job)
    finished = await site.ask(load)
    await site.ended(finished)
    await site.cancel(finished)
    account = await site.kept(load)
    assert account.outcomes == {"canceled": 4, "success": 1}
    assert (await site.ended(finished))["outcome"] == "success"


@distributed
async def test_the_shortest_time_limit_ends_a_job_and_is_named(site: Site) -> None:
    load = Load()
    async with site.another(Service.WORKER, worker_tags="hasty", job_timeout="1s"):
        jobs = [
            await site.ask(load, WORK, {"timeout": 1}, seconds=600),
            await site.ask(load, ONE_SECOND, seconds=600),
            await site.ask(load, WORK, {"tag": "hasty"}, seconds=600),
            await site.ask(load, WORK, {"tag": "hasty", "timeout": 600}, seconds=600),
        ]
        for job in jobs:
            error = json.loads((await site.ended(job))["result"])["error"]
            assert error["name"] == "ExecutionErr"
            assert error["message"].startswith("Job timed out after 1s")
        account = await site.kept(load)
    assert account.outcomes == {"failure": 4}
    assert account.claims == {1: 4}


@distributed
async def test_a_worker_for_a_new_tag_gets_what_waited_for_it(site: Site) -> None:
    load = Load()
    waiting = [await site.ask(load, WORK, {"tag": "unheard_of"}) for _ in range(3)]
    # As after an hour of waiting: nobody would look at them again for five minutes.
    await site.look("UPDATE queue.live_job SET hints = 10, hinted_at = clock_timestamp() WHERE id = ANY ($1)", waiting)
    async with site.another(Service.WORKER, worker_tags="unheard_of"):
        account = await site.kept(load)
    assert account.outcomes == {"success": 3}


@distributed
async def test_a_worker_that_goes_claims_nothing_and_hands_back_what_it_can_not_finish(site: Site) -> None:
    load, tag = Load(), {"tag": "draining"}
    settings = {"worker_tags": "draining", "worker_slots": "10", "worker_drain": "3s"}
    async with site.another(Service.WORKER, **settings) as worker:
        short = [await site.ask(load, WORK, tag, seconds=2) for _ in range(5)]
        long = [await site.ask(load, WORK, tag, seconds=7) for _ in range(5)]
        for job in (*short, *long):
            await site.running(job)
        worker.send_signal(signal.SIGTERM)
        await site.until("SELECT bool_or(draining) FROM queue.worker WHERE 'draining' = ANY (tags)")
        late = await site.ask(load, WORK, tag)
        assert await asyncio.wait_for(worker.wait(), 30) == 0
    waiting = await site.look(
        "SELECT id FROM queue.live_job WHERE tag = 'draining' AND state = 'queued' AND lost_claims = 0"
    )
    assert {row["id"] for row in waiting} == {*long, late}
    async with site.another(Service.WORKER, **settings):
        account = await site.kept(load)
    assert account.outcomes == {"success": 11}
    assert account.claims == {1: 6, 2: 5}
