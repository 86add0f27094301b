"""Concurrency limits: never more holders of a key than its ceiling, and no waiter is forgotten."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from tests.support.queue import AT_ONCE, Claim, Queue, Request, a_job


def limited(ceiling: int = 1, key: str = "k", **changes: Any) -> Request:
    return a_job(limit_key=key, limit_ceiling=ceiling, **changes)


async def test_who_comes_after_the_ceiling_is_blocked_without_a_ticket(queue: Queue) -> None:
    assert (await queue.ask(limited(2)))[0] == "queued"
    assert (await queue.ask(limited(2)))[0] == "queued"
    assert await queue.ask(limited(2)) == ("blocked", [])
    assert (await queue.ask(limited(2, key="other")))[0] == "queued"


async def test_a_ceiling_of_nothing_lets_nobody_run(queue: Queue) -> None:
    assert (await queue.ask(limited(0)))[0] == "blocked"


async def test_a_freed_slot_goes_to_the_first_who_waits_in_the_same_transaction(queue: Queue) -> None:
    await queue.request(limited())
    second, third = await queue.request(limited()), await queue.request(limited())
    answer, said = await queue.finish_and_hear(await queue.claimed())
    assert (answer, [each["key"] for each in said]) == ("done", ["python3"])
    assert [await queue.state_of(each) for each in (second, third)] == ["queued", "blocked"]


async def test_who_waits_with_a_higher_priority_is_first(queue: Queue) -> None:
    await queue.request(limited())
    low, high = await queue.request(limited()), await queue.request(limited(priority=5))
    await queue.finish(await queue.claimed())
    assert [await queue.state_of(each) for each in (low, high)] == ["blocked", "queued"]


async def test_who_waited_longer_is_first_even_when_the_other_was_asked_for_earlier(queue: Queue) -> None:
    await queue.request(limited())
    later = await queue.request(limited(due_in_ms=3_600_000))
    waiting = await queue.request(limited())
    await queue.look.execute("UPDATE queue.live_job SET due_at = now() WHERE id = $1", later)
    await queue.tick()
    await queue.finish(await queue.claimed())
    assert [await queue.state_of(each) for each in (waiting, later)] == ["queued", "blocked"]


async def canceled_while_queued(queue: Queue, claim: Claim) -> None:
    await queue.release(claim)
    await queue.cancel(claim.job_id)


async def lost_for_good(queue: Queue, claim: Claim) -> None:
    await queue.look.execute("UPDATE queue.live_job SET lost_claims = 2 WHERE id = $1", claim.job_id)
    await queue.tick(lease=AT_ONCE)


async def canceled_and_lost(queue: Queue, claim: Claim) -> None:
    await queue.cancel(claim.job_id)
    await queue.tick(lease=AT_ONCE)


async def canceled_and_released(queue: Queue, claim: Claim) -> None:
    await queue.cancel(claim.job_id)
    await queue.release(claim)


ENDS: Sequence[Callable[[Queue, Claim], Awaitable[Any]]] = (
    lambda queue, claim: queue.finish(claim),
    lambda queue, claim: queue.cancel(claim.job_id, force=True),
    canceled_while_queued,
    lost_for_good,
    canceled_and_lost,
    canceled_and_released,
)


@pytest.mark.parametrize("end", ENDS)
async def test_every_way_to_end_frees_the_slot(queue: Queue, end: Callable[[Queue, Claim], Awaitable[Any]]) -> None:
    await queue.request(limited())
    waiting = await queue.request(limited())
    await end(queue, await queue.claimed())
    assert await queue.state_of(waiting) == "queued"
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job WHERE holds_limit") == 1


async def test_a_job_that_comes_back_keeps_its_slot(queue: Queue) -> None:
    await queue.request(limited())
    waiting = await queue.request(limited())
    await queue.release(await queue.claimed())
    await queue.claimed()
    await queue.tick(lease=AT_ONCE)
    assert await queue.state_of(waiting) == "blocked"
    assert (await queue.claimed()).job_id != waiting


async def test_a_scheduled_job_takes_its_slot_when_its_time_has_come(queue: Queue) -> None:
    job = await queue.request(limited(due_in_ms=3_600_000))
    first = await queue.request(limited())
    assert await queue.state_of(first) == "queued"
    await queue.look.execute("UPDATE queue.live_job SET due_at = now() WHERE id = $1", job)
    await queue.tick()
    assert await queue.state_of(job) == "blocked"


async def test_a_higher_ceiling_of_a_newer_version_lets_more_in(queue: Queue) -> None:
    await queue.request(limited(1))
    assert (await queue.ask(limited(2)))[0] == "queued"
    assert (await queue.ask(limited(1)))[0] == "blocked"


@pytest.mark.parametrize("ceiling", [1, 2])
async def test_of_many_who_ask_at_once_no_more_than_the_ceiling_get_in(queue: Queue, ceiling: int) -> None:
    states = [state for state, _ in await asyncio.gather(*(queue.ask(limited(ceiling)) for _ in range(16)))]
    assert sorted(states) == ["blocked"] * (16 - ceiling) + ["queued"] * ceiling


async def test_a_slot_freed_while_others_ask_for_it_goes_to_exactly_one(queue: Queue) -> None:
    for _ in range(15):
        await queue.empty()
        claim = await queue.a_claim(limit_key="k", limit_ceiling=1)
        states = await asyncio.gather(queue.ask(limited()), queue.finish(claim), queue.ask(limited()))
        assert states[1] == "done"
        count = "SELECT count(*) FROM queue.live_job WHERE state = $1"
        assert [await queue.look.fetchval(count, state) for state in ("queued", "blocked")] == [1, 1]


async def test_a_waiter_that_was_locked_when_the_slot_was_freed_is_found_by_the_next_tick(queue: Queue) -> None:
    claim = await queue.a_claim(limit_key="k", limit_ceiling=1)
    waiting = await queue.request(limited())
    async with queue.look.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM queue.live_job WHERE id = $1 FOR UPDATE", waiting)
        assert await queue.finish(claim) == "done"
    assert await queue.state_of(waiting) == "blocked"
    assert [each["key"] for each in (await queue.tick()).said] == ["python3"]
    assert await queue.state_of(waiting) == "queued"


async def test_a_tick_does_not_wait_for_a_limit_that_somebody_else_is_changing(queue: Queue) -> None:
    await queue.request(limited())
    waiting = await queue.request(limited())
    await queue.look.execute("DELETE FROM queue.live_job WHERE holds_limit")
    async with queue.look.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM queue.limit_key FOR UPDATE")
        await asyncio.wait_for(queue.tick(), 10)
        assert await queue.state_of(waiting) == "blocked"
    await queue.tick()
    assert await queue.state_of(waiting) == "queued"


async def test_a_tick_takes_the_limits_of_due_jobs_in_the_order_in_which_everybody_takes_them(queue: Queue) -> None:
    for key in ("b", "a"):
        await queue.request(limited(key=key, due_in_ms=3_600_000))
        await queue.look.execute("INSERT INTO queue.limit_key VALUES ($1)", key)
    await queue.look.execute("UPDATE queue.live_job SET due_at = now()")
    async with queue.look.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM queue.limit_key WHERE key = 'a' FOR UPDATE")
        tick = asyncio.create_task(queue.tick())
        await queue.until_somebody_waits()
        # Had the tick taken `b` before `a`, the two would now wait for each other.
        await connection.execute("SELECT FROM queue.limit_key WHERE key = 'b' FOR UPDATE")
    assert (await tick).dispatched == 2


async def test_a_tick_that_gives_up_holders_of_many_limits_waits_for_none_of_them(queue: Queue) -> None:
    for key in ("b", "a"):
        claim = await queue.a_claim(limit_key=key, limit_ceiling=1)
        await queue.cancel(claim.job_id)
        await queue.request(limited(key=key))
    async with queue.look.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM queue.limit_key WHERE key = 'a' FOR UPDATE")
        tick = await asyncio.wait_for(queue.tick(lease=AT_ONCE), 10)
        assert (len(tick.ended), len(tick.said)) == (2, 1)
    assert len((await queue.tick()).said) == 1


async def test_ends_and_cancellations_of_many_limits_at_once_hand_on_every_slot(queue: Queue) -> None:
    keys = [f"k{number}" for number in range(6)]
    claims: list[Claim] = []
    for key in keys:
        claims.append(await queue.a_claim(limit_key=key, limit_ceiling=1))
        for _ in range(2):
            await queue.request(limited(key=key))
    await asyncio.gather(
        *(queue.finish(claim) for claim in claims),
        *(queue.cancel(claim.job_id, force=True) for claim in reversed(claims)),
        *(queue.tick() for _ in range(3)),
    )
    count = "SELECT count(*) FROM queue.live_job WHERE state = $1"
    assert [await queue.look.fetchval(count, state) for state in ("queued", "blocked")] == [6, 6]
