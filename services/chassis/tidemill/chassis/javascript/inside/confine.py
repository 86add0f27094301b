"""How the process gives up everything that evaluating does not need, before it sees the first expression.

    ordinary user, no capabilities ─▶ dies with its parent ─▶ no new privileges, not dumpable ─▶ limits
    ─▶ filter of system calls

What is imported or opened later fails; so everything is loaded before.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal

from . import seccomp

NOBODY = 65534

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522


def confine(parent: int, memory: int) -> tuple[str, ...]:
    """Leave this process its open descriptors and `memory` more bytes; return the names of layers that can't be had."""
    missing = []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    machine = platform.machine()
    used = _address_space()
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
        except OSError:
            missing.append("ordinary user")
    libc.capset(ctypes.byref((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)), ctypes.byref((ctypes.c_uint32 * 6)()))
    # After the change of user, which would undo it; a parent that died in between is noticed by its number.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for kind, limit in (
        (resource.RLIMIT_AS, used + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    filter_ = seccomp.program(machine)
    if filter_ is None or not seccomp.install(libc, filter_):
        missing.append("filter of system calls")
    return tuple(missing)


def _address_space() -> int:
    """Return how many bytes of address space this process has mapped."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()
