"""A server process of ours that is started, watched, started again when it dies, and stopped."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from random import Random

from tidemill.chassis.backoff import delay
from tidemill.chassis.errors import StartRefused

Say = Callable[[str], None]

FIRST_PAUSE = timedelta(milliseconds=100)
LONGEST_PAUSE = timedelta(seconds=10)
LONG_RUN = timedelta(seconds=10)  # after it, earlier deaths are forgotten
RNG = Random()  # noqa: S311 - jitter, not a secret


def say_nothing(line: str) -> None:
    """Take a line of progress that nobody wants to read."""


def how_it_ended(code: int) -> str:
    """Tell an exit code the way a person reads it: "exit code 3" or "SIGKILL"."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


class Daemon:
    """One server process; between `start` and `stop` it is started again whenever it dies."""

    def __init__(
        self,
        name: str,
        spawn: Callable[[], Awaitable[Process]],
        wait_ready: Callable[[], Awaitable[None]],
        say: Say,
        *,
        stop_signal: signal.Signals,
        start_within: timedelta,
        stop_within: timedelta,
    ) -> None:
        self._name, self._spawn, self._wait_ready, self._say = name, spawn, wait_ready, say
        self._stop_signal, self._start_within, self._stop_within = stop_signal, start_within, stop_within
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now, or None while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Return when the server answers; from now on it is kept running."""
        self._process = await self._launch()
        self._keeper = asyncio.create_task(self._keep(self._process), name=f"keep {self._name}")

    async def stop(self) -> None:
        """End the server and return when it is gone; a second call changes nothing."""
        if self._keeper is not None:
            self._keeper.cancel()
            with suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        if self._process is not None:
            await self._end(self._process)
            self._process = None

    async def _keep(self, process: Process) -> None:
        loop = asyncio.get_running_loop()
        attempts = 0
        while True:
            began = loop.time()
            ended = how_it_ended(await process.wait())
            self._say(f"{self._name} ended unexpectedly ({ended}); starting it again")
            if loop.time() - began >= LONG_RUN.total_seconds():
                attempts = 0
            while True:
                attempts += 1
                await asyncio.sleep(delay(attempts, FIRST_PAUSE, LONGEST_PAUSE, RNG).total_seconds())
                try:
                    self._process = process = await self._launch()
                    break
                except (StartRefused, OSError) as error:
                    self._say(f"{self._name} could not be started again: {error}")

    async def _launch(self) -> Process:
        process = await self._spawn()
        try:
            await self._until_ready(process)
        except BaseException:
            await self._end(process)
            raise
        return process

    async def _until_ready(self, process: Process) -> None:
        ready = asyncio.ensure_future(self._wait_ready())
        ended = asyncio.ensure_future(process.wait())
        limit = self._start_within.total_seconds()
        try:
            done, _ = await asyncio.wait((ready, ended), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if ended in done:
                raise StartRefused(f"{self._name} ended while it was starting ({how_it_ended(ended.result())})")
            if ready not in done:
                raise StartRefused(f"{self._name} did not answer within {limit:.0f} s")
            await ready
        finally:
            ready.cancel()
            ended.cancel()

    async def _end(self, process: Process) -> None:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(self._stop_signal)
            try:
                await asyncio.wait_for(process.wait(), self._stop_within.total_seconds())
            except TimeoutError:
                self._say(f"{self._name} did not stop within {self._stop_within.total_seconds():.0f} s; killing it")
                # The whole session, while its leader is not yet reaped and the number cannot belong to anybody else.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
