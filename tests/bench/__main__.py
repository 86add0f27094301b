"""P1: webhook to sandboxed Python job to answer, in both shapes.

    make bench            closed loop, one client, 50 warm-ups, 500 samples of run_wait_result on a warm script

The machine calibrates itself: a cold `python -I -c pass` is the yardstick, because it is what every runner without a
pool of interpreters pays for each job.
"""

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import msgspec

from tests.support.installation import SHAPES, Installation, Shape, installation

RESULTS = Path(__file__).parent / "results"
WARM_UPS = 50
SAMPLES = 500
SCRIPT = "def main(x: int):\n    return x\n"
GOALS_MS = {"all-in-one": (7, 20), "distributed": (9, 25)}


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p95: float
    p99: float


def spread(samples: Sequence[float]) -> Latency:
    """Return the percentiles of samples in seconds."""
    cuts = statistics.quantiles(samples, n=100)
    return Latency(*(round(cuts[at - 1] * 1000, 2) for at in (50, 95, 99)))


def cold_python() -> Latency:
    """Measure the yardstick: start an interpreter that does nothing, and wait for its end."""
    interpreter = os.path.realpath(sys.executable)
    samples = []
    for _ in range(60):
        began = time.perf_counter()
        subprocess.run([interpreter, "-I", "-c", "pass"], check=True)
        samples.append(time.perf_counter() - began)
    return spread(samples[10:])


async def wait_result(tidemill: Installation) -> Latency:
    """Measure run_wait_result over one kept-alive connection."""
    await tidemill.save_script("u/admin/bench", SCRIPT)
    url = f"{tidemill.url}/api/w/{tidemill.workspace}/jobs/run_wait_result/p/u/admin/bench"
    samples = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {tidemill.token}"}) as session:
        for number in range(WARM_UPS + SAMPLES):
            began = time.perf_counter()
            async with session.post(url, json={"x": number}) as answer:
                result = await answer.json()
            samples.append(time.perf_counter() - began)
            assert result == number, result
    return spread(samples[WARM_UPS:])


async def measure(shape: Shape) -> Latency:
    """Measure one shape from its start to its stop."""
    async with installation(shape, {"TIDEMILL_LOG_LEVEL": "warning"}) as tidemill:
        return await wait_result(tidemill)


def table(yardstick: Latency, measured: dict[Shape, Latency]) -> str:
    """Return the result as Markdown."""
    lines = [
        f"Machine: {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}.",
        f"Yardstick, a cold `python -I -c pass`: p50 {yardstick.p50} ms, p99 {yardstick.p99} ms.",
        "",
        "| P1: webhook → sandboxed Python job → answer | p50 | p95 | p99 | goal p50 / p99 | in cold Pythons |",
        "|---|---|---|---|---|---|",
    ]
    for shape, latency in measured.items():
        goal = GOALS_MS[shape]
        lines.append(
            f"| {shape} | {latency.p50} ms | {latency.p95} ms | {latency.p99} ms | {goal[0]} / {goal[1]} ms"
            f" | {latency.p50 / yardstick.p50:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure both shapes, print the table and keep it."""
    yardstick = cold_python()
    measured = {shape: asyncio.run(measure(shape)) for shape in SHAPES}
    text = table(yardstick, measured)
    sys.stdout.write(text)
    RESULTS.mkdir(exist_ok=True)
    RESULTS.joinpath("p1.md").write_text(text)
    RESULTS.joinpath("p1.json").write_text(
        json.dumps(msgspec.to_builtins({"yardstick": yardstick, **measured}), indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
