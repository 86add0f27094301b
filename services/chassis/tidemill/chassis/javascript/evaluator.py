"""Our side of one process that evaluates: its start, its socket, and the talk about one expression."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from tidemill.chassis.javascript.settings import MEBIBYTE, JavaScriptSettings

# `inside` runs as a package of its own, so that nothing of ours is loaded with it; the engine is found last.
_BOOTSTRAP = (
    "import sys; folder, engine = sys.argv[1:3]; sys.path[:0] = [folder]; sys.path.append(engine); "
    "from inside.main import main; main()"
)
_FOLDER = str(Path(__file__).parent)
_ENVIRONMENT = {"TZ": "UTC0"}
_LENGTHS = struct.Struct("!II")
_LARGE = 1 << 15  # a known value beyond this is sent only when the expression touches it
_LONGEST_HEAD = 1 << 20
_READ_AHEAD = 1 << 20
_CLOSE_TIMEOUT = timedelta(seconds=5)
_OUT_OF_MEMORY = 77  # the exit code, as in inside/main.py
_LAST_WORDS = 4000
_LONGEST_REASON = 2000
_NOT_NOW: tuple[str, bytes | msgspec.Raw] = ("refused", b"the value can't be looked up now")
_KNOWN = "known"  # what the process calls the values that were not sent at once
Step = TypeVar("Step")


class Scope(Protocol):
    """What an expression can ask for."""

    async def get(self, name: str, key: str) -> msgspec.Raw | None:
        """Return the value, or None for undefined; raises Refused with a reason that the expression may see."""


class Refused(Exception):
    """The scope does not give this; the message is what the expression gets."""


class EvaluationFailed(Exception):
    """The expression has no value; the message says why on one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(" ".join(reason[:_LONGEST_REASON].splitlines()))


class JavaScriptUnavailable(Exception):
    """The process that evaluates can't be started; the message says why."""


class Died(Exception):
    """The process ended in the middle of an evaluation."""


class Exceeded(EvaluationFailed):
    """The expression went over a limit; its process is not used again."""


class Do(StrEnum):
    """What is done with an expression."""

    EVALUATE = "evaluate"
    TEST = "test"
    CHECK = "check"


class Plan(msgspec.Struct, frozen=True):
    """The first message."""

    parent: int
    memory: int
    seconds: float
    longest: int
    objects: tuple[str, ...]
    functions: tuple[str, ...]


class Request(msgspec.Struct, frozen=True):
    """The head of a message about one expression; its text is the source and then the known values."""

    do: Do
    source: int
    known: tuple[tuple[str, int], ...]
    large: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True):
    """The head of an answer to what the expression asked for."""

    answer: str


class News(msgspec.Struct, frozen=True):
    """The head of what the process says: what it lacks at the start, then a question or the end."""

    missing: tuple[str, ...] = ()
    ask: tuple[str, str] | None = None
    end: str | None = None


_news = msgspec.json.Decoder(News)
_json = msgspec.json.Decoder(msgspec.Raw)
_head = msgspec.json.Encoder()


class Evaluator:
    """One process; whoever borrowed it is alone with it."""

    def __init__(self, settings: JavaScriptSettings) -> None:
        self.missing: tuple[str, ...] = ()  # layers of confinement that can't be had here
        self.reusable = True  # whether nothing is left of the last expression
        self._settings = settings

    @property
    def alive(self) -> bool:
        """Tell whether the process still stands."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return int(self._process.pid)

    async def start(self) -> None:
        """Start the process and return when it has confined itself; raises JavaScriptUnavailable."""
        engine = importlib.util.find_spec("_quickjs")
        if engine is None or engine.origin is None:
            raise JavaScriptUnavailable("the package quickjs-ng is not installed")
        ours, theirs = socket.socketpair()
        arguments = ["-I", "-S", "-X", "utf8", "-c", _BOOTSTRAP, _FOLDER, str(Path(engine.origin).parent)]
        with theirs:
            self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=_READ_AHEAD)
            try:
                self._process = subprocess.Popen(  # noqa: ASYNC220 (a vfork: one or two milliseconds, once)
                    [sys.executable, *arguments],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=_ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,  # Ctrl-C is for us
                )
            except OSError as error:
                self._writer.close()
                raise JavaScriptUnavailable(f"the process that evaluates can't be started: {error}") from error
        try:
            plan = Plan(
                parent=os.getpid(),
                memory=self._settings.memory,
                seconds=self._settings.time_limit.total_seconds(),
                longest=self._settings.longest,
                objects=self._settings.objects,
                functions=self._settings.functions,
            )
            async with asyncio.timeout(self._settings.start_timeout.total_seconds()):
                await self._send(plan)
                self.missing = (await self._receive())[0].missing
        except Died as error:
            reason = await self._last_words()
            await self.close()
            raise JavaScriptUnavailable(f"the process that evaluates ended at its start: {reason}") from error
        except TimeoutError as error:
            await self.close()
            raise JavaScriptUnavailable("the process that evaluates was not ready in time") from error
        except BaseException:
            await self.close()
            raise

    async def run(self, do: Do, source: bytes, known: Mapping[str, msgspec.Raw], scope: Scope | None) -> msgspec.Raw:
        """Return the value; raises EvaluationFailed, Died, or what the scope raised other than Refused."""
        self.reusable = False
        small = {name: value for name, value in known.items() if len(value) <= _LARGE}
        request = Request(
            do=do,
            source=len(source),
            known=tuple((name, len(value)) for name, value in small.items()),
            large=tuple(name for name in known if name not in small),
        )
        clock = _Clock(self._settings)
        await clock.during(self._send(request, b"".join((source, *small.values()))))
        end, text = await self._answer_until_the_end(clock, known, scope)
        match end:
            case "value":
                return self._value(text)
            case "error":
                raise EvaluationFailed(text.decode(errors="replace"))
            case "memory":
                raise Exceeded(_over_memory(self._settings))
            case "output":
                raise Exceeded(f"the value of the expression is larger than {_size(self._settings.longest)}")
            case _:
                raise Died("the process does not keep to what was agreed")

    async def _answer_until_the_end(
        self, clock: _Clock, known: Mapping[str, msgspec.Raw], scope: Scope | None
    ) -> tuple[str, bytes]:
        """Return how the evaluation ended; raises what the scope raised other than Refused, once it has ended."""
        failure: Exception | None = None
        for _ in range(self._settings.lookups + 1):
            news, text = await clock.during(self._receive())
            if news.ask is None:
                self.reusable = news.end in {"value", "error"}
                if failure is not None:
                    raise failure
                return news.end or "", text
            answer, value = _NOT_NOW
            if failure is None:
                try:
                    answer, value = await self._look_up(news.ask, known, scope)
                except Exception as error:
                    # Not the expression's fault: it ends by itself, and then the caller hears of it.
                    failure = error
            await clock.during(self._send(Answer(answer), value))
        raise Exceeded(f"the expression asks for more than {self._settings.lookups} values")

    async def _look_up(
        self, asked: tuple[str, str], known: Mapping[str, msgspec.Raw], scope: Scope | None
    ) -> tuple[str, bytes | msgspec.Raw]:
        """Return the answer to what an expression asked for: the kind of answer, and the value or the reason."""
        name, key = asked
        value = known.get(key) if name == _KNOWN else None
        if scope is not None and (name in self._settings.objects or name in self._settings.functions):
            try:
                value = await scope.get(name, key)
            except Refused as error:
                return "refused", str(error).encode(errors="replace")
        return ("nothing", b"") if value is None else ("value", value)

    def _value(self, text: bytes) -> msgspec.Raw:
        try:
            return _json.decode(text)
        except msgspec.DecodeError as error:
            self.reusable = False
            raise Died("the process does not keep to what was agreed") from error

    async def close(self) -> None:
        """End the process at once and return when it has gone."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait, _CLOSE_TIMEOUT.total_seconds())
        assert self._process.stderr is not None
        self._process.stderr.close()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _send(self, head: Plan | Request | Answer, text: bytes | msgspec.Raw = b"") -> None:
        encoded = _head.encode(head)
        try:
            self._writer.writelines((_LENGTHS.pack(len(encoded), len(text)), encoded, text))
            await self._writer.drain()
        except OSError:
            raise await self._death() from None

    async def _receive(self) -> tuple[News, bytes]:
        """Return the next message; nothing in it is believed, because an expression might have taken the process."""
        try:
            head, text = _LENGTHS.unpack(await self._reader.readexactly(_LENGTHS.size))
            if head > _LONGEST_HEAD or text > self._settings.longest:
                raise Died("the process says more than was agreed")
            return _news.decode(await self._reader.readexactly(head)), await self._reader.readexactly(text)
        except (asyncio.IncompleteReadError, OSError):
            raise await self._death() from None
        except msgspec.DecodeError as error:
            raise Died("the process does not keep to what was agreed") from error

    async def _death(self) -> Exception:
        """Return what the end of the process means."""
        try:
            code = await asyncio.to_thread(self._process.wait, _CLOSE_TIMEOUT.total_seconds())
        except subprocess.TimeoutExpired:
            return Died("the process hung up and stays")
        match code:
            case _ if code == -signal.SIGPROF:
                return Exceeded(_over_time(self._settings))
            case _ if code == _OUT_OF_MEMORY:
                return Exceeded(_over_memory(self._settings))
            case _:
                return Died(f"the process ended with {code}")

    async def _last_words(self) -> str:
        assert self._process.stderr is not None
        words = await asyncio.to_thread(self._process.stderr.read, _LAST_WORDS)
        return words.decode(errors="replace").strip().rpartition("\n")[2] or f"exit code {self._process.returncode}"


class _Clock:
    """Counts only the time in which the process has the word: a slow database is not the expression's fault."""

    def __init__(self, settings: JavaScriptSettings) -> None:
        self._settings = settings
        self._left = settings.time_limit.total_seconds()

    async def during(self, step: Coroutine[None, None, Step]) -> Step:
        """Return what the step gives; raises Exceeded when no time is left."""
        now = asyncio.get_running_loop().time
        since = now()
        try:
            async with asyncio.timeout(self._left):
                return await step
        except TimeoutError:
            raise Exceeded(_over_time(self._settings)) from None
        finally:
            self._left -= now() - since


def _over_time(settings: JavaScriptSettings) -> str:
    return f"the expression took longer than {settings.time_limit.total_seconds():g} s"


def _over_memory(settings: JavaScriptSettings) -> str:
    return f"the expression needs more than {_size(settings.memory)} of memory"


def _size(size: int) -> str:
    return f"{size // MEBIBYTE} MiB" if size % MEBIBYTE == 0 else f"{size} bytes"
