"""Start Python programs as separate processes, read what they say and wait for the end of any process."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


@asynccontextmanager
async def python_program(*arguments: str | Path) -> AsyncIterator[Process]:
    """Run a Python program with pipes on its three streams; it is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=2**20
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def next_line(process: Process, within: float = 60) -> str:
    """Return the next line that the program prints; fails with its standard error when it ends instead."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = await asyncio.wait_for(process.stdout.readline(), within)
    if not line:
        raise AssertionError((await process.stderr.read()).decode())
    return line.decode().rstrip("\n")


async def is_gone(pid: int, within: float = 20) -> bool:
    """Wait until the process has ended, and tell whether it did in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), within)
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return True


def kill(pid: int) -> None:
    """End the process at once, as a crash does."""
    os.kill(pid, signal.SIGKILL)


def listening_addresses(pid: int) -> list[str]:
    """Return where a process listens on TCP, as the kernel writes it: "0100007F:1F90" is 127.0.0.1:8080."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since we began
            sockets.add(str(descriptor.readlink()))
    return [
        fields[1]
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:])
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets
    ]
