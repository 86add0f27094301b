"""The system calls that are left to the process that evaluates: a filter in classic BPF, kept for ever.

It is a list of what is allowed, because the process needs next to nothing: memory, time, and the descriptors it has.

    call of another architecture ─▶ killed          mmap, mprotect without PROT_EXEC ─▶ allowed
    ALLOWED                      ─▶ allowed         all else                         ─▶ EPERM
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Mapping
from typing import NamedTuple


class Numbers(NamedTuple):
    """A system call's number, or None where an architecture does not have it."""

    x86_64: int | None
    aarch64: int | None


ALLOWED: Mapping[str, Numbers] = {
    # the one descriptor that is open
    "read": Numbers(0, 63),
    "write": Numbers(1, 64),
    # memory
    "munmap": Numbers(11, 215),
    "mremap": Numbers(25, 216),
    "madvise": Numbers(28, 233),
    "brk": Numbers(12, 214),
    "futex": Numbers(202, 98),
    # time; most of it comes from the kernel's page without a call
    "clock_gettime": Numbers(228, 113),
    "gettimeofday": Numbers(96, 169),
    "time": Numbers(201, None),
    "setitimer": Numbers(38, 103),
    "sched_yield": Numbers(24, 124),
    "getrandom": Numbers(318, 278),
    # signals and the end
    "rt_sigaction": Numbers(13, 134),
    "rt_sigprocmask": Numbers(14, 135),
    "rt_sigreturn": Numbers(15, 139),
    "sigaltstack": Numbers(131, 132),
    "restart_syscall": Numbers(219, 128),
    "exit": Numbers(60, 93),
    "exit_group": Numbers(231, 94),
}
NEVER_EXECUTABLE: Mapping[str, Numbers] = {
    "mmap": Numbers(9, 222),
    "mprotect": Numbers(10, 226),
}

PROT_EXEC = 4

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_NUMBER, _ARCHITECTURE, _PROTECTION = 0, 4, 16 + 8 * 2
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SECCOMP_MODE_FILTER = 2
_PR_SET_SECCOMP = 22


def program(machine: str) -> bytes | None:
    """Return the filter for this architecture, or None where none has been written."""
    if machine not in _AUDIT:
        return None
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _NUMBER))
    for numbers in ALLOWED.values():
        number = getattr(numbers, machine)
        if number is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for numbers in NEVER_EXECUTABLE.values():
        code += [
            (_EQUAL, 0, 4, getattr(numbers, machine)),
            (_LOAD, 0, 0, _PROTECTION),
            (_ANY_BIT, 0, 1, PROT_EXEC),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ]
    code.append((_RETURN, 0, 0, _REFUSE))
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def install(libc: ctypes.CDLL, filter_: bytes) -> bool:
    """Take the filter and return True, or False where the kernel has no filters; needs no-new-privs."""
    held = ctypes.create_string_buffer(filter_, len(filter_))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(filter_) // 8, ctypes.addressof(held)))
    return int(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(described), 0, 0)) == 0
