"""`make bench` in small: it runs, and its figures are of what it says they are of."""

import asyncio
import sys
from pathlib import Path

import msgspec

from tests.bench.run import Run


async def test_a_small_run_measures_and_reports(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench", "--only", "p1,p11", "--shape", "all-in-one"),
        *("--peers", "none", "--samples", "5", "--results", str(tmp_path)),
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, said = await asyncio.wait_for(process.communicate(), 110)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, said.decode()
    run = msgspec.json.decode(tmp_path.joinpath("latest.json").read_bytes(), type=Run)
    latency, line = run.measured
    assert (latency.find("one job p50") or 0) > 0
    # Request, claim and finish are statements that each commit; a count that sees none has looked elsewhere.
    assert (latency.find("statements a job") or 0) >= 3
    assert (latency.find("writing transactions a job") or 0) >= 3
    assert line.find("claim p50, long line against empty")
    assert tmp_path.joinpath("table.md").read_text() == printed.decode()
