"""A few processes that evaluate, and the line of those who wait for one."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Self

import msgspec

from tidemill.chassis.javascript.evaluator import (
    Died,
    Do,
    EvaluationFailed,
    Evaluator,
    JavaScriptUnavailable,
    Scope,
)
from tidemill.chassis.javascript.settings import JavaScriptSettings

log = logging.getLogger(__name__)

_ATTEMPTS = 2  # a process may be killed for reasons that have nothing to do with the expression


class JavaScript:
    """Evaluates expressions while it is open; any number may be asked for at once."""

    def __init__(self, settings: JavaScriptSettings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(settings.processes)
        self._idle: deque[Evaluator] = deque()  # the one that has rested longest is next: it is prepared
        self._all: set[Evaluator] = set()
        self._replacing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Start the first process, so that a host which can't is known at once; the others start when needed."""
        evaluator = await self._start()
        if evaluator.missing:
            log.warning("JavaScript is confined without some layers", extra={"missing": evaluator.missing})
        self._idle.append(evaluator)
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all processes; for what is being evaluated, JavaScript is no longer available."""
        self._closed = True
        await asyncio.gather(*(evaluator.close() for evaluator in self._all))
        while self._replacing:
            await asyncio.wait(self._replacing)

    @property
    def pids(self) -> frozenset[int]:
        """Return the numbers of the processes that stand."""
        return frozenset(evaluator.pid for evaluator in self._all)

    async def evaluate(self, source: str, known: Mapping[str, msgspec.Raw], scope: Scope) -> msgspec.Raw:
        """Return the expression's value; raises EvaluationFailed, or what the scope raised other than Refused."""
        return await self._run(Do.EVALUATE, source, known, scope)

    async def test(self, source: str, known: Mapping[str, msgspec.Raw], scope: Scope) -> bool:
        """Return whether the expression's value is truthy in JavaScript; raises as `evaluate` does."""
        return bytes(await self._run(Do.TEST, source, known, scope)) == b"true"

    async def check(self, source: str) -> str | None:
        """Return why the expression can't be evaluated, on one line, or None; nothing of it is executed."""
        try:
            await self._run(Do.CHECK, source, {}, None)
        except EvaluationFailed as error:
            return str(error)
        return None

    async def _run(self, do: Do, source: str, known: Mapping[str, msgspec.Raw], scope: Scope | None) -> msgspec.Raw:
        try:
            encoded = source.encode()
        except UnicodeEncodeError:
            raise EvaluationFailed("SyntaxError: the expression has half of a surrogate pair") from None
        if b"\0" in encoded:
            raise EvaluationFailed("SyntaxError: the expression has a character of code 0")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._borrowed() as evaluator:
                    return await evaluator.run(do, encoded, known, scope)
            except Died as error:
                if self._closed:
                    raise JavaScriptUnavailable("JavaScript was closed") from error
                log.warning("a process that evaluates died", extra={"attempt": attempt, "reason": str(error)})
        raise EvaluationFailed("the process that evaluated the expression ended unexpectedly, twice")

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Evaluator]:
        """Yield a process that is the caller's alone; one that can't be used again is replaced."""
        await self._places.acquire()
        evaluator: Evaluator | None = None
        try:
            evaluator = await self._take()
            yield evaluator
        finally:
            if evaluator is None:
                self._places.release()
            elif evaluator.reusable:
                self._idle.append(evaluator)
                self._places.release()
            else:
                task = asyncio.create_task(self._replace(evaluator))
                self._replacing.add(task)
                task.add_done_callback(self._replacing.discard)

    async def _take(self) -> Evaluator:
        """Return an idle process that still stands, or a new one."""
        while self._idle:
            evaluator = self._idle.popleft()
            if evaluator.alive and not self._closed:
                return evaluator
            await self._end(evaluator)
        return await self._start()

    async def _start(self) -> Evaluator:
        evaluator = Evaluator(self._settings)
        if not self._closed:
            await evaluator.start()
            if not self._closed:
                self._all.add(evaluator)
                return evaluator
            await evaluator.close()
        raise JavaScriptUnavailable("JavaScript was closed")

    async def _end(self, evaluator: Evaluator) -> None:
        self._all.discard(evaluator)
        await evaluator.close()

    async def _replace(self, evaluator: Evaluator) -> None:
        """End the process and start another in its place, which is free only then."""
        try:
            await self._end(evaluator)
            self._idle.append(await self._start())
        except JavaScriptUnavailable as error:
            if not self._closed:  # the next expression tries again
                log.error("a process that evaluates could not be replaced", extra={"reason": str(error)})
        finally:
            self._places.release()
