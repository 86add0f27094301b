"""A worker that is frozen for longer than its lease and comes back, as a paused virtual machine does."""

import os
import signal

import pytest

from tests.chaos.load import Load
from tests.chaos.site import Site
from tidemill.shared.catalog import Service

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("site", ["distributed"], indirect=True)]


async def test_its_late_result_is_refused(site: Site) -> None:
    load = Load()
    site.arm("worker.before.queue.finish_job", signal.SIGSTOP)
    job = await site.ask(load)
    frozen = await site.struck("worker.before.queue.finish_job")
    async with site.another(Service.WORKER):
        ended = await site.ended(job)
        site.wake(frozen)
        await site.says("result refused: the job has another claim")
        assert await site.ended(job) == ended
        account = await site.kept(load)
    assert account.claims == {2: 1}


async def test_its_late_beat_stops_the_run(site: Site) -> None:
    load = Load()
    job = await site.ask(load, seconds=600)
    await site.running(job)
    frozen = (await site.process_of(Service.WORKER)).pid
    os.kill(frozen, signal.SIGSTOP)
    site.hurts()
    async with site.another(Service.WORKER):
        await site.until("SELECT state = 'running' AND claims = 2 FROM queue.live_job WHERE id = $1", job)
        await site.recovered("worker frozen in the middle of a job")
        site.wake(frozen)
        await site.says("reason=dropped")
        assert await site.value("SELECT state = 'running' AND claims = 2 FROM queue.live_job WHERE id = $1", job)
        await site.cancel(job)
        account = await site.kept(load)
    assert account.outcomes == {"canceled": 1}
    assert account.claims == {2: 1}
