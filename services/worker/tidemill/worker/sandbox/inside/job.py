"""The process that runs user code: rehearses, waits for its job, runs it and answers before it ends.

A warm one clears up after the answer, says that it has, and waits for the next job of the same script.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

from . import bash, confine, frames, linux, python, room
from .answer import Answer
from .link import Link
from .place import Place
from .warm import Warmth

RUNNERS: Mapping[str, Callable[[dict[str, Any], Place, Link, Warmth | None], Answer]] = {
    "python": python.run,
    "bash": bash.run,
}

_environment = os.environ


def run(sock: socket.socket, folder: str, environment: list[str], shared: str | None) -> NoReturn:
    """Get ready, say so, take one job, or more of the same if warm, and end; the worker's going ends it as well."""
    place = Place(f"{folder}/job", f"{folder}/tmp")
    os.chdir(place.job)
    if shared is not None:
        os.symlink(shared, "shared")
    room.watch(*place)
    os.umask(0o022)
    forget_ourselves(place, environment)
    # The first run touches, and so copies, hundreds of memory pages: better now than when somebody waits.
    link = Link(sock)
    python.rehearse(place.job, link)
    python.import_ahead(environment)
    frames.send(sock, b'{"ready":true}')
    own_pid = os.getpid()
    warmth = Warmth(place)
    while (order := frames.receive(sock)) is not None:
        set_environment(order["env"], place)
        if warmth.is_new:
            confine.limit(order["limits"])
        answer = RUNNERS[order["program"]](order, place, link, warmth if order["warm"] else None)
        if os.getpid() != own_pid:  # a fork made by the script has come back here: the answer is not for it to give
            break
        frames.send(sock, answer.frame(peak_kb()))
        if not order["warm"]:
            break
        frames.send(sock, warmth.clear_up(order["limits"]["memory_bytes"]))
        if warmth.spent:
            break
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
    os.environ = _environment  # noqa: B003 (a warm script may have put another in its place)
    os.environ.clear()
    linux.clear_environment()  # also of what was not written by Python
    os.environ.update({"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", **env})
    os.environ.update({"HOME": place.tmp, "TMPDIR": place.tmp})
    time.tzset()


def peak_kb() -> int:
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
