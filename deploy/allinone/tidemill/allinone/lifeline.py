"""Tie the life of a child process to ours, and end what an earlier, killed run has left behind."""

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

PR_SET_PDEATHSIG = 1
LOOK_AGAIN = timedelta(milliseconds=20)

_libc = ctypes.CDLL(None, use_errno=True)  # loaded here: loading a library between fork and exec is not safe


def child_setup(parent_dies: signal.Signals, uid: int | None = None) -> Callable[[], None]:
    """Return what a new child runs before its program: drop to this uid, then ask for a signal when we die."""
    parent = os.getpid()

    def setup() -> None:
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if sys.platform == "linux":
            # After the change of the uid, because that change forgets the wish.
            _libc.prctl(PR_SET_PDEATHSIG, int(parent_dies), 0, 0, 0)
            if os.getppid() != parent:  # we died before the wish was made
                os._exit(1)

    return setup


def occupants(folder: Path, programs: Collection[str]) -> list[int]:
    """Return the processes of these programs that work in this folder; only Linux tells, elsewhere there are none."""
    try:
        wanted = folder.stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() in programs and os.path.samestat((entry / "cwd").stat(), wanted):
                found.append(int(entry.name))
        except OSError:  # it has just ended, or belongs to somebody else and therefore is not ours
            continue
    return found


async def evict(folder: Path, programs: Collection[str], polite: signal.Signals, patience: timedelta) -> int:
    """End every process of these programs that still works in this folder and return how many there were."""
    loop = asyncio.get_running_loop()
    first = left = occupants(folder, programs)
    for attempt in (polite, signal.SIGKILL):
        for pid in left:
            try:
                os.kill(pid, attempt)
            except ProcessLookupError:
                continue
        deadline = loop.time() + patience.total_seconds()
        # Nothing tells us when a process that is not our child has ended, so we look again.
        while (left := occupants(folder, programs)) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_AGAIN.total_seconds())
        if not left:
            break
    return len(first)
