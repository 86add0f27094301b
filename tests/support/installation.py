"""A whole Tidemill as a new user starts it: `tidemill up` in its own process group, own data folder, own port."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp

from tests.support.servers import temporary_home
from tests.support.waiting import eventually

Shape = Literal["all-in-one", "distributed"]
SHAPES: tuple[Shape, ...] = ("all-in-one", "distributed")

_START = 90
_STOP = 30


@dataclass
class Installation:
    """A running Tidemill and its admin's session."""

    url: str
    home: Path
    shape: Shape
    process: asyncio.subprocess.Process
    output: list[str] = field(default_factory=list)
    token: str = ""
    workspace: str = "starter"

    @property
    def password(self) -> str:
        """The first admin's password, as it lies in its file."""
        return self.home.joinpath("admin-password").read_text().strip()

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Call the api as the admin and return what it answered: JSON decoded, text as it is; raises on 4xx and 5xx."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method,
                f"{self.url}/api{path.replace('/w/:w/', f'/w/{self.workspace}/')}",
                json=body,
                params={name: str(value) for name, value in query.items()},
                headers={"Authorization": f"Bearer {self.token}"},
                timeout=aiohttp.ClientTimeout(60),
            ) as answer,
        ):
            text = await answer.text()
            if answer.status >= 400:
                raise AssertionError(f"{method} {path}: {answer.status} {text}")
            return json.loads(text) if answer.content_type == "application/json" else text

    async def save_script(self, path: str, content: str, language: str = "python3", **more: Any) -> str:
        """Save a script and return its hash."""
        script = {"path": path, "content": content, "language": language, "summary": "", "description": "", **more}
        saved: str = await self.call("POST", "/w/:w/scripts/create", script)
        return saved

    async def serve_script(self, path: str, content: str) -> None:
        """Save a script and wait until it can be run, its packages found."""
        version = await self.save_script(path, content)

        async def found() -> Any:
            status = await self.call("GET", f"/w/:w/scripts/deployment_status/h/{version}")
            return status if {"lock", "lock_error_logs"} & status.keys() else None

        status = await eventually(found, _START)
        assert "lock" in status, status


def free_port() -> int:
    """Return a port of the loopback that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def installation(
    shape: Shape, settings: Mapping[str, str] | None = None, home: Path | None = None
) -> AsyncIterator[Installation]:
    """Start Tidemill, log in as its admin and stop it with Ctrl-C at the end; `home` is kept when it is given."""
    with temporary_home() as temporary:
        port = free_port()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
        if "TIDEMILL_AMQP_URL" in os.environ:
            environ["TIDEMILL_AMQP_URL"] = os.environ["TIDEMILL_AMQP_URL"]
        environ |= {"TIDEMILL_HOME": str(home or temporary), "TIDEMILL_PORT": str(port), **(settings or {})}
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("tidemill")),
            "up",
            "--shape",
            shape,
            env=environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        it = Installation(f"http://127.0.0.1:{port}", home or temporary, shape, process)
        reading = asyncio.create_task(_read(process, it.output))
        try:
            await _wait_until_ready(it)
            it.token = await _log_in(it)
            yield it
        finally:
            await _stop(process)
            await reading


async def _read(process: asyncio.subprocess.Process, lines: list[str]) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        lines.append(line.decode(errors="replace").rstrip("\n"))


async def _wait_until_ready(it: Installation) -> None:
    deadline = asyncio.get_running_loop().time() + _START
    async with aiohttp.ClientSession() as session:
        while True:
            if it.process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise AssertionError("it did not start:\n" + "\n".join(it.output[-40:]))
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get(f"{it.url}/readyz", timeout=aiohttp.ClientTimeout(2)) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


async def _log_in(it: Installation) -> str:
    login = {"email": "admin@tidemill.local", "password": it.password}
    token: str = await it.call("POST", "/auth/login", login)
    return token


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGINT)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP)
            return
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise AssertionError("it did not stop on Ctrl-C")
