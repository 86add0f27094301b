"""P5: a worker is killed in the middle of a job: seconds until somebody else has claimed it.

Distributed, a second worker process stands beside the first, and the one that holds the job is killed. All in one there
is only one process: it is killed and started again, so its start is part of the figure.
"""

import asyncio
import os
import signal
import statistics
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psutil

from tests.bench.figures import Figure, Measured
from tests.bench.progress import tell
from tests.bench.sizes import Sizes
from tests.bench.subject import Subject, new_cluster, subject
from tests.support.installation import Shape

PATH = "u/admin/bench_long"
SCRIPT = "import time\n\ndef main():\n    time.sleep(600)\n"
_PATIENCE = 90


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Return the median of some rounds."""
    rounds = elsewhere if shape == "distributed" else started_again
    took = await rounds(shape, sizes.rounds)
    return Measured(
        measurement="p5",
        shape=shape,
        figures=[Figure("killed until claimed again", round(statistics.median(took), 2), "s")],
    )


async def elsewhere(shape: Shape, rounds: int) -> list[float]:
    """Kill the one of two workers that holds the job; the supervisor starts it again for the next round."""
    took = []
    async with subject(shape) as it:
        await it.installation.save_script(PATH, SCRIPT)
        for number in range(rounds):
            await workers(it, 1)
            async with another_worker(it):
                await workers(it, 2)
                job = await it.submit(PATH, {})
                holder = await claimed(it, job, 1)
                killed_at = kill(pid_of(holder["instance"]))
                again = await claimed(it, job, 2)
                took.append((again["claimed_at"] - killed_at).total_seconds())
                tell(f"p5 {shape}: {number + 1}/{rounds}: {took[-1]:.2f} s")
                await cancel(it, job)
                await it.until_nothing_is_left()
    return took


async def started_again(shape: Shape, rounds: int) -> list[float]:
    """Kill the one process and start it again on the same data folder."""
    took = []
    async with new_cluster() as cluster:
        for number in range(rounds):
            async with subject(shape, cluster=cluster) as it:
                if not number:
                    await it.installation.save_script(PATH, SCRIPT)
                job = await it.submit(PATH, {})
                await claimed(it, job, 1)
                killed_at = kill(it.installation.process.pid)
                await it.installation.process.wait()
            async with subject(shape, cluster=cluster) as it:
                again = await claimed(it, job, 2)
                took.append((again["claimed_at"] - killed_at).total_seconds())
                tell(f"p5 {shape}: {number + 1}/{rounds}: {took[-1]:.2f} s")
                await cancel(it, job)
                await it.until_nothing_is_left()
    return took


@asynccontextmanager
async def another_worker(it: Subject) -> AsyncIterator[Process]:
    """Start a second worker with the environment of the first, and end it after the block."""
    first, command = next(each for each in it.processes() if "tidemill.worker" in each[1])
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**first.environ(), "TIDEMILL_HEALTH_PORT": "0"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 30)
            except TimeoutError:
                process.kill()
                await process.wait()


def kill(pid: int) -> datetime:
    """End a process as a crash does, and return when."""
    os.kill(pid, signal.SIGKILL)
    return datetime.now(UTC)


async def workers(it: Subject, count: int) -> None:
    """Return when so many workers take jobs; one that is dead may look alive until its lease is over."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            rows = await it.admin.fetch("SELECT instance FROM queue.worker WHERE NOT draining")
            if sum(psutil.pid_exists(pid_of(row["instance"])) for row in rows) >= count:
                return
            await asyncio.sleep(0.1)


def pid_of(instance: str) -> int:
    """Return the process of a worker from its name, which is `host-pid`."""
    return int(instance.rpartition("-")[2])


async def claimed(it: Subject, job: str, times: int) -> Any:
    """Return the claim of a running job as soon as it has been claimed so often."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            row = await it.admin.fetchrow(_CLAIM, job, times)
            if row is not None:
                return row
            await asyncio.sleep(0.02)


async def cancel(it: Subject, job: str) -> None:
    """End the job that has done its duty."""
    await it.installation.call("POST", f"/w/:w/jobs_u/queue/cancel/{job}", {"reason": "measured"})


_CLAIM = """
    SELECT claimed_at, instance FROM queue.live_job JOIN queue.worker USING (worker_run)
    WHERE id = $1 AND state = 'running' AND claims >= $2
"""
