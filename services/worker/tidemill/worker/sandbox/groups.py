"""Control groups: one for each child, which bounds a whole job where other limits bound each process.

    <our own group>/tidemill-<pid>-<random>/   held by a lock for as long as the worker lives
        worker/                                version 2 only: ourselves, because a group with children holds nobody
        job-1/ job-2/ ...                      limits set, then its open door handed to the idle child, which goes in

Both versions are known: one unified hierarchy that has been delegated to us (2), or one for each of memory, pids and
cpu that we may write to (1). What is not there is named. A child moves itself, because moving waits for the kernel, now
and then for milliseconds. The groups of a worker that was killed are removed by the next one.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from tidemill.worker.sandbox.execution import Room
from tidemill.worker.sandbox.settings import JOB_UID

CONTROLLERS = ("memory", "pids", "cpu")
PREFIX = "tidemill-"
REMEDY = (
    "run the worker as root, or give it a control group of its own: under systemd `Delegate=yes`, "
    "in a container a writable /sys/fs/cgroup"
)

_PERIOD = 100_000  # microseconds, in which a job gets its share of the processors
_REMOVAL = timedelta(seconds=5)
_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")
_SELF = "worker"
_SMALL_FILE = 4096
_CLAIMS = 20


class Figures(NamedTuple):
    """What a group has counted."""

    peak_kb: int | None
    killed_for_memory: bool
    met_process_limit: bool


NOTHING = Figures(None, killed_for_memory=False, met_process_limit=False)


class Hierarchy(NamedTuple):
    """Where one controller is to be had, and which version it speaks."""

    version: int
    own: Path


def hierarchies(mounts: str, own: str) -> Mapping[str, Hierarchy]:
    """Return where this process stands in the hierarchy of each controller. Pure: the arguments are /proc's files."""
    paths = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    found = {}
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        root, mountpoint = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            names, version = [""] if "" in paths else [], 2
        elif kind == "cgroup":
            names, version = sorted({*options.split(",")} & {*CONTROLLERS} & {*paths}), 1
        else:
            continue
        for name in names:
            path = paths[name]
            inner = path if root == "/" else path.removeprefix(root) if path.startswith(root) else "/"
            found[name] = Hierarchy(version, Path(mountpoint, inner.lstrip("/")))
    return found


class Groups:
    """All groups of one sandbox, and which controllers there are."""

    def __init__(self, job_uid: int = JOB_UID) -> None:
        self.missing: tuple[str, ...] = CONTROLLERS
        self._job_uid = job_uid
        self._parents: Mapping[str, Hierarchy] = {}  # controller -> our parent folder
        self._numbers = itertools.count(1)
        self._held = ExitStack()
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="control-groups")

    @property
    def layer(self) -> str | None:
        """Return what is in force, in a few words, or None."""
        if not self._parents:
            return None
        versions = {parent.version for parent in self._parents.values()}
        return f"cgroup-v{min(versions)}({','.join(self._parents)})"

    @property
    def folders(self) -> Sequence[Path]:
        """Return the folders in which the groups of jobs are made."""
        return tuple(dict.fromkeys(parent.own for parent in self._parents.values()))

    async def open(self) -> None:
        """Find out by trying which controllers can be had, and clear up after workers that were killed."""
        await asyncio.get_running_loop().run_in_executor(self._remover, self._open)

    async def close(self) -> None:
        """Remove everything of ours."""
        await asyncio.get_running_loop().run_in_executor(self._remover, self._close)
        self._remover.shutdown(wait=False)

    def make(self, room: Room) -> Group | None:
        """Return a new and empty group with these limits, or None where there are no groups."""
        if not self._parents:
            return None
        name = f"job-{next(self._numbers)}"
        group = Group(
            {
                each: Hierarchy(at.version, at.own / name)
                for each, at in self._parents.items()
                if each != "cpu" or at.version == 2 or room.cpu_percent is not None
            }
        )
        try:
            group.make(room)
        except BaseException:
            group.remove()
            raise
        return group

    async def remove(self, group: Group) -> None:
        """End whatever is left in it, wait until it has gone, and remove the group."""
        await asyncio.get_running_loop().run_in_executor(self._remover, group.remove)

    def _open(self) -> None:
        known = hierarchies(_MOUNTS.read_text(), _OWN.read_text())
        name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        found: dict[str, Hierarchy] = {}
        if "" in known:
            with suppress(OSError):
                found.update(self._delegated(_base(known[""].own), name))
        for controller in CONTROLLERS:
            if controller in known and controller not in found:
                with suppress(OSError):
                    found[controller] = Hierarchy(1, self._claim(known[controller].own, name))
        self._parents = {each: found[each] for each in CONTROLLERS if each in found}
        if self._parents:
            try:
                trial = self.make(Room(cpu_percent=100))
                assert trial is not None
                try:
                    self._enter(trial)
                finally:
                    trial.remove()
            except (OSError, subprocess.SubprocessError):
                self._close()
        self.missing = tuple(each for each in CONTROLLERS if each not in self._parents)

    def _claim(self, own: Path, name: str) -> Path:
        """Return our parent folder, made and locked, after removing those that nobody holds any more."""
        for left in own.glob(f"{PREFIX}*"):
            with suppress(OSError):
                lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove_tree(left)
                finally:
                    os.close(lock)
        for attempt in range(_CLAIMS):
            parent = own / (name if not attempt else f"{name}-{attempt}")
            parent.mkdir()
            try:
                lock = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:  # a worker that starts beside us took it for one that nobody holds
                continue
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if parent.exists():  # else it went between the two: a lock on it holds nothing
                    self._held.callback(_remove_tree, parent)
                    self._held.callback(os.close, lock)
                    return parent
            os.close(lock)
        raise OSError(errno.EBUSY, f"other workers took every group that was made below {own}")

    def _delegated(self, own: Path, name: str) -> Mapping[str, Hierarchy]:
        """Return the controllers of version 2 that we may hand on; to do so we leave our own group for one below it."""
        offered = (own / "cgroup.controllers").read_text().split()
        wanted = [each for each in CONTROLLERS if each in offered]
        if not wanted:
            return {}
        parent = self._claim(own, name)
        enabled = (own / "cgroup.subtree_control").read_text().split()
        if not set(wanted) <= set(enabled):
            (parent / _SELF).mkdir()
            for pid in _family():
                with suppress(ProcessLookupError):
                    (parent / _SELF / "cgroup.procs").write_text(str(pid))
        for folder in (own, parent):
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in wanted))
        return dict.fromkeys(wanted, Hierarchy(2, parent))

    def _enter(self, group: Group) -> None:
        """Let an ordinary process go in, or raise: before Linux 5.16 a door asks who writes, not who has opened it."""
        uid = self._job_uid if os.geteuid() == 0 else None
        doors = group.doors()
        try:
            for door in doors:
                command = ["/bin/sh", "-c", "echo 0"]
                subprocess.run(command, stdout=door, user=uid, check=True, timeout=10, cwd="/")
        finally:
            for door in doors:
                os.close(door)

    def _close(self) -> None:
        self._parents = {}
        self._held.close()


class Group:
    """One job's group: a folder in each hierarchy."""

    def __init__(self, folders: Mapping[str, Hierarchy]) -> None:
        self._at = folders
        self._folders = tuple(dict.fromkeys(each.own for each in folders.values()))

    def make(self, room: Room) -> None:
        for folder in self._folders:
            folder.mkdir()
        for controller, files in limits(room).items():
            if controller not in self._at:
                continue
            version, folder = self._at[controller]
            for name, value, needed in files[version]:
                try:
                    _write(f"{folder}/{name}", value)
                except FileNotFoundError:
                    if needed:
                        raise

    def doors(self) -> list[int]:
        """Return descriptors, yours to close: who writes `0` to all of them has moved into the group."""
        opened: list[int] = []
        try:
            for folder in self._folders:
                opened.append(os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))  # noqa: PERF401 (half)
        except OSError:
            for door in opened:
                os.close(door)
            raise
        return opened

    def figures(self, *, all_of_them: bool) -> Figures:
        """Return what it has counted until now: the peak, and the refusals if anybody asks."""
        peak = self._read("memory", ("memory.max_usage_in_bytes", "memory.peak")).strip()
        figures = self._refusals() if all_of_them else NOTHING
        return figures._replace(peak_kb=int(peak) // 1024 if peak.isdigit() else None)

    def let_go(self) -> bool:
        """Remove it if nobody is left in it, and return whether that is so."""
        try:
            for folder in self._folders:
                folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def begin_anew(self) -> bool:
        """Forget the peak of memory, where the kernel lets us; return whether no limit has been met until now.

        Version 2 forgets a peak only for whoever asks it to: there it stays that of all jobs of a warm child.
        """
        if "memory" in self._at and self._at["memory"].version == 1:
            with suppress(OSError):
                _write(f"{self._at['memory'].own}/memory.max_usage_in_bytes", "0")
        return self._refusals() == NOTHING

    def remove(self) -> None:
        for folder in self._folders:
            _remove(folder)

    def _refusals(self) -> Figures:
        killed = _counter(self._read("memory", ("memory.oom_control", "memory.events")), "oom_kill")
        met = _counter(self._read("pids", ("pids.events", "pids.events")), "max")
        return Figures(None, killed > 0, met > 0)

    def _read(self, controller: str, names: Sequence[str]) -> str:
        if controller not in self._at:
            return ""
        version, folder = self._at[controller]
        try:
            return _text(f"{folder}/{names[version - 1]}")
        except OSError:  # kernels of some years ago do not count everything
            return ""


Files = Sequence[tuple[str, str, bool]]  # name, value, whether every kernel of that version has it


def limits(room: Room) -> Mapping[str, Mapping[int, Files]]:
    """Return what is written into which file, by controller and version."""
    # The first process of a job is ours.
    processes = str(room.processes + 1)
    share = -1 if room.cpu_percent is None else room.cpu_percent * _PERIOD // 100
    return {
        "memory": {
            1: (
                ("memory.limit_in_bytes", str(room.memory_bytes), True),
                ("memory.memsw.limit_in_bytes", str(room.memory_bytes), False),
            ),
            2: (
                ("memory.max", str(room.memory_bytes), True),
                ("memory.swap.max", "0", False),
                ("memory.oom.group", "1", False),
            ),
        },
        "pids": {1: (("pids.max", processes, True),), 2: (("pids.max", processes, True),)},
        "cpu": {
            1: (("cpu.cfs_quota_us", str(share), True),),
            2: (("cpu.max", f"{share if share > 0 else 'max'} {_PERIOD}", True),),
        },
    }


def _base(own: Path) -> Path:
    """Return the group that was given to us, also when we have moved below it before."""
    return own.parent.parent if own.name == _SELF and own.parent.name.startswith(PREFIX) else own


def _family() -> list[int]:
    """Return this process, its parents and all that they have started, as far as they share our group."""
    parents: dict[int, int] = {}
    own = _OWN.read_text().splitlines()[-1]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if own in (process / "cgroup").read_text().splitlines():
                parents[int(process.name)] = int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])
    eldest = os.getpid()
    while parents.get(eldest) in parents:
        eldest = parents[eldest]
    family, more = {eldest}, True
    while more:
        born = {pid for pid, parent in parents.items() if parent in family} - family
        family |= born
        more = bool(born)
    return sorted(family)


def _remove_tree(parent: Path) -> None:
    with suppress(FileNotFoundError):  # another worker was faster
        for job in parent.glob("job-*"):
            _remove(job)
    with suppress(OSError):  # somebody, perhaps we ourselves, lives in it
        (parent / _SELF).rmdir()
    with suppress(OSError):
        parent.rmdir()


def _remove(folder: Path) -> None:
    """Kill who is left in it, wait until they have gone, and remove it."""
    until = time.monotonic() + _REMOVAL.total_seconds()
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > until:
                return
            _kill(folder)
            time.sleep(0.002)
        else:
            return


def _text(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _SMALL_FILE).decode()
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    # Not Path.write_text: that makes a file where there is none, and costs more than what it asks for.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _kill(folder: Path) -> None:
    with suppress(OSError):
        _write(f"{folder}/cgroup.kill", "1")
        return
    with suppress(OSError):
        for pid in (folder / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _counter(events: str, name: str) -> int:
    for line in events.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0
