"""The process that runs user code: rehearses, waits for its one job, runs it and answers before it ends."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from . import bash, confine, frames, python, room
from .answer import Answer

Emit = Callable[[str], None]

RUNNERS: Mapping[str, Callable[[dict[str, Any], str, Emit], Answer]] = {
    "python": python.run,
    "bash": bash.run,
}


class Place(NamedTuple):
    """The job's two folders: its working folder and its temporary files."""

    job: str
    tmp: str


def run_one(sock: socket.socket, folder: str, environment: list[str]) -> NoReturn:
    """Get ready, say so, take one job and end; the worker's going away ends it as well."""
    place = Place(f"{folder}/job", f"{folder}/tmp")
    os.chdir(place.job)
    room.watch(place.job, place.tmp, "/dev/shm")
    os.umask(0o022)
    forget_ourselves(place, environment)
    # The first run touches, and so copies, hundreds of memory pages: better now than when somebody waits.
    python.rehearse(place.job)
    frames.send(sock, b'{"ready":true}')
    order = frames.receive(sock)
    if order is None:
        os._exit(0)
    set_environment(order["env"], place)
    confine.limit(order["limits"])
    own_pid = os.getpid()

    def emit(chunk: str) -> None:
        frames.send(sock, json.dumps({"stream": chunk}).encode())

    answer = RUNNERS[order["program"]](order, place.job, emit)
    if os.getpid() == own_pid:  # a fork made by the script has come back here: the answer is not for it to give
        frames.send(sock, answer.frame(peak_kb()))
    os._exit(0)


def forget_ourselves(place: Place, environment: list[str]) -> None:
    """Leave user code a fresh interpreter: its own path and argv, no trace of this package, output by the line."""
    own = __package__
    for name in [name for name in sys.modules if name == own or name.startswith(f"{own}.")]:
        del sys.modules[name]
    sys.modules["__main__"] = ModuleType("__main__")
    sys.path[:0] = [place.job]
    sys.path += environment
    sys.argv = [f"{place.job}/main.py"]
    sys.orig_argv = [sys.executable, *sys.argv]
    # Made anew: the inherited ones believe that they write to a file that can be rewound.
    for name, fd in (("stdout", 1), ("stderr", 2)):
        stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def set_environment(env: dict[str, str], place: Place) -> None:
    """Give the job exactly this environment, with the few variables that no program does without."""
    os.environ.clear()
    os.environ.update({"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **env})
    os.environ.update({"HOME": place.tmp, "TMPDIR": place.tmp})
    time.tzset()


def peak_kb() -> int:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
