"""One skeleton for everything that happens again and again: a turn does its work and says what it did.

Rhythm, jitter, spans, logs, the health beat and what happens when a neighbour is away belong here, so that a loop's own
file holds nothing but its turn.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta

import msgspec

from tidemill.chassis.backoff import delay
from tidemill.chassis.broker import BrokerUnavailable
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.health import Health
from tidemill.chassis.telemetry import Metric, observe

log = logging.getLogger(__name__)

_FIRST_PAUSE = timedelta(milliseconds=200)
_LONGEST_PAUSE = timedelta(seconds=5)


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one turn did, and when the next is wanted if earlier than the rhythm."""

    counts: Mapping[str, int] = msgspec.field(default_factory=dict)
    next_in: timedelta | None = None


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is done again and again by one process."""

    name: str
    every: timedelta
    turn: Callable[[], Awaitable[Turn]]
    patience: timedelta = timedelta(seconds=60)
    """For how long a turn, or an outage of a neighbour, may keep it from progress before /livez says so."""


class Waker:
    """Wakes one loop before its time."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Let the next turn begin now, or right after the present one."""
        self._event.set()

    async def wait(self, span: timedelta) -> None:
        """Return when woken or after the span."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), max(span.total_seconds(), 0))
        self._event.clear()


async def run(loop: Loop, health: Health, waker: Waker | None = None) -> None:
    """Turn for ever. An unreachable neighbour is logged once and tried again with a growing, jittered pause."""
    waker = waker or Waker()
    health.expect(loop.name, loop.patience)
    try:
        await _turn_for_ever(loop, health, waker)
    finally:
        health.forget(loop.name)


async def _turn_for_ever(loop: Loop, health: Health, waker: Waker) -> None:
    rng = random.Random()  # noqa: S311 - jitter, not a secret
    failures = 0
    while True:
        began = time.monotonic()
        try:
            turn = await loop.turn()
        except (DatabaseUnavailable, BrokerUnavailable) as error:
            failures += 1
            if failures == 1:
                log.warning("loop waits for a neighbour", extra={"loop": loop.name, "error": str(error)})
            # An outage of a neighbour is no reason to be restarted: the loop itself goes on.
            health.beat(loop.name)
            await waker.wait(delay(failures, _FIRST_PAUSE, _LONGEST_PAUSE, rng))
            continue
        except Exception:
            failures += 1
            log.exception("loop turn failed", extra={"loop": loop.name})
            await waker.wait(delay(failures, _FIRST_PAUSE, _LONGEST_PAUSE, rng))
            continue
        observe(Metric.LOOP_TURN, timedelta(seconds=time.monotonic() - began), loop=loop.name)
        if failures:
            log.info("loop goes on", extra={"loop": loop.name, "failures": failures})
            failures = 0
        health.beat(loop.name)
        if any(turn.counts.values()):
            log.debug("loop turned", extra={"loop": loop.name, **turn.counts})
        pause = loop.every * rng.uniform(0.95, 1.05)
        await waker.wait(pause if turn.next_in is None else min(pause, turn.next_in))
