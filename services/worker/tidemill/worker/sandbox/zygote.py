"""The worker's side of one zygote: its process, its control socket, and the children that it keeps idle.

A child is asked for as soon as one is waited for; the stock of idle ones is filled up a little after one was taken,
or when its job has ended, so that forking does not take the processor from the job that has just begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import subprocess
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import msgspec

from tidemill.worker.sandbox.child import Child, Exit, NeverStartedError
from tidemill.worker.sandbox.execution import Room
from tidemill.worker.sandbox.groups import Groups
from tidemill.worker.sandbox.relay import Relay
from tidemill.worker.sandbox.settings import SandboxSettings, SandboxUnavailable, Tier, ZygoteKey

log = logging.getLogger(__name__)

# `inside` runs as a package of its own, so that neither its imports nor its tracebacks lead to us.
BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv.pop()); from inside.zygote import main; sys.path.pop(0); main()"
_MOST_DESCRIPTORS = 8  # that come with one message: listeners, at most two for each of the api's two names
CLOSE_TIMEOUT = timedelta(seconds=5)  # a zygote leaves, and clears up, when its control socket closes
FOLDER = str(Path(__file__).parent)


class Plan(msgspec.Struct, frozen=True):
    """The first message to a zygote."""

    isolation: str
    mountpoint: str
    job_uid: int
    environment: tuple[str, ...]
    network: str  # host, all, none
    uplink: str | None
    relays: tuple[tuple[str, int], ...]
    shared: str | None = None


class Spawn(msgspec.Struct, frozen=True):
    """A request for one child; `folder` is its private folder where it gets no file system of its own."""

    spawn: int
    tmp_bytes: int
    folder: str


class News(msgspec.Struct, frozen=True):
    """What a zygote says: one of ready, refused, relays and born (both with descriptors), stillborn, ended."""

    ready: bool = False
    refused: str | None = None
    layer: str | None = None
    missing: tuple[str, ...] = ()
    relays: tuple[int, ...] | None = None
    born: int | None = None
    stillborn: int | None = None
    error: str | None = None
    ended: int | None = None
    code: int | None = None
    peak_kb: int | None = None


_news = msgspec.json.Decoder(News)


class Zygote:
    """One running zygote; it is never restarted, the pool starts another."""

    def __init__(
        self,
        key: ZygoteKey,
        settings: SandboxSettings,
        scratch: Path,
        groups: Groups,
        tier: Tier,
        uplink: str | None,
        on_death: Callable[[Zygote], None],
    ) -> None:
        self.key = key
        self.alive = False
        self.born_at = 0.0
        self._serves = False
        self._settings = settings
        self._scratch = scratch
        self._groups = groups
        self._tier = tier
        self._uplink = uplink
        self.missing: tuple[str, ...] = ()  # layers that the host's kernel lacks
        self._relays: list[Relay] = []
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._numbers = iter(range(1, 1 << 62))
        self._asked: dict[int, Room] = {}  # children not born yet
        self._born: dict[int, Child] = {}  # every child whose end has not been reported
        self._idle: deque[Child] = deque()
        self._waiting: deque[tuple[Room, asyncio.Future[Child]]] = deque()
        self._busy = 0
        self._room = Room()  # what jobs asked for last
        self._refill: asyncio.TimerHandle | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._cleaning: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Tell whether a job runs in it or waits for it."""
        return self._busy > 0 or bool(self._waiting)

    async def start(self) -> None:
        """Start the process and return when it can fork; raises SandboxUnavailable with its reason."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        arguments = ["-I", "-S", "-X", "utf8", "-c", BOOTSTRAP, str(theirs.fileno()), FOLDER]
        with theirs:
            try:
                # Not through asyncio: its transports and child watcher would be one thread more for each zygote.
                self._process = subprocess.Popen(  # noqa: ASYNC220 (a vfork: one or two milliseconds, once)
                    [self.key.interpreter, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env={},
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C is for the worker, which drains
                )
            except OSError as error:
                self._control.close()
                raise SandboxUnavailable(
                    f"the interpreter {self.key.interpreter} cannot be started: {error}"
                ) from error
        self.alive = True
        self.born_at = self._loop.time()
        self._loop.add_reader(self._control.fileno(), self._on_control)
        try:
            plan = Plan(
                isolation=self._tier,
                mountpoint=str(self._scratch / "root"),
                job_uid=self._settings.job_uid,
                environment=self.key.environment,
                network="host" if self.key.network == "all" and self._uplink is None else self.key.network,
                uplink=self._uplink,
                relays=self._settings.relays,
                shared=self.key.shared,
            )
            self._tell(plan)
            async with asyncio.timeout(self._settings.start_timeout.total_seconds()):
                await self._ready
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise SandboxUnavailable("the zygote was not ready in time; is the machine overloaded?") from error
            raise

    async def take(self, room: Room) -> Child:
        """Return a child that is ready and now yours; give it back by `release` when its job has ended."""
        self._room = room
        while self._idle:
            child = self._idle.popleft()
            if child.ended.done() or child.room != room:
                child.close()
                continue
            self._busy += 1
            self._refill_later()
            return child
        if not self.alive:
            raise NeverStartedError("the zygote has ended")
        future: asyncio.Future[Child] = self._loop.create_future()
        self._waiting.append((room, future))
        self._fill(0)
        try:
            child = await future
        except BaseException:
            with suppress(ValueError):
                self._waiting.remove((room, future))
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()
            raise
        self._busy += 1
        return child

    def release(self, child: Child) -> None:
        """Take note that the child's job has ended, and see to the stock."""
        child.close()
        self._busy -= 1
        self._restock()

    def rest(self) -> None:
        """Take note that a warm child's job has ended, and see to the stock if it was taken from there."""
        self._busy -= 1
        if self._refill is not None:
            self._restock()

    def resume(self) -> None:
        """Take note that a warm child has its next job."""
        self._busy += 1

    def prepare(self, room: Room) -> None:
        """Fill the stock before the first job comes."""
        self._room = room
        self._restock()

    async def close(self) -> None:
        """End the process and with it every child; return when it has gone."""
        self._die("it was closed")
        try:
            await asyncio.to_thread(self._process.wait, CLOSE_TIMEOUT.total_seconds())
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        assert self._process.stderr is not None
        self._process.stderr.close()
        for task in tuple(self._cleaning):
            await task

    def _fill(self, stock: int) -> None:
        """Ask for as many children as are waited for and wanted in stock, less those that are on their way."""
        if not self.alive:
            return
        wanted = Counter({self._room: stock})
        wanted.update(room for room, _ in self._waiting)
        wanted.subtract(self._asked.values())
        wanted.subtract(child.room for child in self._born.values() if not child.ready.done())
        wanted.subtract(child.room for child in self._idle)
        for room, missing in wanted.items():
            for _ in range(missing):
                self._ask(room)

    def _ask(self, room: Room) -> None:
        number = next(self._numbers)
        try:
            self._tell(Spawn(number, room.tmp_bytes, self._folder(number)))
            self._asked[number] = room
        except BlockingIOError:  # hundreds of requests are under way: the next birth brings us back here
            self._clean(number)

    def _refill_later(self) -> None:
        if self._refill is None:
            delay = self._settings.refill_delay.total_seconds()
            self._refill = self._loop.call_later(delay, self._restock)

    def _restock(self) -> None:
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        self._fill(self._settings.idle_children)

    def _folder(self, number: int) -> str:
        """Return the child's private folder, made, or nothing where it gets file systems of its own."""
        if self._tier != "reduced":
            return ""
        folder = self._scratch / f"{self._process.pid}-{number}"
        for path in (folder, folder / "job", folder / "tmp"):
            path.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(path, self._settings.job_uid, self._settings.job_uid)
        return str(folder)

    def _clean(self, number: int, child: Child | None = None) -> None:
        if child is not None and child.group is not None and not child.group.let_go():
            self._background(self._groups.remove(child.group))
        if self._tier == "reduced":
            folder = self._scratch / f"{self._process.pid}-{number}"
            self._background(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))

    def _tell(self, message: Plan | Spawn) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # its end is noticed where it is read
            self._control.send(msgspec.json.encode(message))

    def _on_control(self) -> None:
        try:
            message, fds, _, _ = socket.recv_fds(self._control, 4096, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except ConnectionResetError:
            message, fds = b"", []
        if not message:
            self._die(self._last_words())
            return
        news = _news.decode(message)
        if news.ready:
            self._serves = True
            self.missing = news.missing
            self._ready.set_result(None)
        elif news.refused is not None:
            self._die(news.refused, news.layer)
        elif news.relays is not None:
            self._on_listeners(news.relays, fds)
        elif news.born is not None:
            self._on_birth(news.born, fds)
        elif news.stillborn is not None:
            self._asked.pop(news.stillborn, None)
            self._disappoint(SandboxUnavailable(news.error or "no child can be forked"))
        elif news.ended is not None:
            self._on_end(news.ended, Exit(news.code, news.peak_kb))

    def _on_listeners(self, numbers: Sequence[int], fds: list[int]) -> None:
        for number, fd in zip(numbers, fds, strict=True):
            self._relays.append(Relay(socket.socket(fileno=fd), *self._settings.relays[number]))

    def _on_birth(self, number: int, fds: list[int]) -> None:
        room = self._asked.pop(number)
        try:
            sock, output, pidfd = fds
        except ValueError:  # the kernel keeps what it cannot hand over
            for fd in fds:
                os.close(fd)
            self._disappoint(
                SandboxUnavailable("the worker has run out of file descriptors; raise its limit (ulimit -n)")
            )
            return
        child = Child(number, room, socket.socket(fileno=sock), output, pidfd)
        self._born[number] = child
        try:
            child.admit(self._groups.make(room))
        except OSError as error:
            child.give_up(SandboxUnavailable(f"no control group can be made: {error}"))
        child.ready.add_done_callback(lambda ready: self._on_ready(child, ready))
        if self._waiting:
            self._fill(0)

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    def _on_ready(self, child: Child, ready: asyncio.Future[None]) -> None:
        if (error := ready.exception()) is not None:
            child.close()
            self._disappoint(error)
            return
        for position, (room, future) in enumerate(self._waiting):
            if future.done():
                continue
            if room == child.room:
                del self._waiting[position]
                future.set_result(child)
                return
        if child.room == self._room and len(self._idle) < self._settings.idle_children:
            self._idle.append(child)
        else:  # whoever it was made for has given up
            child.close()

    def _on_end(self, number: int, exit_: Exit) -> None:
        child = self._born.pop(number)
        child.note_end(exit_)
        if child in self._idle:  # killed from outside, by the kernel for want of memory for one
            self._idle.remove(child)
            child.close()
            self._refill_later()
        self._clean(number, child)

    def _disappoint(self, error: BaseException) -> None:
        """Tell whoever waits longest that the child could not be had."""
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
                return
        if self.alive:
            log.warning("a child could not be made", extra={"reason": str(error), "workspace": self.key.workspace})

    def _last_words(self) -> str:
        """Return what a dead zygote wrote to stderr, as one line."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        words = (self._process.stderr.read() or b"").decode("utf-8", "replace").split()
        return "the zygote ended unexpectedly" + (f": {' '.join(words)[-500:]}" if words else "")

    def _let_go(self) -> None:
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for relay in self._relays:
            relay.close()
        if self._refill is not None:
            self._refill.cancel()

    def _die(self, reason: str, layer: str | None = None) -> None:
        if not self.alive:
            return
        self.alive = False
        self._let_go()
        if not self._ready.done():
            self._ready.set_exception(SandboxUnavailable(reason, layer))
        for number, child in tuple(self._born.items()):
            child.note_end(Exit(code=None))
            self._clean(number, child)
        for child in self._idle:
            child.close()
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(NeverStartedError(reason))
        for closed in (self._born, self._idle, self._waiting, self._asked):
            closed.clear()
        if self._serves:
            self._on_death(self)
