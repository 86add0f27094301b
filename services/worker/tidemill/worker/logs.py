"""A run's log on its way to the database: live, in few and growing steps, and the rest together with the result.

    0.5 s between chunks in the first 10 s, then 2.5 s, after a minute 5 s

A short job's log travels with its end and costs no round trip of its own. The run's own token is masked; what may be
its beginning waits for what follows.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from random import Random

import msgspec

from tidemill.chassis.backoff import delays
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.worker.masking import begun, hidden

log = logging.getLogger(__name__)

_RHYTHM = ((10.0, 0.5), (60.0, 2.5), (float("inf"), 5.0))
_FIRST_PAUSE = timedelta(milliseconds=100)
_LONGEST_PAUSE = timedelta(seconds=3)


class Chunk(msgspec.Struct, frozen=True):
    """A piece of the log; `seq` makes storing it twice harmless, `units` are its UTF-16 code units."""

    seq: int
    text: str
    units: int


class Log:
    """The log of one run."""

    def __init__(
        self, store: Callable[[Chunk], Awaitable[bool]], on_stored: Callable[[], None], secret: str = ""
    ) -> None:
        self._store = store
        self._on_stored = on_stored
        self._secret = secret
        self._waiting: list[str] = []
        self._something = asyncio.Event()
        self._pending: Chunk | None = None
        self._seq = 0

    def write(self, text: str) -> None:
        """Take what the run has printed."""
        self._waiting.append(text)
        self._something.set()

    async def run(self) -> None:
        """Store chunks in their rhythm until cancelled, or until the claim is over."""
        began = time.monotonic()
        while True:
            await self._something.wait()
            age = time.monotonic() - began
            await asyncio.sleep(next(pause for until, pause in _RHYTHM if age < until))
            chunk = self._next()
            if chunk is None:
                continue
            if not await self._store_patiently(chunk):
                return
            self._pending = None
            self._on_stored()

    async def last(self) -> Chunk | None:
        """Return the chunk that is to travel with the run's end, or None; what came before it is stored now."""
        if self._pending is not None and self._waiting and await self._store_patiently(self._pending):
            self._pending = None
        return self._next(ended=True)

    def _next(self, *, ended: bool = False) -> Chunk | None:
        """Return the chunk that is not known to be stored, made of all that waits unless there is one already."""
        if self._pending is None and self._waiting:
            text = hidden("".join(self._waiting), self._secret)
            self._waiting.clear()
            self._something.clear()
            if not ended and (held := begun(text, self._secret)):
                self._waiting.append(text[-held:])
                text = text[:-held]
            if not text:
                return None
            self._pending = Chunk(self._seq, text, len(text.encode("utf-16-le", "surrogatepass")) // 2)
            self._seq += 1
        return self._pending

    async def _store_patiently(self, chunk: Chunk) -> bool:
        for pause in delays(_FIRST_PAUSE, _LONGEST_PAUSE, Random()):  # noqa: S311 - jitter, not a secret
            try:
                return await self._store(chunk)
            except DatabaseUnavailable:
                await asyncio.sleep(pause.total_seconds())
        raise AssertionError("unreachable")
