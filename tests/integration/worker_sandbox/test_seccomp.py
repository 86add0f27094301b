"""What the kernel itself is not asked: attack A15, by system call, in either isolation."""

from __future__ import annotations

import errno
import platform

import pytest

from tests.integration.worker_sandbox.harness import Scripts
from tidemill.worker.sandbox.inside import seccomp

MACHINE = platform.machine()
pytestmark = pytest.mark.skipif(seccomp.program(MACHINE) is None, reason="no filter for this architecture")

# Calls the kernel by number, in a process of its own: what the filter kills is not the whole job.
CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, args))
    return ctypes.get_errno() if result == -1 else 0
def main(calls):
    return {name: call(*each) for name, each in calls.items()}
"""


def numbers(calls: object) -> dict[str, list[int]]:
    assert isinstance(calls, dict)
    return {name: [number] for name, each in calls.items() if (number := getattr(each, MACHINE)) is not None}


async def test_a15_every_call_of_the_table_is_refused(either: Scripts) -> None:
    denied, absent = numbers(seccomp.DENIED), numbers(seccomp.ABSENT)
    assert await either.result(CALLS, {"calls": denied}) == dict.fromkeys(denied, errno.EPERM)
    assert await either.result(CALLS, {"calls": absent}) == dict.fromkeys(absent, errno.ENOSYS)


async def test_a15_arguments_decide_where_a_call_is_partly_needed(either: Scripts) -> None:
    clone, socket, ioctl, personality, mknodat = (
        getattr(each, MACHINE)
        for each in (seccomp.CLONE, seccomp.SOCKET, seccomp.IOCTL, seccomp.PERSONALITY, seccomp.MKNODAT)
    )
    namespaces = {"ns": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000}
    namespaces |= {"pid": 0x20000000, "net": 0x40000000}
    refused = {f"clone {name}": [clone, flag | 17] for name, flag in namespaces.items()} | {
        "raw": [socket, 2, 3, 1],
        "raw 6": [socket, 10, 3, 58],
        "raw with flags": [socket, 2, 3 | 0x80000, 255],
        "netlink audit": [socket, 16, 3, 9],
        "push a character back": [ioctl, 0, 0x5412, 0],
        "linux console": [ioctl, 0, 0x541C, 0],
        "no random addresses": [personality, 0x40000],
        "block device": [mknodat, -100, 0, 0o060600, 0],
        "character device": [mknodat, -100, 0, 0o020600, 0],
    }
    assert await either.result(CALLS, {"calls": refused}) == dict.fromkeys(refused, errno.EPERM)
    families = {"packet": [socket, 17, 3, 0], "vsock": [socket, 40, 1, 0], "crypto": [socket, 38, 5, 0]}
    assert await either.result(CALLS, {"calls": families}) == dict.fromkeys(families, errno.EAFNOSUPPORT)
    allowed = {
        "stream": [socket, 2, 1, 0],
        "datagram 6": [socket, 10, 2 | 0x80000, 0],
        "unix": [socket, 1, 5, 0],
        "routes": [socket, 16, 3, 0],
        "which personality": [personality, 0xFFFFFFFF],
    }
    assert await either.result(CALLS, {"calls": allowed}) == dict.fromkeys(allowed, 0)


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 and i386 are x86's")
async def test_a15_other_ways_into_the_kernel_are_closed(either: Scripts) -> None:
    assert await either.result(CALLS, {"calls": {"x32 getpid": [0x40000000 | 39]}}) == {"x32 getpid": errno.ENOSYS}
    # mov eax, 20 (getpid of i386); int 0x80; ret
    code = """
import ctypes, mmap, os
def main():
    pid = os.fork()
    if pid == 0:
        page = mmap.mmap(-1, 4096, prot=7)
        page.write(bytes.fromhex('b814000000cd80c3'))
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
    assert await either.result(code) == -31  # SIGSYS


async def test_what_programs_do_all_day_still_works(either: Scripts) -> None:
    code = """
import multiprocessing, os, shutil, socket, subprocess, threading
def work(n): return n + 1
def main():
    seen = []
    thread = threading.Thread(target=seen.append, args=(1,)); thread.start(); thread.join()
    os.mkfifo('pipe')
    socket.socketpair(); socket.getaddrinfo('localhost', 80)
    shutil.copy('main.py', 'copy.py')
    with multiprocessing.get_context('fork').Pool(2) as pool:
        seen += pool.map(work, [1, 2])
    return seen + [subprocess.check_output(['bash', '-c', 'echo $(ls | wc -l) | cat'], text=True).strip()]
"""
    assert await either.result(code) == [1, 2, 3, "3"]


def test_both_architectures_have_a_filter_that_the_kernel_would_take() -> None:
    for machine in ("x86_64", "aarch64"):
        filter_ = seccomp.program(machine)
        assert filter_ is not None
        assert len(filter_) % 8 == 0
        assert len(filter_) // 8 <= 4096
    assert seccomp.program("pdp11") is None
