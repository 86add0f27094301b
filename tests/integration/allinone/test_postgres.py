import asyncio
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.support.processes import is_gone, kill, listening_addresses, next_line, python_program
from tidemill.allinone import programs
from tidemill.allinone.lifeline import occupants
from tidemill.allinone.postgres import PROGRAMS, SERVER_UID, PostgresAddress, PostgresNode, embedded_postgres
from tidemill.chassis.errors import StartRefused

LAUNCHER = Path(__file__).with_name("launcher.py")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@asynccontextmanager
async def connected(address: PostgresAddress) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(**address.admin)
    try:
        yield connection
    finally:
        await connection.close()


async def test_data_survives_a_restart_and_the_second_start_is_quick(home: Path) -> None:
    async with embedded_postgres(home) as address, connected(address) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with embedded_postgres(home) as address, connected(address) as connection:
        assert loop.time() - began < 5
        assert await connection.fetchval("SELECT answer FROM kept") == 42


async def test_the_migrator_owns_the_database_and_is_no_superuser(home: Path) -> None:
    async with embedded_postgres(home) as address:
        connection = await asyncpg.connect(address.migrator_dsn)
        try:
            role = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = current_user")
            assert role is not None
            assert role["rolcreaterole"]
            assert [name for name in ("rolsuper", "rolreplication", "rolbypassrls") if role[name]] == []
            await connection.execute("CREATE SCHEMA mine; CREATE ROLE somebody LOGIN; CREATE EXTENSION pg_trgm")
            assert await connection.fetchval("SHOW server_encoding") == "UTF8"
            assert await connection.fetchval("SELECT upper('ä')") == "Ä"
        finally:
            await connection.close()


async def test_nobody_comes_in_without_the_password(home: Path) -> None:
    async with embedded_postgres(home) as address:
        for user in ("postgres", "tidemill_migrator"):
            for password in (None, "wrong"):
                with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
                    await asyncpg.connect(host=address.host, user=user, password=password, database="tidemill")


async def test_there_is_a_socket_in_a_private_folder_and_no_port(home: Path) -> None:
    async with embedded_postgres(home) as address:
        node = occupants(home / "postgres" / "data", PROGRAMS)
        assert node
        assert [address for pid in node for address in listening_addresses(pid)] == []
        for folder in (home, Path(address.host), home / "postgres", home / "postgres" / "data", home / "log"):
            assert mode_of(folder) == 0o700, folder
        for file in (*(home / "secrets").iterdir(), home / "log" / "postgres.log"):
            assert mode_of(file) == 0o600, file
        password = (home / "secrets" / "postgres-superuser").read_text().strip()
        assert password not in (home / "log" / "postgres.log").read_text()
        assert all(password not in command_line_of(pid) for pid in node)


async def test_the_password_of_the_address_is_not_shown_with_it(home: Path) -> None:
    async with embedded_postgres(home) as address:
        assert address.superuser_password not in repr(address)
        assert address.migrator_password not in repr(address)


@as_root
async def test_started_by_root_it_runs_as_somebody_else(home: Path) -> None:
    async with embedded_postgres(home):
        assert {uid_of(pid) for pid in occupants(home / "postgres" / "data", PROGRAMS)} == {SERVER_UID}


@as_root
async def test_a_home_below_a_closed_folder_and_closed_programs_do_no_harm(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    for part in programs.PARTS:
        shutil.copytree(programs.installation_folder() / part, closed / part, symlinks=True)
    monkeypatch.setattr(programs, "installation_folder", lambda: closed)
    copies = Path(tempfile.mkdtemp(prefix="tidemill-test-"))
    monkeypatch.setattr(programs, "COPIES", copies)
    try:
        for _ in range(2):
            async with embedded_postgres(closed / "home") as address, connected(address) as connection:
                assert await connection.fetchval("SELECT 1") == 1
        assert [folder.name for folder in folders_in(copies)] == [f"postgres-{address.version}"]
    finally:
        shutil.rmtree(copies)


@as_root
def test_an_ordinary_user_runs_it_as_well(home: Path) -> None:
    nobody = 65534
    own = folder_of(nobody, home)

    async def run(folder: Path) -> int:
        async with embedded_postgres(folder) as address, connected(address) as connection:
            assert await connection.fetchval("SELECT 1") == 1
            return uid_of(occupants(folder / "postgres" / "data", PROGRAMS)[0])

    def run_as_nobody() -> None:
        os.setgroups([])
        os.setresgid(nobody, nobody, nobody)
        os.setresuid(nobody, nobody, nobody)
        assert asyncio.run(run(own)) == nobody

    # Once here, so that all modules are loaded: the folder of this Python may be closed to others.
    with ThreadPoolExecutor() as pool:
        assert pool.submit(asyncio.run, run(home / "ours")).result() == SERVER_UID
    child = multiprocessing.get_context("fork").Process(target=run_as_nobody)
    child.start()
    child.join(60)
    assert child.exitcode == 0


async def test_a_long_home_gets_a_short_private_socket_folder(home: Path) -> None:
    long = home / ("x" * 100)
    hosts = set()
    for _ in range(2):
        async with embedded_postgres(long) as address, connected(address) as connection:
            assert await connection.fetchval("SELECT 1") == 1
            assert mode_of(Path(address.host)) == 0o700
            hosts.add(address.host)
    assert len(hosts) == 1
    shutil.rmtree(hosts.pop())


async def test_a_killed_server_is_started_again_and_has_what_was_committed(home: Path) -> None:
    node = PostgresNode(home)
    address = await node.start()
    try:
        async with connected(address) as connection:
            await connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        killed = node.pid
        assert killed is not None
        kill(killed)
        assert await is_gone(killed)
        assert await answer_of(address) == 42
        assert node.pid != killed
    finally:
        await node.stop()


async def test_the_server_ends_with_a_killed_launcher_and_the_next_start_succeeds(home: Path) -> None:
    async with python_program(LAUNCHER, "postgres", home) as launcher:
        pid = int((await next_line(launcher)).split()[1])
        launcher.kill()
        await launcher.wait()
        assert await is_gone(pid)
    async with embedded_postgres(home) as address, connected(address) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_what_a_killed_server_left_in_its_folder_does_not_hinder_the_next_start(home: Path) -> None:
    async with python_program(LAUNCHER, "postgres", home) as launcher:
        pid = int((await next_line(launcher)).split()[1])
        kill(pid)
        launcher.kill()
        await launcher.wait()
    left = home / "postgres" / "data" / "postmaster.pid"
    assert left.exists()
    # The number now belongs to a living process that is no Postgres: ours.
    left.write_text("\n".join([str(os.getpid()), *left.read_text().splitlines()[1:]]))
    async with embedded_postgres(home) as address, connected(address) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_server_that_lives_on_alone_is_stopped_before_ours_starts(home: Path) -> None:
    said: list[str] = []
    async with python_program(LAUNCHER, "postgres", home) as launcher:
        left = int((await next_line(launcher)).split()[1])
        launcher.send_signal(signal.SIGSTOP)  # alive, but it does not look after its server any more
        async with embedded_postgres(home, said.append) as address, connected(address) as connection:
            assert await connection.fetchval("SELECT 1") == 1
            assert await is_gone(left, within=0.1)
    assert any("earlier run" in line for line in said)


async def test_data_of_another_version_is_refused_in_one_line(home: Path) -> None:
    async with embedded_postgres(home):
        pass
    (home / "postgres" / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(StartRefused) as refused:
        async with embedded_postgres(home):
            pass
    assert "Postgres 12" in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_broken_cluster_is_told_with_the_reason_of_the_server(home: Path) -> None:
    async with embedded_postgres(home):
        pass
    (home / "postgres" / "data" / "pg_hba.conf").write_text("nonsense\n")
    with pytest.raises(StartRefused, match=r"pg_hba\.conf.*postgres\.log"):
        async with embedded_postgres(home):
            pass


async def test_a_first_start_that_was_interrupted_is_made_anew(home: Path) -> None:
    half = home / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(home) as address, connected(address) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def answer_of(address: PostgresAddress) -> object:
    """Ask as a service does, which reconnects until its database is back."""
    async with asyncio.timeout(30):
        while True:
            try:
                async with connected(address) as connection:
                    return await connection.fetchval("SELECT answer FROM kept")
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0)


def folder_of(uid: int, parent: Path) -> Path:
    """Return a new private folder of this user below one that everybody may cross."""
    parent.chmod(0o755)
    folder = parent / "own"
    folder.mkdir(mode=0o700)
    os.chown(folder, uid, uid)
    return folder


def folders_in(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def uid_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def command_line_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
