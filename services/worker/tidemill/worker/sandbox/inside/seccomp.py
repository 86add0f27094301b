"""The system calls that jobs are refused: a filter in classic BPF, taken before user code and kept for ever.

It is a list of what is denied. A list of what is allowed would break programs with every new kernel and library; what
such a list would add is covered by the layers around: no capabilities, no way to gain any, nothing to mount or reach.

    call of another architecture ─▶ killed          DENIED  ─▶ EPERM
    x32 on x86_64                ─▶ ENOSYS          ABSENT  ─▶ ENOSYS: programs know what to do without these
    clone with CLONE_NEW*        ─▶ EPERM           all else ─▶ allowed
    socket                       ─▶ unix; inet, inet6 as stream or datagram; netlink for routes only
    ioctl TIOCSTI, TIOCLINUX     ─▶ EPERM           personality other than Linux' own ─▶ EPERM
    mknod of a device            ─▶ EPERM
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from . import linux


class Numbers(NamedTuple):
    """A system call's number, or None where an architecture does not have it."""

    x86_64: int | None
    aarch64: int | None


DENIED: Mapping[str, Numbers] = {
    # mounts and roots
    "mount": Numbers(165, 40),
    "umount2": Numbers(166, 39),
    "pivot_root": Numbers(155, 41),
    "chroot": Numbers(161, 51),
    "open_tree": Numbers(428, 428),
    "move_mount": Numbers(429, 429),
    "fsopen": Numbers(430, 430),
    "fsconfig": Numbers(431, 431),
    "fsmount": Numbers(432, 432),
    "fspick": Numbers(433, 433),
    "mount_setattr": Numbers(442, 442),
    "open_tree_attr": Numbers(467, 467),
    # namespaces
    "unshare": Numbers(272, 97),
    "setns": Numbers(308, 268),
    # other processes
    "ptrace": Numbers(101, 117),
    "process_vm_readv": Numbers(310, 270),
    "process_vm_writev": Numbers(311, 271),
    "process_madvise": Numbers(440, 440),
    "pidfd_getfd": Numbers(438, 438),
    "kcmp": Numbers(312, 272),
    # keys are not namespaced
    "keyctl": Numbers(250, 219),
    "add_key": Numbers(248, 217),
    "request_key": Numbers(249, 218),
    # the kernel itself: programs, modules, devices, accounting
    "bpf": Numbers(321, 280),
    "perf_event_open": Numbers(298, 241),
    "userfaultfd": Numbers(323, 282),
    "create_module": Numbers(174, None),
    "init_module": Numbers(175, 105),
    "finit_module": Numbers(313, 273),
    "delete_module": Numbers(176, 106),
    "query_module": Numbers(178, None),
    "get_kernel_syms": Numbers(177, None),
    "kexec_load": Numbers(246, 104),
    "kexec_file_load": Numbers(320, 294),
    "reboot": Numbers(169, 142),
    "swapon": Numbers(167, 224),
    "swapoff": Numbers(168, 225),
    "acct": Numbers(163, 89),
    "quotactl": Numbers(179, 60),
    "quotactl_fd": Numbers(443, 443),
    "syslog": Numbers(103, 116),
    "vhangup": Numbers(153, 58),
    "iopl": Numbers(172, None),
    "ioperm": Numbers(173, None),
    "modify_ldt": Numbers(154, None),
    "_sysctl": Numbers(156, None),
    "sysfs": Numbers(139, None),
    "ustat": Numbers(136, None),
    "uselib": Numbers(134, None),
    "nfsservctl": Numbers(180, 42),
    "lookup_dcookie": Numbers(212, 18),
    # the host's clock and name
    "settimeofday": Numbers(164, 170),
    "clock_settime": Numbers(227, 112),
    "adjtimex": Numbers(159, 171),
    "clock_adjtime": Numbers(305, 266),
    "sethostname": Numbers(170, 161),
    "setdomainname": Numbers(171, 162),
    # files by handle: past every folder's permissions
    "name_to_handle_at": Numbers(303, 264),
    "open_by_handle_at": Numbers(304, 265),
    "fanotify_init": Numbers(300, 262),
}
ABSENT: Mapping[str, Numbers] = {
    "clone3": Numbers(435, 435),  # its flags lie in memory, where a filter cannot look; libraries fall back to clone
    "io_uring_setup": Numbers(425, 425),  # what is done through a ring passes no filter
    "io_uring_enter": Numbers(426, 426),
    "io_uring_register": Numbers(427, 427),
}
CLONE = Numbers(56, 220)
SOCKET = Numbers(41, 198)
IOCTL = Numbers(16, 29)
PERSONALITY = Numbers(135, 92)
MKNOD = Numbers(133, None)
MKNODAT = Numbers(259, 33)

NEW_NAMESPACES = 0x7E020000  # NEWNS NEWCGROUP NEWUTS NEWIPC NEWUSER NEWPID NEWNET
UNIX, INET, INET6, NETLINK = 1, 2, 10, 16
STREAM, DATAGRAM, TYPE_MASK, NETLINK_ROUTE = 1, 2, 0xF, 0
TIOCSTI, TIOCLINUX = 0x5412, 0x541C
LINUX, TELL_ME = 0, 0xFFFFFFFF
NODE_KIND, CHARACTER_DEVICE, BLOCK_DEVICE = 0o170000, 0o020000, 0o060000

_LOAD, _AND, _EQUAL, _ANY_BIT, _AT_LEAST, _JUMP, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x35, 0x05, 0x06
_FEW = 4
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE = 0, 4
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_SECCOMP_MODE_FILTER = 2
_PR_SET_SECCOMP = 22

Code = list[tuple[int, int, int, int]]


def program(machine: str) -> bytes | None:
    """Return the filter for this architecture, or None where none has been written."""
    if machine not in _AUDIT:
        return None
    code: Code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL)]
    code.append((_LOAD, 0, 0, _NUMBER))
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), _fail(errno.ENOSYS)]
    blocks: dict[int | None, Code] = {}
    for calls, error in ((DENIED, errno.EPERM), (ABSENT, errno.ENOSYS)):
        for numbers in calls.values():
            blocks[getattr(numbers, machine)] = [_fail(error)]
    allow = (_RETURN, 0, 0, _ALLOW)
    refuse = _fail(errno.EPERM)
    for numbers, block in (
        (CLONE, [_argument(0), (_ANY_BIT, 0, 1, NEW_NAMESPACES), refuse, allow]),
        (PERSONALITY, [_argument(0), (_EQUAL, 1, 0, LINUX), (_EQUAL, 0, 1, TELL_ME), allow, refuse]),
        (IOCTL, [_argument(1), (_EQUAL, 1, 0, TIOCSTI), (_EQUAL, 0, 1, TIOCLINUX), refuse, allow]),
        (MKNOD, _nodes(1)),
        (MKNODAT, _nodes(2)),
        (SOCKET, _sockets()),
    ):
        blocks[getattr(numbers, machine)] = block
    code += _search(sorted((number, block) for number, block in blocks.items() if number is not None))
    return b"".join(struct.pack("=HBBI", *each) for each in code)


def _search(blocks: Sequence[tuple[int, Code]]) -> Code:
    """Find the call by halving: the kernel walks the filter once for every call there is when it is installed."""
    if len(blocks) > _FEW:
        middle = len(blocks) // 2
        below, above = _search(blocks[:middle]), _search(blocks[middle:])
        return [(_AT_LEAST, 0, 1, blocks[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]
    code: Code = []
    for number, block in blocks:
        code += [(_EQUAL, 0, len(block), number), *block]
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def install(filter_: bytes) -> None:
    """Take the filter, for this process and whatever it will start; needs no-new-privs."""
    held = ctypes.create_string_buffer(filter_, len(filter_))
    described = struct.pack("@HP", len(filter_) // 8, ctypes.addressof(held))
    linux.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, described)


def _nodes(mode: int) -> Code:
    devices: Code = [(_EQUAL, 2, 0, CHARACTER_DEVICE), (_EQUAL, 1, 0, BLOCK_DEVICE)]
    return [_argument(mode), (_AND, 0, 0, NODE_KIND), *devices, (_RETURN, 0, 0, _ALLOW), _fail(errno.EPERM)]


def _sockets() -> Code:
    allow, refuse = (_RETURN, 0, 0, _ALLOW), _fail(errno.EPERM)
    internet: Code = [
        _argument(1),
        (_AND, 0, 0, TYPE_MASK),
        (_EQUAL, 1, 0, STREAM),
        (_EQUAL, 0, 1, DATAGRAM),
        allow,
        refuse,
    ]
    netlink: Code = [_argument(2), (_EQUAL, 0, 1, NETLINK_ROUTE), allow, refuse]
    return [
        _argument(0),
        (_EQUAL, 0, 1, UNIX),
        allow,
        (_EQUAL, 1, 0, INET),
        (_EQUAL, 0, len(internet), INET6),
        *internet,
        (_EQUAL, 0, len(netlink), NETLINK),
        *netlink,
        _fail(errno.EAFNOSUPPORT),
    ]


def _argument(position: int) -> tuple[int, int, int, int]:
    """Load the lower half of an argument: the kernel takes flags, families and ioctls from nothing else."""
    return (_LOAD, 0, 0, 16 + 8 * position)


def _fail(error: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | error)


FILTER = program(platform.machine())
