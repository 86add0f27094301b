"""Landlock: what of the host's files a job sees where it can have no root folder of its own.

It takes nothing but a kernel that has it (5.13; signals and abstract sockets of others from 6.12). A job in it cannot
look into processes outside of it either.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

from . import linux, root

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_FILE, MAKE_SOCKET, MAKE_FIFO, MAKE_LINK = (1 << bit for bit in (7, 8, 9, 10, 12))
REFER, TRUNCATE = 1 << 13, 1 << 14
ALL = (1 << 13) - 1  # as of the first version
READ = EXECUTE | READ_FILE | READ_DIR
WRITE = WRITE_FILE | TRUNCATE
OWN = READ | WRITE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_FILE | MAKE_SOCKET | MAKE_FIFO | MAKE_LINK | REFER
OF_FILES = EXECUTE | READ_FILE | WRITE

ETC = ("passwd", "group", "hosts", "hostname", *root.COPIED, *root.BOUND)
SHARED_MEMORY = READ_FILE | WRITE | MAKE_FILE | REMOVE_FILE  # without a look at what others keep there
_ABSTRACT_SOCKETS, _SIGNALS = 1, 2
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_BENEATH = 1


@cache
def version() -> int:
    """Return what the kernel knows of it: 0 is nothing, 6 is all that is used here."""
    return max(0, linux.syscall(_CREATE, 0, 0, _VERSION))


def restrict(own: Sequence[str], readable: Sequence[str]) -> None:
    """Leave this process its own folders, and the system's programs and `readable` to read; needs no-new-privs."""
    known = version()
    handled = ALL | (REFER if known >= 2 else 0) | (TRUNCATE if known >= 3 else 0)
    described = struct.pack("=QQQ", handled, 0, _ABSTRACT_SOCKETS | _SIGNALS if known >= 6 else 0)
    described = described[: 24 if known >= 6 else 16 if known >= 4 else 8]
    rules = _check(linux.syscall(_CREATE, described, len(described), 0))
    devices = [f"/dev/{name}" for name in root.DEVICES]
    for paths, rights in (
        ([*root.SYSTEM, *readable, "/proc", *(f"/etc/{name}" for name in ETC)], READ),
        (devices, READ_FILE | WRITE),
        (["/dev/shm"], SHARED_MEMORY),
        (own, OWN),
    ):
        for path in paths:
            with suppress(FileNotFoundError, PermissionError):  # what a host lacks, a job lacks as well
                _allow(rules, path, rights & handled)
    _check(linux.syscall(_RESTRICT, rules, 0))
    os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH)
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= OF_FILES
        _check(linux.syscall(_ADD, rules, _BENEATH, struct.pack("=Qi", rights, fd), 0))
    finally:
        os.close(fd)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, f"landlock: {os.strerror(number)}")
    return result
