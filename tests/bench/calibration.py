"""What this machine can do at all, measured in the same run: figures of two machines differ by these first."""

import asyncio
import os
import platform
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import asyncpg
import msgspec

from tests.bench.figures import Latency, spread
from tests.bench.progress import tell
from tests.bench.sizes import Sizes
from tidemill.allinone.postgres import PostgresAddress
from tidemill.allinone.programs import BIN, installation_folder
from tidemill.allinone.rabbitmq import RabbitMqNotFound, find_rabbitmq
from tidemill.chassis.errors import StartRefused

FIB = "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
_CPU = re.compile(r"^model name\s*:\s*(.+)$", re.MULTILINE)


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and its yardsticks."""

    cold_python: Latency
    """Start `python -I -c pass` and wait for its end: what a runner without a pool pays for each job."""
    fib_33: float
    """Seconds of a plain, recursive fib(33): the best of some."""
    selects: float
    """SELECTs a second by one client."""
    selects_by: str
    cores: int
    cpu: str
    load: float
    """Runnable processes of the minute before we began: with many, no figure is worth much."""
    versions: dict[str, str]


async def calibrate(sizes: Sizes, postgres: PostgresAddress) -> Calibration:
    """Measure the yardsticks."""
    load = os.getloadavg()[0]
    tell("calibration: cold Python, fib(33), SELECTs")
    # In threads, so that the servers' outputs are read meanwhile.
    cold = await asyncio.to_thread(cold_python, max(10, min(100, sizes.samples // 5)))
    heavy = await asyncio.to_thread(fib_33, sizes.rounds)
    selects, by = await _selects(postgres, 5 if sizes.rounds > 1 else 1)
    return Calibration(
        cold_python=cold,
        fib_33=heavy,
        selects=selects,
        selects_by=by,
        cores=os.cpu_count() or 1,
        cpu=_cpu(),
        load=round(load, 2),
        versions={
            "Tidemill": version("tidemill-allinone"),
            "Python": platform.python_version(),
            "Postgres": postgres.version,
            "RabbitMQ": _rabbitmq(),
            "Linux": platform.release(),
        },
    )


def cold_python(times: int) -> Latency:
    """Start an interpreter that does nothing, and wait for its end."""
    interpreter = os.path.realpath(sys.executable)  # a venv's python would look for its packages first
    samples = []
    for _ in range(times + 5):
        began = time.perf_counter()
        subprocess.run([interpreter, "-I", "-c", "pass"], check=True, timeout=60)
        samples.append(time.perf_counter() - began)
    return spread(samples[5:])


def fib_33(rounds: int) -> float:
    """Return the seconds of the best of some rounds, in an interpreter of its own as jobs have it."""
    program = f"import time\n{FIB}began = time.perf_counter()\nfib(33)\nprint(time.perf_counter() - began)"
    interpreter = os.path.realpath(sys.executable)
    took = [
        float(subprocess.run([interpreter, "-I", "-c", program], check=True, capture_output=True, timeout=120).stdout)
        for _ in range(rounds)
    ]
    return round(min(took), 3)


async def _selects(postgres: PostgresAddress, seconds: int) -> tuple[float, str]:
    program = pgbench()
    if program is None:
        return await _selects_by_asyncpg(postgres, seconds), "asyncpg, one prepared SELECT"
    login = {"PGHOST": postgres.host, "PGUSER": "postgres", "PGPASSWORD": postgres.superuser_password}
    await _run(program, "--initialize", "--quiet", "postgres", environ=login)
    said = await _run(program, *("-S", "-M", "prepared", "-c", "1", "-T", str(seconds), "postgres"), environ=login)
    found = re.search(r"tps = ([\d.]+)", said)
    if found is None:
        raise RuntimeError(f"pgbench says no tps: {said}")
    return round(float(found[1])), "pgbench -S -M prepared -c 1"


def pgbench() -> Path | None:
    """Return the pgbench that came with Postgres, or None."""
    try:
        program = installation_folder() / BIN / "pgbench"
    except StartRefused:
        return None
    return program if program.exists() else None


async def _run(program: Path, *arguments: str, environ: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        env={"PATH": os.defpath, **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
    text = output.decode(errors="replace")
    if process.returncode != 0:
        raise RuntimeError(f"{program.name} failed: {text}")
    return text


async def _selects_by_asyncpg(postgres: PostgresAddress, seconds: int) -> float:
    connection = await asyncpg.connect(**postgres.admin)
    try:
        statement = await connection.prepare("SELECT oid FROM pg_class WHERE oid = $1")
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            await statement.fetchval(1259)
            count += 1
        return round(count / (time.perf_counter() - began))
    finally:
        await connection.close(timeout=5)


def _cpu() -> str:
    try:
        found = _CPU.search(Path("/proc/cpuinfo").read_text())
    except FileNotFoundError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def _rabbitmq() -> str:
    try:
        return find_rabbitmq().parent.name.removeprefix("rabbitmq_server-")
    except RabbitMqNotFound:
        return "none"
