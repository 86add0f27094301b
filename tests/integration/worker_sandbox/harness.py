"""Runs scripts in a real sandbox and keeps all that was heard; looks at this machine's processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tidemill.worker.sandbox.execution import Ending, Execution, Limits
from tidemill.worker.sandbox.pool import Sandbox, ZygoteKey

DEADLINE = timedelta(seconds=20)


@dataclass
class Run:
    """One running or finished script."""

    task: asyncio.Task[Ending] | None = None
    chunks: list[str] = field(default_factory=list)
    stream: list[str] = field(default_factory=list)
    cancel: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def log(self) -> str:
        return "".join(self.chunks)

    async def ending(self) -> Ending:
        assert self.task is not None
        async with asyncio.timeout(DEADLINE.total_seconds()):
            return await self.task

    async def says(self, text: str) -> None:
        """Return when the log holds this text; fail when the job ends or the deadline passes before."""
        assert self.task is not None
        async with asyncio.timeout(DEADLINE.total_seconds()):
            while text not in self.log:
                assert not self.task.done(), f"the job ended before it said {text!r}: {self.task.result()}"
                await asyncio.sleep(0.005)


class Scripts:
    """Starts scripts in one sandbox."""

    def __init__(self, sandbox: Sandbox, key: ZygoteKey) -> None:
        self.sandbox = sandbox
        self.key = key

    def start(
        self,
        code: str,
        args: dict[str, Any] | None = None,
        *,
        language: str = "python3",
        entrypoint: str = "main",
        env: dict[str, str] | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        key: ZygoteKey | None = None,
        warm: str | None = None,
    ) -> Run:
        execution = Execution(
            job_id="test",
            language=language,
            code=code,
            entrypoint=entrypoint,
            args=msgspec.Raw(json.dumps(args or {}).encode()),
            env=env or {},
            limits=limits,
            warm=warm,
        )
        run = Run()
        run.task = asyncio.create_task(
            self.sandbox.run(
                key or self.key, execution, on_log=run.chunks.append, on_stream=run.stream.append, cancel=run.cancel
            )
        )
        return run

    async def run(self, code: str, args: dict[str, Any] | None = None, **options: Any) -> tuple[Ending, Run]:
        run = self.start(code, args, **options)
        return await run.ending(), run

    async def result(self, code: str, args: dict[str, Any] | None = None, **options: Any) -> Any:
        """Return the value of a script that must succeed."""
        ending, run = await self.run(code, args, **options)
        value = json.loads(bytes(ending.result))
        assert ending.success, (value, run.log)
        return value

    async def error(self, code: str, args: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Return the error of a script that must fail."""
        ending, run = await self.run(code, args, **options)
        value = json.loads(bytes(ending.result))
        assert not ending.success, (value, run.log)
        error: dict[str, Any] = value["error"]
        return {**error, "reason": ending.reason}


def plainly(command: list[str], uid: int, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command as an ordinary user: as `uid` when we are root, else as ourselves."""
    if os.geteuid() == 0:
        options |= {"user": uid, "group": uid, "extra_groups": []}
    return subprocess.run(command, cwd="/", check=False, capture_output=True, timeout=60, **options)


def can_run(interpreter: str, uid: int) -> bool:
    """Tell whether an ordinary user can start this interpreter with its library, and it is of our version."""
    check = f"import sys, asyncio; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        return plainly([interpreter, "-I", "-S", "-c", check], uid).returncode == 0
    except OSError:
        return False


def children_of(pid: int) -> set[int]:
    """Return all processes below this one, as the host numbers them."""
    return {child.pid for child in psutil.Process(pid).children(recursive=True)}


def processes_with(word: str) -> set[int]:
    """Return the pids of this machine's processes that have the word in their command line."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if word in (folder / "cmdline").read_bytes().decode("utf-8", "replace"):
                found.add(int(folder.name))
        except OSError:
            continue
    return found


async def until(condition: Callable[[], object], within: timedelta = DEADLINE) -> float:
    """Return the seconds it took until the condition held; fail when it does not in time."""
    started = time.monotonic()
    async with asyncio.timeout(within.total_seconds()):
        while not condition():  # noqa: ASYNC110 (processes of the host tell nobody when they end)
            await asyncio.sleep(0.01)
    return time.monotonic() - started
