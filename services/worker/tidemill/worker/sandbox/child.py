"""One sandboxed child as the worker holds it: takes a job, hears its output, knows its end.

    starting ─ ready ─▶ idle ─ run() ─▶ busy ─ answer, time-out, cancel, limit ─▶ killed ─▶ ended
                         ▲                ├ step of a workflow ─▶ kept ─▶ busy
                         │                └ answer of a warm job ─▶ clearing up ─ spent, or in too long a time ─▶ killed
                         └────────────────────────── clean ───────────────┘

The answer comes before the process has ended, and ending is not waited for: SIGKILL to pid 1 of its namespace ends all
of it. A child that goes without having read its order leaves unread bytes in the socket, which the kernel reports as
a reset: only then can its job be given to another.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from datetime import timedelta

import msgspec

from tidemill.worker.sandbox import answers
from tidemill.worker.sandbox.execution import Ending, KeepStep, Limits, Room
from tidemill.worker.sandbox.groups import NOTHING, Figures, Group
from tidemill.worker.sandbox.output import Hear, Output
from tidemill.worker.sandbox.settings import SandboxUnavailable

_HEAD = 4
_READ = 1 << 16
_SMALL_FRAME = 1 << 16  # what a child may say before it has a job
_GO = b"\n"
_KEPT = b'{"kept":true}'
_KILL_WAIT = timedelta(seconds=5)
_CLEAR_UP_WAIT = timedelta(seconds=3)


class NeverStartedError(Exception):
    """The child died before it had read its job; another child may run it."""


class SpentError(Exception):
    """The child can't run another job; the text says why."""


class Exit(msgspec.Struct, frozen=True):
    """How a child's process ended: code as shells tell it, or None when nobody is left to tell."""

    code: int | None
    peak_kb: int | None = None


class Child:
    """Owns the child's job socket, output pipe and pidfd."""

    def __init__(self, number: int, room: Room, sock: socket.socket, output: int, pidfd: int) -> None:
        self.number = number
        self.room = room
        self.group: Group | None = None
        self._figures = NOTHING
        self._succeeded = False
        loop = self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[Exit] = loop.create_future()
        self._ending: asyncio.Future[Ending | None] = loop.create_future()  # None: gone without an answer
        self._sock = sock
        self._output_fd = output
        self._pidfd = pidfd
        self._received = bytearray()
        self._unsent = memoryview(b"")
        self._frame_limit = _SMALL_FRAME
        self._result_limit = 0
        self._output: Output | None = None
        self._heard = 0
        self._output_limit = 0
        self._began = False  # it has said something since it was given its job
        self._never_read = False
        self._keep_step: KeepStep = answers.no_steps
        self._keeping: asyncio.Task[Ending | None] | None = None
        self._clean: asyncio.Future[int] | None = None  # the KiB it holds, when it is to be had again
        for fd in (sock.fileno(), output):
            os.set_blocking(fd, False)
        loop.add_reader(sock.fileno(), self._on_socket)

    async def run(
        self,
        order: bytes,
        limits: Limits,
        on_log: Hear,
        on_stream: Hear,
        cancel: asyncio.Event,
        *,
        on_step: KeepStep,
        warm: bool = False,
    ) -> Ending:
        """Return how the job ended, after all that it wrote until then has been heard.

        The child has been killed then; or, after the answer of a warm job, it is about to clear up: see `clean`.
        """
        self._clean, self._succeeded, self._began = None, False, False
        self._keep_step = on_step
        output = self._output = Output(limits.log_bytes, limits.result_bytes, on_log, on_stream)
        self._result_limit = limits.result_bytes
        self._output_limit = limits.output_bytes
        self._frame_limit = limits.result_bytes + _SMALL_FRAME
        self._loop.add_reader(self._output_fd, self._on_output)
        self._send(order)
        timeout = self._loop.call_later(
            limits.wall_time.total_seconds(), self._conclude, answers.timed_out(limits.wall_time)
        )
        canceled = asyncio.ensure_future(cancel.wait())
        canceled.add_done_callback(lambda task: None if task.cancelled() else self._conclude(answers.canceled()))
        lives = False
        try:
            ending = await self._ending
            if ending is None:
                ending = self._explain()
            elif ending.reason in ("timeout", "canceled", "output"):
                await self._killed()
            self._drain(output)
            self._succeeded = ending.success
            figures = self.figures()
            lives = warm and ending.reason in answers.LEAVES_A_PROCESS and not output.stream_overflow
        finally:
            timeout.cancel()
            canceled.cancel()
            if self._keeping is not None:
                self._keeping.cancel()
            if lives:
                self._let_it_clear_up()
            else:
                self.close()
        if output.stream_overflow:
            ending = answers.too_large(limits.result_bytes)
        return answers.explained(ending, figures, limits)

    async def clean(self) -> int:
        """Return, with the KiB that it holds, when a warm child may be given its next job; raises SpentError."""
        assert self._clean is not None
        try:
            async with asyncio.timeout(_CLEAR_UP_WAIT.total_seconds()):
                resident = await self._clean
        except TimeoutError:
            raise SpentError("it took too long to clear up") from None
        if self.group is not None and not self.group.begin_anew():
            raise SpentError("its job met a limit")
        return resident

    @property
    def gone(self) -> bool:
        """Tell whether it has ended or is about to."""
        return self._pidfd < 0 or self.ended.done()

    @property
    def clears_up(self) -> bool:
        """Tell whether its job has ended well enough for it to go on living."""
        return self._clean is not None

    def admit(self, group: Group | None) -> None:
        """Let it go into its group and prepare itself there."""
        self.group = group
        doors = [] if group is None else group.doors()
        try:
            with suppress(OSError):  # its end is noticed where it is read
                socket.send_fds(self._sock, [_GO], doors)
        finally:
            for door in doors:
                os.close(door)

    def give_up(self, error: BaseException) -> None:
        """End a child that cannot be made ready."""
        if not self.ready.done():
            self.ready.set_exception(error)

    def figures(self) -> Figures:
        """Return what its control group has counted, until now or, once it has ended, at its end."""
        if self.group is not None and not self.ended.done():
            self._figures = self.group.figures(all_of_them=not self._succeeded)
        return self._figures

    def kill(self) -> None:
        """End the process and, with it, all that it started."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Kill it and let go of its descriptors."""
        if self._pidfd < 0:
            return
        self.kill()
        for fd in (self._sock.fileno(), self._output_fd):
            self._loop.remove_reader(fd)
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        os.close(self._output_fd)
        os.close(self._pidfd)
        self._pidfd = -1

    def note_end(self, exit: Exit) -> None:  # noqa: A002 (it is the word)
        """Take the zygote's report, or the news that the zygote has gone."""
        if self._output is not None and not self._ending.done():
            self.figures()
        if not self.ended.done():
            self.ended.set_result(exit)
        # The answer may lie unread in the socket while the news of the end was read first.
        while self._pidfd >= 0 and self._on_socket():
            pass
        self._conclude(None)
        if self._clean is not None and not self._clean.done():
            self._clean.set_exception(SpentError("it ended"))
        if not self.ready.done():
            self.ready.set_exception(NeverStartedError("the child ended before it was ready"))

    def _let_it_clear_up(self) -> None:
        """Hear nothing but whether it is clean: what is written from now on belongs to no job."""
        self._output = None
        self._ending = self._loop.create_future()
        self._frame_limit = _SMALL_FRAME
        self._heard = 0
        self._clean = self._loop.create_future()
        self._loop.add_reader(self._sock.fileno(), self._on_socket)
        self._take_frames()
        if self.ended.done():
            self._on_socket()  # its last words
            if not self._clean.done():
                self._clean.set_exception(SpentError("it ended"))

    def _explain(self) -> Ending:
        """Return what is known of an end without an answer."""
        if self._never_read:
            raise NeverStartedError
        exit_ = self.ended.result()
        return answers.vanished(exit_.code, exit_.peak_kb)

    async def _killed(self) -> None:
        """Kill it and return when it has ended, or is stuck in the kernel with its end already decided."""
        self.kill()
        with suppress(TimeoutError):
            async with asyncio.timeout(_KILL_WAIT.total_seconds()):
                await asyncio.shield(self.ended)

    def _conclude(self, ending: Ending | None) -> None:
        if not self._ending.done():
            self._ending.set_result(ending)

    def _send(self, payload: bytes) -> None:
        self._unsent = memoryview(len(payload).to_bytes(_HEAD, "big") + payload)
        self._on_writable()

    def _on_writable(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
            return
        except OSError:
            self._note_unread()
        self._loop.remove_writer(self._sock.fileno())

    def _on_socket(self) -> bool:
        """Take what the child says, one read of it; return whether there may be more."""
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            self._note_unread()
            data = b""
        if not data:
            # Not the end yet: a script may have closed what it did not know. The zygote tells the end and its code.
            self._loop.remove_reader(self._sock.fileno())
            return False
        self._received += data
        more = self._take_frames()
        if self._ending.done() and self._pidfd >= 0:
            self._loop.remove_reader(self._sock.fileno())  # what else it says waits in the socket, not with us
        return more

    def _take_frames(self) -> bool:
        while len(self._received) >= _HEAD and not self._ending.done():
            size = int.from_bytes(self._received[:_HEAD], "big")
            if size > self._frame_limit:
                self._on_too_large_frame()
                return False
            if len(self._received) < _HEAD + size:
                return True
            payload = bytes(self._received[_HEAD : _HEAD + size])
            del self._received[: _HEAD + size]
            self._on_frame(answers.decode(payload))
        return not self._ending.done()

    def _note_unread(self) -> None:
        """Take the news that it has gone and left unread what we sent: what it did not get it can't have begun."""
        if not self._began:
            self._never_read = True
            self._conclude(None)

    def _on_too_large_frame(self) -> None:
        """End whoever says so much; between two jobs there is no job that it could be the end of."""
        if self._output is not None:
            self._conclude(answers.too_large(self._result_limit))
        elif self._clean is not None and not self._clean.done():
            self._loop.remove_reader(self._sock.fileno())
            self._clean.set_exception(SpentError("it said more than it had been asked"))
        else:
            self.close()

    def _on_frame(self, frame: answers.Frame) -> None:
        if self._output is None:
            if self._clean is not None:
                self._on_cleared_up(frame)
            elif self.ready.done():
                return
            elif frame.ready:
                self.ready.set_result(None)
            else:
                self.ready.set_exception(SandboxUnavailable(frame.refused or "the child was not ready"))
            return
        self._began = True
        if self._keeping is not None:
            self._conclude(answers.failed("killed", "ExecutionErr", "the job's process did not wait for its step"))
        elif len(frame.step):
            self._on_step(bytes(frame.step))
        elif frame.stream is not None:
            self._output.stream(frame.stream)
            if self._output.stream_overflow:
                self._conclude(answers.too_large(self._result_limit))
        elif len(frame.result) > self._result_limit:
            self._conclude(answers.too_large(self._result_limit))
        else:
            self._conclude(answers.ending(frame))

    def _on_step(self, step: bytes) -> None:
        """Have a step kept; the child waits for the answer."""
        self._keeping = asyncio.ensure_future(self._keep_step(step))
        self._keeping.add_done_callback(self._on_kept)

    def _on_kept(self, keeping: asyncio.Task[Ending | None]) -> None:
        self._keeping = None
        if keeping.cancelled() or self._ending.done():
            return
        if (error := keeping.exception()) is not None:
            self._ending.set_exception(error)
        elif (ending := keeping.result()) is not None:
            self._conclude(ending)
        else:
            self._send(_KEPT)

    def _on_cleared_up(self, frame: answers.Frame) -> None:
        assert self._clean is not None
        if self._clean.done():  # nothing may be said before the next job
            self.close()
        elif frame.clean:
            self._discard()
            self._clean.set_result(frame.resident_kb)
        else:
            self._clean.set_exception(SpentError(frame.spent or frame.refused or "it said what it had not been asked"))

    def _discard(self) -> None:
        """Throw away all that the pipe holds: it was written after the answer."""
        with suppress(BlockingIOError):
            os.splice(self._output_fd, _devnull(), 1 << 20)

    def _on_output(self) -> None:
        if self._output is None:
            self._discard()
        elif not self._hear(self._output):
            self._loop.remove_reader(self._output_fd)

    def _hear(self, output: Output) -> bool:
        """Take what the pipe holds now, one read of it; return whether there may be more."""
        try:
            if output.truncated:
                return self._count(os.splice(self._output_fd, _devnull(), 1 << 20))
            data = os.read(self._output_fd, _READ)
        except BlockingIOError:
            return True
        self._count(len(data))
        output.feed(data)
        if output.stream_overflow:
            self._conclude(answers.too_large(self._result_limit))
        return bool(data)

    def _count(self, heard: int) -> bool:
        """End a job that writes without end; return whether there may be more."""
        self._heard += heard
        if self._heard > self._output_limit:
            self._conclude(answers.too_much_output(self._output_limit))
        return heard > 0

    def _drain(self, output: Output) -> None:
        """Hear what was written before the answer; a pipe holds 64 KiB, and who still writes is not listened to."""
        for _ in range(2):
            try:
                data = b"" if output.truncated else os.read(self._output_fd, _READ)
            except BlockingIOError:
                break
            output.feed(data)
        output.close()


_null: list[int] = []


def _devnull() -> int:
    """Return the one descriptor that discarded output goes to."""
    if not _null:
        _null.append(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
    return _null[0]
