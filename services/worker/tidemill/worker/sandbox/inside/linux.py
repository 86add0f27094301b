"""The Linux calls that Python does not wrap: namespaces, mounts, capabilities, prctl."""

from __future__ import annotations

import ctypes
import os
import platform

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture; Linux 5.12
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_CAPABILITY_VERSION_3 = 0x20080522
_CAPABILITIES = 64  # more than any kernel has: dropping an unknown one fails and that is the end of the list

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_libc.syscall.restype = ctypes.c_long


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    _check(_libc.setns(fd, kind), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()), f"mount {target}")


def bind(source: str, target: str, attributes: int) -> None:
    """Make `source` and all mounted below it appear at `target` with these attributes added."""
    mount(source, target, flags=MS_BIND | MS_REC)
    restrict(target, attributes, recursive=True)


def restrict(target: str, attributes: int, *, recursive: bool = False) -> None:
    """Add attributes (read-only, no set-uid, ...) to a mount, keeping those that it has."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)  # struct mount_attr: set, clear, propagation, user namespace
    flags = _AT_RECURSIVE if recursive else 0
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(target.encode()),
        ctypes.c_uint(flags),
        ctypes.byref(wanted),
        ctypes.c_size_t(ctypes.sizeof(wanted)),
    )
    _check(result, f"mount_setattr {target}")


def pivot_root(root: str) -> None:
    """Make `root` the root folder and let go of everything that was outside it."""
    os.chdir(root)
    here = ctypes.c_char_p(b".")
    _check(_libc.syscall(ctypes.c_long(_SYS_PIVOT_ROOT[platform.machine()]), here, here), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def prctl(option: int, argument: int = 0, pointed: bytes | None = None) -> None:
    """Call prctl; `pointed` is what the third argument points to."""
    third = 0 if pointed is None else ctypes.cast(ctypes.c_char_p(pointed), ctypes.c_void_p).value or 0
    _check(_libc.prctl(option, argument, third, 0, 0), f"prctl {option}")


def syscall(number: int, *arguments: int | bytes) -> int:
    """Call the kernel by number; bytes are passed by their address. Below 0 it has failed and errno says why."""
    given = (ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_long(each) for each in arguments)
    return int(_libc.syscall(ctypes.c_long(number), *given))


def clear_environment() -> None:
    _check(_libc.clearenv(), "clearenv")


def drop_capabilities() -> None:
    """Give up every capability, for this process and for whatever it will execute."""
    for capability in range(_CAPABILITIES):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(nothing)), "capset")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
