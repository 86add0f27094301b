"""P2 and P3: flows of light Python steps, each its own job, and the same three steps as code inside one job."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tests.bench.calibration import FIB
from tests.bench.figures import Figure, Latency, Measured, Table, latency_figures, spread
from tests.bench.measurements.p1_latency import statements
from tests.bench.progress import Steps
from tests.bench.sizes import Sizes
from tests.bench.subject import Subject, counted, subject
from tests.support.installation import Shape

LIGHT = FIB + "\ndef main(n: int = 10):\n    fib(10)\n    return n\n"
WARM = "u/admin/bench_warm_step"
INLINE = "u/admin/bench_inline"
CODE = """\
from wmill import step, workflow

@workflow
async def main(x: int = 1):
    a = await step("a", lambda: x)
    b = await step("b", lambda: a)
    return await step("c", lambda: b)
"""


def rawscript(content: str, **inputs: str) -> Mapping[str, Any]:
    """Return a step of Python whose inputs are expressions."""
    transforms = {name: {"type": "javascript", "expr": source} for name, source in inputs.items()}
    return {"type": "rawscript", "language": "python3", "content": content, "input_transforms": transforms}


def sequence(length: int, step: Callable[[str], Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return a flow of steps that hand one number on."""
    sources = ["flow_input.n", *["previous_result"] * (length - 1)]
    return {"modules": [{"id": f"s{no}", "value": step(source)} for no, source in enumerate(sources)]}


def isolated(source: str) -> Mapping[str, Any]:
    """Return a step whose job has a process of its own."""
    return rawscript(LIGHT, n=source)


def warm(source: str) -> Mapping[str, Any]:
    """Return a step whose process stays for the next one."""
    return {"type": "script", "path": WARM, "input_transforms": {"n": {"type": "javascript", "expr": source}}}


async def measure_forty(shape: Shape, sizes: Sizes) -> Measured:
    """P2: 40 steps, one after the other."""
    rounds = max(3, sizes.samples // 25)
    async with subject(shape) as it:
        await save_script(it, WARM, LIGHT, stays=True)
        figures: list[Figure] = []
        tables: list[Table] = []
        for what, step in (("isolated", isolated), ("warm", warm)):
            path = f"u/admin/bench_40_{what}"
            await save_flow(it, path, sequence(40, step))
            took = await repeated(partial(run_flow, it, path, 7), rounds, f"p2 {shape} {what}")
            figures.append(Figure(f"40 {what} steps p50", round(took.p50 / 1000, 3), "s"))
            async with counted(it) as counts:
                await run_flow(it, path, 7)
                await it.until_nothing_is_left()
            figures.append(Figure(f"statements a step, {what}", round(counts.calls / 40, 2), ""))
            figures.append(
                Figure(f"writing transactions a step, {what}", round(counts.writing_transactions / 40, 2), "")
            )
            tables.append(statements(shape, counts, 40))
    return Measured(measurement="p2", shape=shape, figures=figures, tables=tables)


async def measure_three(shape: Shape, sizes: Sizes) -> Measured:
    """P3: three steps as jobs, and as code inside one job."""
    rounds = max(5, sizes.samples // 5)
    missing: dict[str, str] = {}
    async with subject(shape) as it:
        await save_script(it, WARM, LIGHT, stays=True)
        figures: list[Figure] = []
        for what, step in (("isolated", isolated), ("warm", warm)):
            path = f"u/admin/bench_3_{what}"
            await save_flow(it, path, sequence(3, step))
            took = await repeated(partial(run_flow, it, path, 7), rounds, f"p3 {shape} {what}")
            figures += latency_figures(f"3 {what} steps", took)
        for what, path, stays in (("3 inline steps", INLINE, False), ("3 inline steps, warm", INLINE + "_warm", True)):
            try:
                await save_script(it, path, CODE, stays=stays)
                took = await repeated(partial(it.call_and_wait, path, {"x": 7}), rounds, f"p3 {shape} {what}")
                figures += latency_figures(what, took)
            except Exception as error:
                missing[f"{what} p50"] = f"{type(error).__name__}: {error}"
    return Measured(measurement="p3", shape=shape, figures=figures, missing=missing)


async def repeated(run: Callable[[], Awaitable[Any]], rounds: int, what: str) -> Latency:
    """Run again and again and return how long it took; the first tenth, at least two, does not count."""
    samples = []
    ahead = max(2, rounds // 10)
    steps = Steps(what, rounds)
    for number in range(ahead + rounds):
        began = time.perf_counter()
        if (result := await run()) != 7:
            raise RuntimeError(f"{what} answered {result!r}")
        samples.append(time.perf_counter() - began)
        steps.done(max(0, number + 1 - ahead))
    return spread(samples[ahead:])


async def save_script(it: Subject, path: str, content: str, *, stays: bool) -> None:
    """Deploy a script whose process `stays` for the next job, or not, and wait for its lock."""
    script = {"path": path, "content": content, "language": "python3", "summary": "", "dedicated_worker": stays}
    async with it.session.post(it.url("scripts/create"), json=script) as answer:
        if answer.status != 201:
            raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
    await it.until_nothing_is_left()


async def save_flow(it: Subject, path: str, value: Mapping[str, Any]) -> None:
    """Deploy a flow and wait until the locks of its code are there."""
    async with it.session.post(it.url("flows/create"), json={"path": path, "summary": "", "value": value}) as answer:
        if answer.status != 201:
            raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
    await it.until_nothing_is_left()


async def run_flow(it: Subject, path: str, n: int | Sequence[int]) -> Any:
    """Run a flow and return its result."""
    async with it.session.post(it.url(f"jobs/run_wait_result/f/{path}"), json={"n": n}) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
        return await answer.json()
