"""What a sandbox is told, and what tells zygotes apart."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from tidemill.worker.sandbox.execution import Room

Tier = Literal["full", "pod", "reduced"]
Isolation = Literal["auto", "full", "pod", "reduced"]
Network = Literal["all", "none"]

JOB_UID = 61184  # the first of the range that systemd calls dynamic: nobody's login


@cache
def own_interpreter() -> str:
    """Return the real interpreter below any venv or shim, so that our own packages are not in its sight."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidate = Path(sys.base_exec_prefix, "bin", name)
    return os.path.realpath(candidate if candidate.exists() else sys.executable)


class ZygoteKey(msgspec.Struct, frozen=True, kw_only=True):
    """Jobs share a zygote when all of this is equal; `environment` is the library folders, readable by
    everyone, in the order of sys.path."""

    workspace: str
    interpreter: str = msgspec.field(default_factory=own_interpreter)
    environment: tuple[str, ...] = ()
    network: Network = "all"
    shared: str | None = None
    """A folder of ours that its jobs find as `./shared` and may write to."""


class SandboxSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`scratch` is an existing folder that only we write to; without it, one is made in the temporary folder."""

    isolation: Isolation = "auto"
    interpreter: str = msgspec.field(default_factory=own_interpreter)  # what the proof at start is made with
    job_uid: int = JOB_UID  # who jobs are outside the sandbox when we are root
    idle_children: int = 2
    room: Room = Room()  # what the first children are made for, before any job has said what it needs
    warm_children: int = 8  # of all workspaces together; those longest unused end first
    warm_memory_bytes: int = 1 << 30  # what all that wait may hold together
    warm_idle: timedelta = timedelta(minutes=10)  # how long one waits for its next job
    max_zygotes: int = 8
    network: Network = "all"  # of jobs that do not ask for less; a sandbox that cannot give it is not opened
    uplinks: tuple[str, ...] = ("pasta", "slirp4netns")  # what connects a network of its own, the best first
    relays: tuple[tuple[str, int], ...] = ()  # hosts and ports under which jobs reach the api
    scratch: str | None = None
    start_timeout: timedelta = timedelta(seconds=20)
    refill_delay: timedelta = timedelta(milliseconds=10)


class SandboxUnavailable(Exception):
    """This host does not give what the sandbox needs; the text is one line that names the layer and the remedy."""

    def __init__(self, text: str, layer: str | None = None) -> None:
        super().__init__(text)
        self.layer = layer
