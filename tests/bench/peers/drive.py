"""Put each peer into a venv of its own, run its program within its time, and read what it prints.

The venvs lie in the user's cache folder and are named by their lock, so that the second run finds them.
"""

import asyncio
import hashlib
import os
import runpy
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import asyncpg
import msgspec

from tests.bench.figures import Latency, spread
from tests.bench.peers import PEERS, Peer, Raw
from tests.bench.progress import tell
from tests.bench.sizes import ALL_SAMPLES, Sizes
from tests.support.servers import temporary_home
from tidemill.allinone.postgres import PostgresAddress
from tidemill.allinone.rabbitmq import private_rabbitmq
from tidemill.chassis.errors import StartRefused

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
INTERPRETER = Path(sys.executable).resolve()
INSTALL_WITHIN = timedelta(minutes=10)
_MOST_SAMPLES = 200


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer gave, or why it gave nothing."""

    title: str
    isolation: str
    what: str
    start: float | None = None
    one_job: Latency | None = None
    jobs_per_second: float | None = None
    light: float | None = None
    heavy: float | None = None
    missing: str | None = None


class PeerFailed(Exception):
    """A peer can't be installed or measured; the text says why."""


async def run_peers(names: Sequence[str], sizes: Sizes, postgres: PostgresAddress) -> dict[str, Ran]:
    """Measure these peers, one after the other."""
    ran = {}
    for name in names:
        peer = PEERS[name]
        tell(f"peer {peer.title}")
        nothing = Ran(title=titled(peer), isolation=peer.isolation, what=peer.what)
        try:
            python = await installed(name)
            raw = await measured(name, peer, python, sizes, postgres)
            ran[name] = msgspec.structs.replace(
                nothing,
                title=titled(peer, await version_of(name, python)),
                start=round(raw.start, 2),
                one_job=spread(raw.one_job),
                jobs_per_second=round(raw.jobs_per_second, 1),
                light=None if raw.light is None else round(raw.light, 3),
                heavy=None if raw.heavy is None else round(raw.heavy, 2),
            )
        except (PeerFailed, StartRefused) as why:
            tell(f"peer {peer.title} left out: {why}")
            ran[name] = msgspec.structs.replace(nothing, missing=str(why))
        except Exception as error:
            # What has been measured so far must not be lost with it.
            tell(f"peer {peer.title} failed: {type(error).__name__}: {error}")
            ran[name] = msgspec.structs.replace(nothing, missing=f"{type(error).__name__}: {str(error)[:200]}")
    return ran


async def installed(name: str) -> Path:
    """Return the interpreter of the peer's venv, made at the first time."""
    lock = HERE / f"{name}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "tidemill-bench" / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python
    tell(f"installing {name} into the cache folder")
    uv = Path(sys.executable).with_name("uv")
    environ = uv_environment()
    try:
        await run([uv, "venv", "--quiet", "--clear", "--python", INTERPRETER, folder], environ, INSTALL_WITHIN)
        install = ("pip", "install", "--quiet", "--require-hashes", "--python", python, "-r", lock)
        await run([uv, *install], environ, INSTALL_WITHIN)
    except PeerFailed as why:
        shutil.rmtree(folder, ignore_errors=True)
        raise PeerFailed(f"it can't be installed: {why}") from why
    (folder / ".ready").touch()
    return python


def uv_environment() -> dict[str, str]:
    """Return our environment with the settings of pip as uv reads them, as `make setup` does."""
    module = runpy.run_path(str(ROOT / "deploy" / "allinone" / "dependencies.py"), run_name="dependencies")
    settings: Mapping[str, str] = module["as_uv_reads_them"](module["pip_settings"](), os.environ)
    return {**os.environ, **settings, "UV_NO_CONFIG": "1"}


async def measured(name: str, peer: Peer, python: Path, sizes: Sizes, postgres: PostgresAddress) -> Raw:
    """Run the peer's program with a database, a folder and, if it wants one, a broker of its own."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(temporary_home())
        environ = {
            "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "BENCH_POSTGRES": await stack.enter_async_context(database(f"bench_{name}", postgres)),
            "BENCH_HOME": str(home),
            "BENCH_WARM_UPS": str(min(20, sizes.warm_ups)),
            "BENCH_SAMPLES": str(min(_MOST_SAMPLES, sizes.samples)),
            "BENCH_BURST": str(sizes.burst),
            "BENCH_HEAVY": "1" if sizes.samples >= ALL_SAMPLES else "0",
        }
        if peer.amqp:
            environ["BENCH_AMQP"] = (await stack.enter_async_context(private_rabbitmq(home))).url
        output = await run([python, HERE / f"with_{name}.py"], environ, peer.limit, cwd=home)
    try:
        return msgspec.json.decode(output.strip().rpartition(b"\n")[2], type=Raw)
    except msgspec.DecodeError as error:
        raise PeerFailed(f"its program printed no result: {error}") from error


@asynccontextmanager
async def database(name: str, postgres: PostgresAddress) -> AsyncIterator[str]:
    """Make a database for the block and give its address."""
    connection = await asyncpg.connect(**postgres.admin)
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
        yield postgres.dsn(postgres.admin["user"], postgres.superuser_password, name)
    finally:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.close(timeout=5)


async def version_of(package: str, python: Path) -> str:
    """Return the version of a package in a venv."""
    program = "import sys, importlib.metadata as m; print(m.version(sys.argv[1]))"
    output = await run([python, "-I", "-c", program, package], {"PATH": os.defpath}, timedelta(seconds=60))
    return output.decode().strip()


def titled(peer: Peer, version: str = "") -> str:
    """Return how the table names a peer."""
    name = f"{peer.title} {version}".strip()
    return f"{name}, {peer.setup}" if peer.setup else name


async def run(
    command: Sequence[str | Path], environ: Mapping[str, str], limit: timedelta, cwd: Path | None = None
) -> bytes:
    """Return what a program prints; it and all it has started end at the latest when its time is over."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environ),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=2**22,
    )
    said: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(limit.total_seconds()), asyncio.TaskGroup() as group:
            reading = group.create_task(process.stdout.read())
            group.create_task(follow(process.stderr, said))
        ended = await asyncio.wait_for(process.wait(), 60)
    except TimeoutError:
        raise PeerFailed(f"it took longer than {limit.total_seconds():.0f} s") from None
    finally:
        end_group(process.pid)
    if ended != 0:
        raise PeerFailed(
            next((line for line in reversed(said) if line.strip()), f"it ended with {ended}").strip()[:300]
        )
    return reading.result()


async def follow(stream: asyncio.StreamReader, said: list[str]) -> None:
    """Keep the last lines and show how far the program is."""
    async for raw in stream:
        line = raw.decode(errors="replace").rstrip()
        said.append(line)
        del said[:-50]
        if line.startswith("bench: "):
            tell(f"  {line.removeprefix('bench: ')}")


def end_group(leader: int) -> None:
    """End what is left of a process group that we have started."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
