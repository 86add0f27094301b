"""What lets one child run job after job of the same script: all but the interpreter's memory becomes as it was.

    load the script ─▶ Beginning.of_now() ─▶ main() ─▶ answer ─▶ come back to it ─▶ the next main()
                                                                     └ or SpentError, and this process ends

What counts is how things stood when the script had just been loaded: what it opened or set then belongs to its globals
and stays. What a process can't put back, or can't be sure of, is a reason to end and leave the next job to another.
It takes a pid namespace: in it, a signal to everybody reaches all that the job has started, and nobody else.
"""

from __future__ import annotations

import atexit
import gc
import json
import locale
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .place import Place

GRACE = 1.0  # seconds in which what was killed has to be gone
MEMORY_SHARE = 0.5

_LIMITS = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
_MASKS = _BLOCKED, _, _CAUGHT = ("SigBlk", "SigIgn", "SigCgt")
_OF_THE_C_LIBRARY = 0b11 << 31  # 32 and 33, which it catches itself as soon as there was a thread
_STREAMS = ("stdin", "stdout", "stderr")
_OF_A_STREAM = ("encoding", "errors", "line_buffering", "write_through")
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SYSTEM_V = ("shm", "sem", "msg")


class SpentError(Exception):
    """This process can't run another job; the text says what it was left with."""


class Warmth:
    """What a process knows of the one script that it runs again and again."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._module: ModuleType | None = None
        self._beginning: Beginning | None = None
        self._why = "loading it failed"

    def module(self, path: str, code: str, load: Callable[[], ModuleType]) -> ModuleType:
        """Return the script's module: loaded for the first job, as that left it for all others."""
        if self._module is None:
            resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))  # POSIX message queues: nobody could list them
            given = dict(os.environ)
            self._module = load()
            try:
                self._beginning = Beginning.of_now(self._place, given)
            except SpentError as spent:
                self._why = str(spent)
        elif self._beginning is not None:
            Path(path).write_text(code, encoding="utf-8")
            self._beginning.surround()
            vars(self._module).pop("__warningregistry__", None)
        return self._module

    def needs_an_end(self) -> bool:
        """Tell whether this job is to end as the last one of an interpreter does."""
        if self._beginning is not None and self._beginning.is_left_alone():
            return False
        if self._beginning is not None:
            self._beginning, self._why = None, "it left threads or exit handlers"
        return True

    def flush(self) -> None:
        """Let what was printed be heard before the answer."""
        for each in self._beginning.streams if self._beginning else ():
            with suppress(OSError, ValueError, AttributeError):
                each.stream.flush()

    def clear_up(self, memory_bytes: int) -> bytes:
        """Return the frame that says whether this process is as before its job."""
        if self._beginning is not None:
            try:
                resident = self._beginning.come_back(memory_bytes)
                return json.dumps({"clean": True, "resident_kb": resident}).encode()
            except Exception as spent:  # whatever it is, this process is not what it was
                self._beginning, self._why = None, str(spent)
        return json.dumps({"spent": self._why}).encode()

    @property
    def is_new(self) -> bool:
        """Tell whether the script has not been loaded yet."""
        return self._module is None

    @property
    def spent(self) -> bool:
        return self._beginning is None


class Streams(NamedTuple):
    """One of sys.stdin, stdout and stderr, and how it was set."""

    name: str
    stream: Any
    settings: dict[str, Any]


class Beginning(NamedTuple):
    """How things stood when the script had just been loaded."""

    place: Place
    folder: str
    umask: int
    environment: dict[str, str | None]  # what loading has changed in the environment; None is what it took away
    descriptors: dict[int, tuple[int, int]]
    streams: tuple[Streams, ...]
    masks: dict[str, int]
    handlers: dict[int, Any]
    exits: int
    locale: str
    recursion: int
    limits: tuple[tuple[int, int], ...]
    standing: tuple[object, ...]

    @classmethod
    def of_now(cls, place: Place, given: dict[str, str]) -> Beginning:
        """Return what to come back to; raises SpentError where coming back would take something from the script."""
        if (os.getpid(), os.getppid()) != (2, 1):
            raise SpentError("it has no pid namespace, in which it could end all others")
        status, umask = _status(), os.umask(0)
        os.umask(umask)
        if any(set(os.listdir(folder)) - {"main.py"} for folder in place):
            raise SpentError("loading it left files in /tmp, /job or /dev/shm")
        if _others():
            raise SpentError("loading it left processes")
        now = dict(os.environ)
        return cls(
            place=place,
            folder=os.getcwd(),
            umask=umask,
            environment={name: now.get(name) for name in now.keys() | given.keys() if now.get(name) != given.get(name)},
            descriptors=_descriptors(),
            streams=tuple(_stream(name) for name in _STREAMS),
            masks=_masks(status),
            handlers={number: signal.getsignal(number) for number in _SIGNALS},
            exits=atexit._ncallbacks(),
            locale=locale.setlocale(locale.LC_ALL),
            recursion=sys.getrecursionlimit(),
            limits=_limits(),
            standing=_standing(),
        )

    def surround(self) -> None:
        """Make what loading had changed in the environment hold for a new job's."""
        for name, value in self.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if "TZ" in self.environment:
            time.tzset()

    def is_left_alone(self) -> bool:
        """Tell whether the job left nothing that only an interpreter's end takes care of: threads, exit handlers."""
        return threading.active_count() == 1 and atexit._ncallbacks() == self.exits

    def come_back(self, memory_bytes: int) -> int:
        """Undo what the job has done outside of this interpreter's memory and return the KiB that it holds.

        Raises SpentError when something is left, or when nobody can tell.
        """
        _end_others()
        os.chdir(self.folder)
        os.umask(self.umask)
        for folder in self.place:
            _empty(folder)
        self._put_streams_back()
        self._put_settings_back()
        _shared_objects()
        if _descriptors() != self.descriptors:
            gc.collect()  # what an exception still holds
            if _descriptors() != self.descriptors:
                raise SpentError("it left files or connections open, or closed those that it had found")
        status = self._with_one_thread()
        if self._put_signals_back(status):
            status = _status()
        if _masks(status) != self.masks:
            raise SpentError("it left signals blocked, ignored or caught")
        resident = int(status["VmRSS"].split()[0])
        if resident * 1024 > memory_bytes * MEMORY_SHARE:
            raise SpentError(f"it holds {resident >> 10} MiB, more than half of the memory that a job may use")
        return resident

    def _with_one_thread(self) -> dict[str, str]:
        """Return the kernel's view of this process when threads that have ended, but linger, are gone."""
        until = time.monotonic() + GRACE
        while (status := _status())["Threads"] != "1":
            if time.monotonic() > until:
                raise SpentError("it left threads")
            time.sleep(0.001)
        return status

    def _put_streams_back(self) -> None:
        for fd in range(4):  # null, output, output, the worker's socket
            os.set_blocking(fd, True)
        for name, stream, settings in self.streams:
            setattr(sys, name, stream)
            if getattr(stream, "closed", False):
                raise SpentError(f"it closed sys.{name}")
            if settings:
                stream.reconfigure(**settings)
                stream.flush()

    def _put_signals_back(self, status: dict[str, str]) -> bool:
        """Put back what Python knows of signals and timers; return whether the kernel has to be asked again."""
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        signal.set_wakeup_fd(-1)
        changed = _masks(status) != self.masks
        caught = self.masks[_CAUGHT]
        for number, handler in self.handlers.items():
            # Where the masks are the same, one handler in place of another is all that can have changed.
            if not changed and not caught >> (number - 1) & 1:
                continue
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if changed:
            blocked = self.masks[_BLOCKED]
            signal.pthread_sigmask(signal.SIG_SETMASK, [n for n in _SIGNALS if blocked >> (n - 1) & 1])
        return changed

    def _put_settings_back(self) -> None:
        sys.settrace(None)
        sys.setprofile(None)
        sys.setrecursionlimit(self.recursion)
        if locale.setlocale(locale.LC_ALL) != self.locale:
            locale.setlocale(locale.LC_ALL, self.locale)
        if (now := _limits()) != self.limits:
            for kind, was, is_ in zip(_LIMITS, self.limits, now, strict=True):
                if was != is_:
                    try:
                        resource.setrlimit(kind, was)
                    except (OSError, ValueError) as error:
                        raise SpentError("it lowered its own limits") from error
        if _standing() != self.standing:
            raise SpentError("it changed its priority or processors")


def _end_others() -> None:
    """Kill every process of this namespace but the first and ourselves; return when they have gone."""
    until = time.monotonic() + GRACE
    while _others(signal.SIGKILL):
        if time.monotonic() > until:
            raise SpentError("it left processes that do not end")
        time.sleep(0.0005)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _others(number: int = 0) -> bool:
    """Send all others a signal, 0 is none, and return whether there is anybody, the dead included."""
    try:
        os.kill(-1, number)
    except ProcessLookupError:
        return False
    return True


def _empty(folder: str) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=_open_up)
        else:
            os.unlink(entry.path)
    if os.listdir(folder):
        raise SpentError(f"it left what cannot be removed from {folder}")


def _open_up(_function: Any, path: str, _error: Any) -> None:
    """Try once more where a folder was closed even to its owner."""
    for each in (str(Path(path).parent), path):
        with suppress(OSError):
            os.chmod(each, 0o700)
    with suppress(OSError):
        if Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)


def _descriptors() -> dict[int, tuple[int, int]]:
    """Return what is open by number; device and inode tell one file from another in its place."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that has just read this list
            seen = os.fstat(int(name))
            found[int(name)] = seen.st_dev, seen.st_ino
    return found


def _stream(name: str) -> Streams:
    stream = getattr(sys, name)
    settings = {}
    if name != "stdin" and hasattr(stream, "reconfigure"):
        settings = {each: getattr(stream, each) for each in _OF_A_STREAM}
    return Streams(name, stream, settings)


def _status() -> dict[str, str]:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def _masks(status: dict[str, str]) -> dict[str, int]:
    return {name: int(status[name], 16) & ~_OF_THE_C_LIBRARY for name in _MASKS}


def _limits() -> tuple[tuple[int, int], ...]:
    return tuple(resource.getrlimit(kind) for kind in _LIMITS)


def _standing() -> tuple[object, ...]:
    return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getaffinity(0)


def _shared_objects() -> None:
    """Look for what System V keeps for whoever comes: it belongs to the namespace and to no process."""
    for kind in _SYSTEM_V:
        with suppress(FileNotFoundError), open(f"/proc/sysvipc/{kind}", "rb") as file:
            file.readline()
            if file.readline():
                raise SpentError("it left System V shared memory, semaphores or messages")
