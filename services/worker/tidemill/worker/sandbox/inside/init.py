"""The first process of a child: confines itself, forks the job, and stays as pid 1 until the job has ended.

User code is not pid 1 itself: the kernel shields pid 1 from signals that a program sends to itself, and pid 1 inherits
orphans. When this process ends, the kernel kills everything in its pid namespace. In "reduced" isolation there is
no such namespace, so the child is the job itself and the zygote clears up after it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from . import confine, frames, job, linux

_SOCKET = 3
_MOST_DOORS = 3  # memory, pids, cpu
FAILED = 70


def live(
    sock: socket.socket,
    output: int,
    order: dict[str, Any],
    environment: list[str],
    shared: str | None,
    isolation: str,
) -> NoReturn:
    """Never return: this process is the child from here on."""
    try:
        sock = own_descriptors(sock, output)
        os.setsid()
        enter_group(sock)
        if isolation != "reduced":
            confine.isolate(order["tmp_bytes"], own_proc=isolation == "full")
            stay_while(os.fork())
            os.setsid()
        else:
            confine.die_with_parent()
            own = [order["folder"], *([shared] if shared else [])]
            confine.reduce(own, [str(Path(sys.base_prefix).resolve()), *environment])
        gc.enable()
        job.run(sock, order["folder"], environment, shared)
    except BaseException as error:  # nothing may run past this point: the zygote's own loop is above
        refused = str(error) if isinstance(error, confine.RefusedError) else f"the sandbox failed: {error!r}"
        with suppress(OSError):  # without the socket the exit code must do
            frames.send(sock, json.dumps({"refused": refused}).encode())
    os._exit(FAILED)


def own_descriptors(sock: socket.socket, output: int) -> socket.socket:
    """Keep null, output, output and the socket; close all else that was inherited."""
    for fd in (1, 2):
        os.dup2(output, fd)
    os.dup2(sock.detach(), _SOCKET, inheritable=False)
    os.closerange(_SOCKET + 1, 2**31 - 1)
    return socket.socket(fileno=_SOCKET)


def enter_group(sock: socket.socket) -> None:
    """Move through the doors of our control group, one in each hierarchy, when the worker has handed them over."""
    go, doors, _, _ = socket.recv_fds(sock, 1, _MOST_DOORS)
    if not go:
        os._exit(0)
    for door in doors:
        with confine.layer("control group"):
            os.write(door, b"0")
        os.close(door)


def stay_while(pid: int) -> None:
    """Return in the forked job; here, as pid 1, reap until the job has ended, and end with its exit code."""
    if pid == 0:
        return
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a handler would lift the kernel's protection of pid 1
    os.closerange(0, _SOCKET + 1)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            os._exit(exit_code(status))


def exit_code(status: int) -> int:
    """Return the exit code as shells do: 128 + the signal's number when a signal was the end."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
