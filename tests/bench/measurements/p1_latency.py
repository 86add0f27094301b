"""P1: one client calls run_wait_result again and again over one kept-alive connection."""

import asyncio
import time

from tests.bench.calibration import cold_python
from tests.bench.figures import Figure, Latency, Measured, Table, latency_figures, spread
from tests.bench.measurements.warm import WARM_PATH, why_no_warm_runnables
from tests.bench.progress import Steps
from tests.bench.sizes import Sizes
from tests.bench.subject import PATH, SCRIPT, Counts, Subject, counted, subject
from tests.support.installation import Shape


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Measure latency first and count statements after, because counting costs time."""
    async with subject(shape) as it:
        await it.installation.save_script(PATH, SCRIPT)
        latency = await closed_loop(it, PATH, sizes, f"p1 {shape}")
        yardstick = await asyncio.to_thread(cold_python, max(10, min(50, sizes.samples // 10)))
        jobs = min(200, sizes.samples)
        async with counted(it) as counts:
            for number in range(jobs):
                await it.call_and_wait(PATH, {"x": number})
            await it.until_nothing_is_left()
        figures = [
            *latency_figures("one job", latency),
            Figure("one job in cold Pythons", round(latency.p50 / yardstick.p50, 3), ""),
            Figure("statements a job", round(counts.calls / jobs, 2), ""),
            Figure("writing transactions a job", round(counts.writing_transactions / jobs, 2), ""),
            Figure("WAL a job", round(counts.wal_bytes / jobs), "bytes"),
        ]
        missing = {}
        if reason := await why_no_warm_runnables(it):
            missing["one warm job p50"] = reason
        else:
            warm = await closed_loop(it, WARM_PATH, sizes, f"p1 warm {shape}")
            figures += latency_figures("one warm job", warm)
    return Measured(
        measurement="p1", shape=shape, figures=figures, missing=missing, tables=[statements(shape, counts, jobs)]
    )


async def closed_loop(it: Subject, path: str, sizes: Sizes, what: str) -> Latency:
    """Call a script that returns its x, with warm-ups that do not count."""
    samples = []
    steps = Steps(what, sizes.samples)
    for number in range(sizes.warm_ups + sizes.samples):
        began = time.perf_counter()
        result = await it.call_and_wait(path, {"x": number})
        samples.append(time.perf_counter() - began)
        if result != number:
            raise RuntimeError(f"{path} answered {result!r} to {number}")
        steps.done(max(0, number + 1 - sizes.warm_ups))
    return spread(samples[sizes.warm_ups :])


def statements(shape: Shape, counts: Counts, jobs: int) -> Table:
    """Return who asked Postgres for what, how often for each job and how long it took within the server."""
    rows = [
        (each["role"], shortened(each["query"]), f"{each['calls'] / jobs:.2f}", f"{each['ms']:.3f}")
        for each in counts.statements
        if each["calls"] * 20 >= jobs
    ]
    head = ("service", "statement", "a job", "ms in the server")
    return Table(f"Statements of {jobs} plain jobs, {shape}", head, rows)


def shortened(query: str) -> str:
    """Return the beginning of a statement on one line."""
    text = " ".join(line for line in query.splitlines() if not line.lstrip().startswith("--"))
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= 90 else text[:89] + "…"
