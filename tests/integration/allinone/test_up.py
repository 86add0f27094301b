import asyncio
import os
import signal
import socket
import stat
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.support.processes import is_gone
from tidemill.allinone.lifeline import occupants
from tidemill.allinone.postgres import PROGRAMS
from tidemill.allinone.rabbitmq import RabbitMqNotFound, find_rabbitmq, free_ports
from tidemill.allinone.services import environment_of
from tidemill.allinone.up import local_url, refuse_taken_port
from tidemill.api.settings import ApiSettings
from tidemill.chassis.errors import StartRefused
from tidemill.shared.catalog import Service

TIDEMILL = Path(sys.executable).with_name("tidemill")


class Installation:
    """One `tidemill up` and what it has said so far."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.url = f"http://localhost:{port}"
        self.said: list[str] = []

    async def until(self, part: str) -> str:
        """Return the next line with this part; fails with all that was said when it ends before."""
        assert self.process.stdout is not None
        async with asyncio.timeout(90):
            while line := (await self.process.stdout.readline()).decode():
                self.said.append(line.rstrip("\n"))
                if part in line:
                    return self.said[-1]
        raise AssertionError("\n".join(self.said))

    async def end(self) -> int:
        """Press Ctrl-C and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            self.said += (await self.process.stdout.read()).decode().splitlines()
            return await self.process.wait()


@asynccontextmanager
async def up(home: Path, *arguments: str, **settings: str) -> AsyncIterator[Installation]:
    port = free_ports(1)[0]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    own = {"TIDEMILL_HOME": str(home), "TIDEMILL_PORT": str(port), **settings}
    process = await asyncio.create_subprocess_exec(
        TIDEMILL, "up", *arguments, stdin=PIPE, stdout=PIPE, stderr=STDOUT, env={**kept, **own}, limit=2**20
    )
    try:
        yield Installation(process, port)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_from_an_empty_folder_to_a_login_and_quietly_back(home: Path) -> None:
    async with up(home) as tidemill:
        await tidemill.until("Tidemill is at")
        login = await tidemill.until("login")
        password_file = home / "admin-password"
        assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
        password = password_file.read_text().strip()
        assert f"admin@tidemill.local, password {password}" in login
        async with (
            aiohttp.ClientSession() as http,
            http.post(
                f"{tidemill.url}/api/auth/login", json={"email": "admin@tidemill.local", "password": password}
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()
        assert await tidemill.end() == 0
        assert tidemill.said[-1] == "stopped"
        assert not [line for line in tidemill.said if "Traceback" in line]
    assert occupants(home / "postgres" / "data", PROGRAMS) == []

    # The second start finds everything and keeps the password.
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with up(home) as tidemill:
        await tidemill.until(password)
        assert loop.time() - began < 15
        assert await tidemill.end() == 0


async def test_a_killed_installation_leaves_no_process_behind(home: Path) -> None:
    async with up(home) as tidemill:
        await tidemill.until("Tidemill is at")
        left = occupants(home / "postgres" / "data", PROGRAMS)
        tidemill.process.kill()
        await tidemill.process.wait()
        for pid in left:
            assert await is_gone(pid)


@pytest.mark.slow
async def test_distributed_services_are_processes_that_come_back(home: Path) -> None:
    try:
        find_rabbitmq()
    except RabbitMqNotFound as missing:
        pytest.skip(str(missing))
    async with up(home, "--shape", "distributed") as tidemill:
        await tidemill.until("Tidemill is at")
        services = children_of(tidemill.process.pid, "tidemill.")
        assert len(services) == len(Service)
        os.kill(services[0], signal.SIGKILL)
        assert "SIGKILL" in await tidemill.until("died")
        assert await tidemill.end() == 0
        for pid in services:
            assert await is_gone(pid, within=1)


async def test_a_second_instance_on_the_same_folder_is_refused_in_one_line(home: Path) -> None:
    async with up(home) as first:
        await first.until("Tidemill is at")
        async with up(home) as second:
            assert str(first.process.pid) in await second.until("in use")
            assert await second.process.wait() == 2
            assert len(second.said) == 1
        assert await first.end() == 0


async def test_a_misspelt_setting_is_refused_with_the_right_name(home: Path) -> None:
    async with up(home, TIDEMILL_PROT="8001") as tidemill:
        assert "TIDEMILL_PORT" in await tidemill.until("TIDEMILL_PROT")
        assert await tidemill.process.wait() == 2


def test_a_taken_port_is_refused_with_the_setting_to_change() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StartRefused, match=rf"{port}.*TIDEMILL_PORT"):
            refuse_taken_port("127.0.0.1", port)
    refuse_taken_port("127.0.0.1", port)


def test_a_service_knows_its_own_login_and_nobody_elses() -> None:
    environ = {
        "PATH": "/bin",
        "TIDEMILL_DATABASE_URL": "admin's",
        "TIDEMILL_MIGRATOR_DATABASE_URL": "migrator's",
        "TIDEMILL_ADMIN_PASSWORD": "admin's",
        "TIDEMILL_HEALTH_PORT": "9000",
        "TIDEMILL_AMQP_URL": "operator's",
        **{f"TIDEMILL_{service.upper()}_DATABASE_URL": f"{service}'s" for service in Service},
        **{f"TIDEMILL_{service.upper()}_AMQP_URL": f"{service}'s" for service in Service},
    }
    assert environment_of(Service.WORKER, environ) == {
        "PATH": "/bin",
        "TIDEMILL_WORKER_DATABASE_URL": "worker's",
        "TIDEMILL_WORKER_AMQP_URL": "worker's",
        "TIDEMILL_HEALTH_PORT": "9002",
    }
    assert environment_of(Service.API, environ)["TIDEMILL_ADMIN_PASSWORD"] == "admin's"


@pytest.mark.parametrize(
    ("bind", "url"),
    [("0.0.0.0", "http://localhost:8000"), ("::1", "http://[::1]:8000"), ("10.0.0.7", "http://10.0.0.7:8000")],
)
def test_jobs_reach_the_api_at_an_address_of_this_machine(bind: str, url: str) -> None:
    assert local_url(ApiSettings(bind=bind)) == url


def children_of(parent: int, part: str) -> list[int]:
    """Return the children of a process that have this part in their command lines."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if part in Path(f"/proc/{pid}/cmdline").read_text()]
