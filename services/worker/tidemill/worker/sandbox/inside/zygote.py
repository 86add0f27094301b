"""The zygote: a warm interpreter that forks sandboxed children and tells the worker when each has ended.

    worker ── control socket ──▶ zygote ── fork ──▶ init ── fork ──▶ job
       ▲  ◀── born + job socket, output pipe, pidfd ──┘                │
       └──────────────────── answer on the job socket ─────────────────┘

It speaks SOCK_SEQPACKET messages of JSON and holds one thread. When the control socket closes, however the worker
died, it ends; being pid 1 of a pid namespace, its end is the end of every child and all that they started. In "reduced"
isolation it is a subreaper instead, and kills whatever a finished child leaves behind before it reports the end.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from . import confine, init, linux, root

# What most scripts import anyway: after a fork it costs nothing.
PRELOADED = (
    "argparse", "asyncio", "base64", "collections.abc", "contextlib", "copy", "csv", "dataclasses", "datetime",
    "decimal", "enum", "functools", "hashlib", "inspect", "io", "itertools", "json", "linecache", "logging",
    "math", "operator", "os.path", "pathlib", "random", "re", "shutil", "string", "subprocess", "tempfile",
    "textwrap", "threading", "time", "traceback", "types", "typing", "urllib.parse", "urllib.request", "uuid",
    "zoneinfo",
)  # fmt: skip

# Where site.py is not run (-S), scripts still expect these to be callable.
SITE_BUILTINS = ("setquit", "setcopyright", "sethelper")


def main() -> NoReturn:
    """Become a launcher, then a zygote, as the worker's first message says."""
    confine.die_with_parent()
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    plan = json.loads(control.recv(65536) or b"null")
    if plan is None:
        os._exit(0)
    try:
        if plan["isolation"] == "reduced":
            become_subreaper(plan)
        else:
            become_pid_one(control, plan)
        preload()
    except confine.RefusedError as refused:
        tell(control, {"refused": str(refused), "layer": refused.layer})
        os._exit(1)
    tell(control, {"ready": True, "missing": confine.missing(plan["isolation"])})
    Zygote(control, plan).serve()


def become_pid_one(control: socket.socket, plan: dict[str, Any]) -> None:
    """Return in the zygote; the launcher stays behind only to wait for it."""
    uplink = confine.launch(plan, str(Path(sys.base_prefix).resolve()), control)
    confine.die_with_parent()  # changing the uid has cleared it
    zygote = os.fork()
    if zygote:
        control.close()
        # Whoever ends first, the zygote or what connects its network, takes the other along.
        first, status = os.wait()
        if uplink is not None and first == zygote:
            uplink.end()
        os._exit(init.exit_code(status))
    if uplink is not None:
        uplink.let_go()
    confine.die_with_parent()
    confine.settle(own_proc=plan["isolation"] == "full")


def become_subreaper(plan: dict[str, Any]) -> None:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    linux.prctl(linux.PR_SET_PDEATHSIG, 0)  # when the worker dies there is clearing up to do: see `leave`
    if os.geteuid() == 0:
        confine.become(plan["job_uid"])
    with confine.layer("interpreter"):
        next(Path(os.__file__).parent.iterdir())


def preload() -> None:
    """Import what scripts want, then freeze it: a collection would touch, and so copy, these pages in every child."""
    for name in PRELOADED:
        __import__(name)
    site = __import__("site")
    for name in SITE_BUILTINS:
        getattr(site, name)()
    weakref.finalize(site, int).detach()  # the first one registers an exit handler, which no job shall seem to leave
    gc.collect()
    gc.freeze()
    gc.disable()


def tell(control: socket.socket, message: dict[str, Any], *fds: int) -> None:
    socket.send_fds(control, [json.dumps(message).encode()], list(fds))


class Zygote:
    """The loop: forks when asked, reaps when a child ends, leaves when the worker does."""

    def __init__(self, control: socket.socket, plan: dict[str, Any]) -> None:
        self.control = control
        self.isolation = plan["isolation"]
        self.in_namespaces = self.isolation != "reduced"
        self.environment = (
            [f"/env/{number}" for number in range(len(plan["environment"]))]
            if self.in_namespaces
            else plan["environment"]
        )
        self.shared = root.SHARED if plan["shared"] and self.in_namespaces else plan["shared"]
        self.children: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, the worker's number for it)
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        if self.in_namespaces:
            self.own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)

    def serve(self) -> NoReturn:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        while True:
            for fd, _ in self.poll.poll():
                if fd != self.control.fileno():
                    self.reap(fd)
                else:
                    self.spawn(self.next_order())

    def next_order(self) -> dict[str, Any]:
        """Return what the worker wants next, or leave with it: one that died with our news unread resets the socket."""
        try:
            message = self.control.recv(65536)
        except ConnectionResetError:
            message = b""
        if not message:
            self.leave()
        order: dict[str, Any] = json.loads(message)
        return order

    def spawn(self, order: dict[str, Any]) -> None:
        number = order["spawn"]
        ours, theirs = socket.socketpair()
        output, writer = os.pipe()
        try:
            if self.in_namespaces:
                linux.setns(self.own_pids, linux.CLONE_NEWPID)
                linux.unshare(linux.CLONE_NEWPID)
            pid = os.fork()
        except OSError as error:
            self.tell({"stillborn": number, "error": str(confine.RefusedError("pid namespace", error))})
        else:
            if pid == 0:
                init.live(theirs, writer, order, self.environment, self.shared, self.isolation)
            pidfd = os.pidfd_open(pid)
            self.children[pidfd] = pid, number
            self.poll.register(pidfd, select.POLLIN)
            self.tell({"born": number}, ours.fileno(), output, pidfd)
        finally:
            ours.close()
            theirs.close()
            os.close(output)
            os.close(writer)

    def reap(self, pidfd: int) -> None:
        pid, number = self.children.pop(pidfd)
        self.poll.unregister(pidfd)
        if not self.in_namespaces:
            self.kill_group(pid)  # before the wait: until then nobody else can have this pid
        _, status, usage = os.wait4(pid, 0)
        os.close(pidfd)
        if not self.in_namespaces:
            self.kill_strays()
        self.tell({"ended": number, "code": init.exit_code(status), "peak_kb": usage.ru_maxrss})

    def tell(self, message: dict[str, Any], *fds: int) -> None:
        """Tell the worker, or leave with it: it may have died while its orders were still waiting in the socket."""
        try:
            tell(self.control, message, *fds)
        except OSError:
            self.leave()

    def kill_group(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def kill_strays(self) -> None:
        """Kill what has been re-parented to us, generation after generation, until only our own children are left."""
        known = {pid for pid, _ in self.children.values()}
        while strays := children_of(os.getpid()) - known:
            for pid in strays:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def leave(self) -> NoReturn:
        """End with the worker; in namespaces the kernel ends the children when pid 1 goes."""
        if not self.in_namespaces:
            for pid, _ in self.children.values():
                self.kill_group(pid)
            self.children.clear()
            self.kill_strays()
        os._exit(0)


def children_of(pid: int) -> set[int]:
    """Return the direct children of a process, from /proc."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended since
            if int((process / "stat").read_bytes().rpartition(b")")[2].split()[1]) == pid:
                found.add(int(process.name))
    return found
