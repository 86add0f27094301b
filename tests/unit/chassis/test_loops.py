"""The skeleton of loops: rhythm, waking, and what a neighbour's outage does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.health import Health
from tidemill.chassis.loops import Loop, Turn, Waker, run

FOR_EVER = timedelta(days=1)


@asynccontextmanager
async def turning(loop: Loop, health: Health, waker: Waker | None = None) -> AsyncIterator[None]:
    task = asyncio.create_task(run(loop, health, waker))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_loop_that_is_woken_turns_before_its_time() -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()

    async def turn() -> Turn:
        turns.put_nowait(None)
        return Turn()

    waker = Waker()
    async with turning(Loop(name="x", every=FOR_EVER, turn=turn), Health(), waker):
        await asyncio.wait_for(turns.get(), 5)
        waker.wake()
        await asyncio.wait_for(turns.get(), 5)


async def test_a_turn_may_ask_for_the_next_one_earlier() -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()

    async def turn() -> Turn:
        turns.put_nowait(None)
        return Turn(next_in=timedelta(0))

    async with turning(Loop(name="x", every=FOR_EVER, turn=turn), Health()):
        for _ in range(3):
            await asyncio.wait_for(turns.get(), 5)


async def test_an_outage_or_a_bug_does_not_end_a_loop() -> None:
    failures = [DatabaseUnavailable("away"), RuntimeError("a bug")]
    done = asyncio.Event()

    async def turn() -> Turn:
        if failures:
            raise failures.pop()
        done.set()
        return Turn()

    async with turning(Loop(name="x", every=FOR_EVER, turn=turn), Health()):
        await asyncio.wait_for(done.wait(), 5)


async def test_health_tells_of_a_loop_that_makes_no_progress_and_forgets_one_that_has_ended() -> None:
    now = [0.0]
    health = Health(clock=lambda: now[0])
    stuck, in_turn = asyncio.Event(), asyncio.Event()

    async def turn() -> Turn:
        in_turn.set()
        await stuck.wait()
        return Turn()

    loop = Loop(name="x", every=FOR_EVER, turn=turn, patience=timedelta(seconds=10))
    async with turning(loop, health):
        await in_turn.wait()
        assert [each.well for each in health.liveness()] == [True]
        now[0] = 11
        assert [each.well for each in health.liveness()] == [False]
    assert list(health.liveness()) == []
