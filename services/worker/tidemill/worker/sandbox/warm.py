"""Children that wait for the next job of the same script, so that nothing has to be started or loaded for it.

    keep(kind, child) ─▶ clearing up ─ clean ─▶ waiting ─ take(kind) ─▶ busy again
                             └ spent               └ too many, too large, too long: the longest unused ends

Whatever makes two jobs different is part of the kind, so a child never meets a job of somebody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import msgspec

from tidemill.worker.sandbox.child import Child, Exit, SpentError
from tidemill.worker.sandbox.execution import Limits
from tidemill.worker.sandbox.settings import SandboxSettings, ZygoteKey
from tidemill.worker.sandbox.zygote import Zygote

log = logging.getLogger(__name__)

_REASONS_KEPT = 1000
_PATIENCE = timedelta(milliseconds=50)  # clearing up takes a fraction of a millisecond, a new child several


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """Whose jobs may have each other's child."""

    zygote: ZygoteKey
    key: str
    limits: Limits


class Pair(NamedTuple):
    """A child and the zygote that it came from."""

    zygote: Zygote
    child: Child


class Resting(NamedTuple):
    """One that waits."""

    kind: Kind
    pair: Pair
    resident_kb: int
    goes: asyncio.TimerHandle
    on_end: Callable[[asyncio.Future[Exit]], None]


class WarmChildren:
    """All warm children that have no job; bounded in number, memory and time."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._resting: OrderedDict[Child, Resting] = OrderedDict()  # the longest unused first
        self._by_kind: dict[Kind, list[Child]] = {}
        self._clearing: dict[asyncio.Task[None], Kind] = {}
        self._why: OrderedDict[Kind, str] = OrderedDict()
        self._closed = False

    def __len__(self) -> int:
        return len(self._resting)

    async def take(self, kind: Kind) -> Pair | None:
        """Return a child that is ready for a job of this kind and now yours, the last one used, or None."""
        if kind not in self._by_kind and (clearing := [task for task, its in self._clearing.items() if its == kind]):
            await asyncio.wait(clearing, timeout=_PATIENCE.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
        while kind in self._by_kind:
            pair = self._remove(self._by_kind[kind][-1]).pair
            if not pair.child.gone:
                return pair
            pair.child.close()
        return None

    def why_not(self, kind: Kind) -> str | None:
        """Return, once, why the child of an earlier job is not there any more; None when nothing is known."""
        return self._why.pop(kind, None)

    def keep(self, kind: Kind, pair: Pair) -> None:
        """Wait until the child has cleared up, then let it wait for its next job; or end it."""
        task = asyncio.create_task(self._keep(kind, pair))
        self._clearing[task] = kind
        task.add_done_callback(self._clearing.pop)

    async def close(self) -> None:
        """End them all."""
        self._closed = True
        for child in tuple(self._resting):
            self._retire(child, "the worker ends")
        await self.settle()

    async def settle(self) -> None:
        """Return when those that clear up now have done so."""
        await asyncio.gather(*self._clearing)

    async def _keep(self, kind: Kind, pair: Pair) -> None:
        try:
            resident_kb = await pair.child.clean()
        except SpentError as spent:
            self._why[kind] = str(spent)
            self._why.move_to_end(kind)
            if len(self._why) > _REASONS_KEPT:
                self._why.popitem(last=False)
            log.info("a warm child is spent", extra={"workspace": kind.zygote.workspace, "reason": str(spent)})
            pair.child.close()
            return
        resident_kb = min(max(resident_kb, 0), kind.limits.memory_bytes >> 10)  # nobody vouches for what it says
        if self._closed or pair.child.gone:
            pair.child.close()
            return
        child, idle = pair.child, self._settings.warm_idle.total_seconds()
        goes = asyncio.get_running_loop().call_later(idle, self._retire, child, "it was not needed")
        resting = Resting(kind, pair, resident_kb, goes, lambda _: self._retire(child, "it ended"))
        child.ended.add_done_callback(resting.on_end)
        self._resting[child] = resting
        self._by_kind.setdefault(kind, []).append(child)
        while len(self._resting) > self._settings.warm_children:
            self._retire(next(iter(self._resting)), "there are too many")
        while self._held_kb() * 1024 > self._settings.warm_memory_bytes:
            self._retire(next(iter(self._resting)), "they hold too much memory")

    def _retire(self, child: Child, reason: str) -> None:
        if child not in self._resting:  # it has a job, or has gone
            return
        resting = self._remove(child)
        log.info("a warm child was retired", extra={"workspace": resting.kind.zygote.workspace, "reason": reason})
        child.close()

    def _remove(self, child: Child) -> Resting:
        resting = self._resting.pop(child)
        resting.goes.cancel()
        child.ended.remove_done_callback(resting.on_end)
        alike = self._by_kind[resting.kind]
        alike.remove(child)
        if not alike:
            del self._by_kind[resting.kind]
        return resting

    def _held_kb(self) -> int:
        return sum(resting.resident_kb for resting in self._resting.values())
