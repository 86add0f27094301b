"""kill -9 of any process while a job runs does not lose the job."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from tests.support.installation import Installation, installation
from tests.support.servers import temporary_home

COUNTED = """\
import time

def main(seconds: float):
    print("begun", flush=True)
    time.sleep(seconds)
    return "done"
"""


def process_of(tidemill: Installation, service: str) -> psutil.Process:
    """Return the process of one service below the supervisor."""
    for child in psutil.Process(tidemill.process.pid).children(recursive=True):
        if f"tidemill.{service}" in child.cmdline():
            return child
    raise AssertionError(f"no process of {service}")


def server_of(tidemill: Installation, program: str) -> psutil.Process:
    """Return the oldest process of a server program below the installation: its main one."""
    family = psutil.Process(tidemill.process.pid).children(recursive=True)
    return min((each for each in family if each.name() == program), key=lambda each: each.create_time())


async def eventually_started(tidemill: Installation) -> str:
    """Start a job as soon as the api takes one again: while Postgres is away it answers 503."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await start(tidemill, 0)
            except AssertionError as error:
                if " 503 " not in str(error):
                    raise
            await asyncio.sleep(0.2)


async def start(tidemill: Installation, seconds: float) -> str:
    if not await tidemill.call("GET", "/w/:w/scripts/exists/p/u/admin/counted"):
        await tidemill.save_script("u/admin/counted", COUNTED)
    job: str = await tidemill.call("POST", "/w/:w/jobs/run/p/u/admin/counted", {"seconds": seconds})
    return job


async def until(condition: str, tidemill: Installation, job: str, patience: float = 60) -> dict[str, object]:
    """Return the job as soon as `running` or `completed` holds, whatever the api goes through meanwhile."""
    deadline = time.monotonic() + patience
    last: object = None
    while time.monotonic() < deadline:
        try:
            found = await tidemill.call("GET", f"/w/:w/jobs_u/get/{job}")
        except Exception as error:
            last = error
        else:
            last = found
            if found["type"] == "CompletedJob" or (condition == "running" and found["running"]):
                return dict(found)
        await asyncio.sleep(0.1)
    raise AssertionError(f"the job was never {condition}: {last}")


@pytest_asyncio.fixture(scope="module")
async def distributed() -> AsyncIterator[Installation]:
    async with installation("distributed") as running:
        yield running


@pytest.mark.parametrize("service", ["worker", "scheduler", "audit", "api"])
async def test_a_job_outlives_the_death_of_a_service(distributed: Installation, service: str) -> None:
    job = await start(distributed, 3)
    await until("running", distributed, job)
    victim = process_of(distributed, service)
    victim.send_signal(signal.SIGKILL)
    done = await until("completed", distributed, job)
    assert done["success"] is True
    assert done["result"] == "done"
    assert process_of(distributed, service).pid != victim.pid


@pytest.mark.parametrize("server", ["postgres", "beam.smp"])
async def test_a_job_outlives_the_death_of_a_server(distributed: Installation, server: str) -> None:
    job = await start(distributed, 3)
    await until("running", distributed, job)
    victim = server_of(distributed, server)
    victim.send_signal(signal.SIGKILL)
    done = await until("completed", distributed, job)
    assert done["success"] is True
    assert done["result"] == "done"
    following = await eventually_started(distributed)
    assert (await until("completed", distributed, following))["success"] is True


async def test_a_job_outlives_the_death_of_the_one_process() -> None:
    with temporary_home() as home:
        job = await killed_while_running(home)
        async with installation("all-in-one", home=home) as tidemill:
            done = await until("completed", tidemill, job)
            assert done["success"] is True
            assert done["result"] == "done"


async def killed_while_running(home: Path) -> str:
    """Start an all-in-one, kill -9 it in the middle of a job, and return the job."""
    async with installation("all-in-one", home=home) as tidemill:
        job = await start(tidemill, 2)
        await until("running", tidemill, job)
        os.kill(tidemill.process.pid, signal.SIGKILL)
        await tidemill.process.wait()
        return job


async def test_nothing_is_left_behind_after_ctrl_c() -> None:
    async with installation("distributed") as tidemill:
        family = psutil.Process(tidemill.process.pid).children(recursive=True)
        assert len(family) >= 4
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
