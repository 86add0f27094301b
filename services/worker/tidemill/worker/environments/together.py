"""One piece of work for all who want it at the same time; it ends early when the last of them has gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from tidemill.worker.environments.failure import Stopped

R = TypeVar("R")
Say = Callable[[str], None]


class _Work(Generic[R]):
    def __init__(self, begin: Callable[[Say], Awaitable[R]]) -> None:
        self.listeners: list[Say] = []
        self.said: list[str] = []
        self.task = asyncio.ensure_future(begin(self._tell))

    def _tell(self, line: str) -> None:
        self.said.append(line)
        for listener in self.listeners:
            listener(line)


class Together(Generic[R]):
    """Work by its key."""

    def __init__(self) -> None:
        self._going: dict[str, _Work[R]] = {}

    async def join(self, key: str, begin: Callable[[Say], Awaitable[R]], say: Say, stop: asyncio.Event) -> R:
        """Return what the work returns; raises what it raises, or Stopped when `stop` is set before.

        All who wait hear what is said, also those who come later.
        """
        work = self._going.get(key)
        if work is None:
            work = self._going[key] = _Work(begin)
        for line in work.said:
            say(line)
        work.listeners.append(say)
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({work.task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            work.listeners.remove(say)
            if not work.listeners or work.task.done():
                work.task.cancel()
                if self._going.get(key) is work:
                    del self._going[key]
        if not work.task.done() or work.task.cancelled():
            raise Stopped
        return work.task.result()
