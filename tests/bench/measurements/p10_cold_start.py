"""P10: from `make up` in an empty data folder, with everything downloaded, until the first job is answered."""

import asyncio
import os
import signal
import statistics
import time
from pathlib import Path

import aiohttp

from tests.bench.figures import Figure, Measured
from tests.bench.progress import tell
from tests.bench.sizes import Sizes
from tests.bench.subject import PATH, SCRIPT
from tests.support.installation import Installation, Shape, free_port
from tests.support.servers import temporary_home

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE = 180


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Return the median of some rounds, each in a data folder of its own."""
    answers, ready = [], []
    for number in range(sizes.rounds):
        reachable, answered = await start(shape)
        ready.append(reachable)
        answers.append(answered)
        tell(f"p10 {shape}: {number + 1}/{sizes.rounds}: {answered:.2f} s")
    return Measured(
        measurement="p10",
        shape=shape,
        figures=[
            Figure("make up until the first answer", round(statistics.median(answers), 2), "s"),
            Figure("make up until it is ready", round(statistics.median(ready), 2), "s"),
        ],
    )


async def start(shape: Shape) -> tuple[float, float]:
    """Return the seconds until it was ready and until the first job was answered."""
    port = free_port()
    with temporary_home() as home:
        # Nothing of a `make bench` around us: its variables are not meant for this one.
        mine = {
            name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "MAKE", "MFLAGS"))
        }
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            *("make", "-C", str(ROOT), "up", f"PORT={port}", f"SHAPE={shape}"),
            env={**mine, "TIDEMILL_HOME": str(home), "TIDEMILL_LOG_LEVEL": "warning"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        it = Installation(f"http://127.0.0.1:{port}", home, shape, process)
        try:
            async with asyncio.timeout(_PATIENCE):
                await until_ready(it)
                ready = time.perf_counter() - began
                await first_job(it)
            return ready, time.perf_counter() - began
        finally:
            await stop(process)


async def until_ready(it: Installation) -> None:
    """Return when it says that it is ready."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(2)) as session:
        while True:
            if it.process.returncode is not None:
                raise RuntimeError(f"`make up` ended with {it.process.returncode}")
            try:
                async with session.get(f"{it.url}/readyz") as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(0.02)


async def first_job(it: Installation) -> None:
    """Do what a new user does: log in, save a script, run it."""
    it.token = await it.call("POST", "/auth/login", {"email": "admin@tidemill.local", "password": it.password})
    await it.save_script(PATH, SCRIPT)
    result = await it.call("POST", f"/w/:w/jobs/run_wait_result/p/{PATH}", {"x": 1})
    if result != 1:
        raise RuntimeError(f"the first job answered {result!r}")


async def stop(process: asyncio.subprocess.Process) -> None:
    """Press Ctrl-C: make and what it runs are one process group."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            await asyncio.wait_for(process.wait(), 60)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
