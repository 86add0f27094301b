"""Layer by layer: what a zygote and its children give up before they meet user code.

    launcher   (root only) root folder built, groups cleared, job uid taken        the worker's namespaces
      unshare user pid mount ipc uts net, uid map written, network set up; (ordinary user) root folder built
    zygote     pid 1 of its pid namespace, all capabilities *in its user namespace*, no-new-privs
      setns back + unshare pid: each fork is pid 1 of a fresh pid namespace
    init       pid 1 of the job: own mount, ipc, uts; private /proc /tmp /job /dev/shm;
               at last a user namespace of its own, in which no further one may be made, no capability, and a filter
               of system calls
    job        pid 2: the process that runs user code, with the job's own limits

The user namespace comes last in `init`, so that the namespaces it lives in belong to the zygote: even a job that won
every capability in its own user namespace could not touch a mount. It also makes RLIMIT_NPROC count per job.
Every refusal names the layer and the remedy, because that line is what an operator sees.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import landlock, linux, network, root, seccomp

NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
PRIVATE_FOLDERS = (("/tmp", "1777"), ("/job", "700"), ("/dev/shm", "1777"))
INODES = 200_000
ENOUGH_LANDLOCK = 6

USE_REDUCED = "or choose TIDEMILL_ISOLATION=reduced"
REMEDIES = {
    "user namespace": "allow them by sysctl: user.max_user_namespaces, kernel.unprivileged_userns_clone=1 (Debian), "
    "kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); in a container, by a seccomp profile with unshare; "
    f"{USE_REDUCED}",
    "root folder": f"have Linux 5.12 or newer; in a container, a seccomp profile with mount, pivot_root; {USE_REDUCED}",
    "uid map": f"allow this user to map itself in /proc/self/uid_map; {USE_REDUCED}",
    "/proc": "in a container, an unmasked /proc (Kubernetes: procMount: Unmasked), or choose TIDEMILL_ISOLATION=pod",
    "pid namespace": f"in a container, a seccomp profile with setns and unshare; {USE_REDUCED}",
    "private folders": f"allow tmpfs mounts in user namespaces; {USE_REDUCED}",
    "network": f"in a container, a seccomp profile with unshare; {USE_REDUCED}",
    "way out of the network": "have a working pasta (package passt) or slirp4netns, and a /dev/net/tun that the worker "
    "may open",
    "control group": "have Linux 5.16 or newer",
    "seccomp": "have a kernel with CONFIG_SECCOMP_FILTER",
    "interpreter": "use an interpreter that every user can read, such as /usr/bin/python3",
}


class RefusedError(Exception):
    """This layer of the sandbox cannot be had here."""

    def __init__(self, layer: str, error: object) -> None:
        self.layer = layer
        remedy = REMEDIES.get(layer, USE_REDUCED)
        super().__init__(f"sandbox layer {layer!r} is unavailable ({error}); {remedy}")


@contextmanager
def layer(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RefusedError(name, error) from error


def become(uid: int) -> None:
    """Root gives itself up for the job user: no groups, no way back."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # changing the uid made our own /proc/self unwritable


def launch(plan: dict[str, Any], prefix: str, control: socket.socket) -> network.Uplink | None:
    """Bring the launcher into the zygote's namespaces and root folder; its next fork is the zygote."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    as_root = os.geteuid() == 0
    surroundings = network.look_around()
    relays = network.relays(plan["relays"])
    uplink = None
    names = root.Names({relay.name: relay.address for relay in relays}, "")
    if plan["network"] == "host":
        names = root.Names({}, None)
    elif plan["network"] == "all":
        names = root.Names(names.hosts, network.resolver(surroundings.subnet))
        uplink = network.Uplink(plan["uplink"], surroundings.subnet, plan["job_uid"], control.fileno(), proc)
    place = root.Place(plan["mountpoint"], prefix, plan["environment"], names, plan["shared"])
    if as_root:
        # Before the uid changes: the interpreter may lie below a folder that only root may enter.
        with layer("root folder"):
            linux.unshare(linux.CLONE_NEWNS)
            root.enter(place)
        become(plan["job_uid"])
    uid, gid = os.geteuid(), os.getegid()
    with layer("user namespace"):
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWPID | NAMESPACES)
    with layer("uid map"):
        map_own_ids(proc, uid, gid)
    os.close(proc)
    if plan["network"] != "host":
        with layer("network"):
            linux.unshare(linux.CLONE_NEWNET)
            listeners = network.settle(surroundings, relays)
        if uplink is not None:
            with layer("way out of the network"):
                uplink.attach()
        told = json.dumps({"relays": [number for number, _ in listeners]}).encode()
        socket.send_fds(control, [told], [each.fileno() for _, each in listeners])
        for _, each in listeners:
            each.close()
    if not as_root:
        with layer("root folder"):
            root.enter(place)
    return uplink


def settle(*, own_proc: bool) -> None:
    """Make the zygote at home in its pid namespace."""
    if own_proc:
        mount_proc()
    socket.sethostname(root.HOSTNAME)


def mount_proc() -> None:
    with layer("/proc"):
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)


def isolate(tmp_bytes: int, *, own_proc: bool) -> None:
    """Everything that a child gives up once and for all, in the moment after its fork and before any job."""
    with layer("private folders"):
        linux.unshare(NAMESPACES)
        for folder, mode in PRIVATE_FOLDERS:
            options = f"mode={mode},size={tmp_bytes},nr_inodes={INODES}"
            linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    if own_proc:
        mount_proc()
    linux.prctl(linux.PR_SET_DUMPABLE, 1)  # the zygote is not, and only a dumpable process owns its /proc/self
    _write("/proc/self/oom_score_adj", "1000")  # when memory runs out, jobs go first
    proc = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    uid, gid = os.geteuid(), os.getegid()
    with layer("user namespace"):
        linux.unshare(linux.CLONE_NEWUSER)
    with layer("uid map"):
        map_own_ids(proc, uid, gid)
        if own_proc:  # another's is read-only in containers; the filter of system calls says the same once more
            _write("/proc/sys/user/max_user_namespaces", "0")
    os.close(proc)
    linux.drop_capabilities()
    refuse_calls()


def reduce(own: list[str], readable: list[str]) -> None:
    """What there is where namespaces can't be had: see only what a job needs, call only what a job may."""
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    if landlock.version():
        with layer("landlock"):
            landlock.restrict(own, readable)
    refuse_calls()


def missing(isolation: str) -> list[str]:
    """Return the layers that this kernel or architecture does not have and a job goes without."""
    gone = [] if seccomp.FILTER is not None else ["seccomp"]
    if isolation == "reduced" and landlock.version() < ENOUGH_LANDLOCK:
        gone.append("landlock for signals" if landlock.version() else "landlock")
    return gone


def refuse_calls() -> None:
    """Take the filter of system calls; on an architecture without one the worker has named its absence."""
    if seccomp.FILTER is not None:
        with layer("seccomp"):
            seccomp.install(seccomp.FILTER)


def map_own_ids(proc: int, uid: int, gid: int) -> None:
    """Write the one line that an unprivileged process may write: itself, under the job's name."""
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{root.JOB_UID} {uid} 1"),
        ("gid_map", f"{root.JOB_UID} {gid} 1"),
    ):
        file = os.open(name, os.O_WRONLY, dir_fd=proc)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def limit(limits: dict[str, int | None]) -> None:
    """Take the job's own limits, soft and hard; memory is what a process may write to, not its address space.

    RLIMIT_AS would count what allocators and runtimes merely reserve; all limits are per process, `processes` per job.
    """
    for kind, wanted in (
        (resource.RLIMIT_DATA, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        if wanted is None:
            continue
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))


def die_with_parent() -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
