"""P4: jobs a second: all are submitted over HTTP as fast as the api takes them, and all have an end in the database."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

from tests.bench.figures import Figure, Measured
from tests.bench.measurements.warm import WARM_PATH, why_no_warm_runnables
from tests.bench.progress import tell
from tests.bench.sizes import Sizes
from tests.bench.subject import PATH, SCRIPT, Subject, counted, subject
from tests.support.installation import Shape
from tests.support.waiting import eventually

CLIENTS = 8
NO_OP = {"kind": "identity", "content": "", "language": "python3", "args": {}}


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Measure each kind of job that there is; of the others, say what the api says."""
    figures = []
    missing = {}
    async with subject(shape) as it:
        await it.installation.save_script(PATH, SCRIPT)
        await burst(it, lambda number: it.submit(PATH, {"x": number}), sizes.warm_ups)
        tell(f"p4 {shape}: {sizes.burst} isolated jobs")
        rate = await burst(it, lambda number: it.submit(PATH, {"x": number}), sizes.burst)
        figures.append(Figure("isolated Python", rate, "jobs/s"))
        async with counted(it) as counts:
            await burst(it, lambda number: it.submit(PATH, {"x": number}), sizes.samples)
            await it.until_nothing_is_left()
        figures.append(Figure("statements a job, isolated Python", round(counts.calls / sizes.samples, 2), ""))
        transactions = round(counts.writing_transactions / sizes.samples, 2)
        figures.append(Figure("writing transactions a job, isolated Python", transactions, ""))
        if reason := await why_no_warm_runnables(it):
            missing["warm Python"] = reason
        else:
            tell(f"p4 {shape}: {sizes.burst} warm jobs")
            rate = await burst(it, lambda number: it.submit(WARM_PATH, {"x": number}), sizes.burst)
            figures.append(Figure("warm Python", rate, "jobs/s"))
        if reason := await why_no_no_ops(it):
            missing["no-op"] = reason
        else:
            tell(f"p4 {shape}: {sizes.burst} no-ops")
            figures.append(Figure("no-op", await burst(it, lambda _: no_op(it), sizes.burst), "jobs/s"))
    return Measured(measurement="p4", shape=shape, figures=figures, missing=missing)


async def burst(it: Subject, submit: Callable[[int], Awaitable[str]], jobs: int) -> float:
    """Submit so many jobs by several clients and return jobs a second until the last one has its end."""
    finished = "SELECT count(*) FROM queue.finished_job WHERE outcome = 'success'"
    before = await it.admin.fetchval(finished)
    numbers = iter(range(jobs))

    async def client() -> None:
        for number in numbers:
            await submit(number)

    began = time.perf_counter()
    async with asyncio.timeout(300), asyncio.TaskGroup() as group:
        for _ in itertools.repeat(None, CLIENTS):
            group.create_task(client())
    await eventually(lambda: it.admin.fetchval("SELECT NOT EXISTS (SELECT FROM queue.live_job)"), 300)
    took = time.perf_counter() - began
    succeeded = await it.admin.fetchval(finished) - before
    if succeeded != jobs:
        raise RuntimeError(f"of {jobs} jobs {succeeded} succeeded")
    return round(jobs / took, 1)


async def no_op(it: Subject) -> str:
    """Submit a job that runs nothing."""
    async with it.session.post(it.url("jobs/run/preview"), json=NO_OP) as answer:
        if answer.status != 201:
            raise RuntimeError(f"a no-op was refused: {answer.status} {await answer.text()}")
        return await answer.text()


async def why_no_no_ops(it: Subject) -> str | None:
    """Return None when a job can be asked for that runs nothing, else why not."""
    try:
        job = await no_op(it)
    except RuntimeError as refused:
        return f"not available yet: {refused}"
    await it.until_nothing_is_left()
    async with it.session.get(it.url(f"jobs_u/get/{job}")) as answer:
        kind = (await answer.json())["job_kind"]
    return None if kind in ("identity", "noop") else f"not available yet: kind identity was run as {kind}"
