"""Claiming: the best job goes to one worker, and a repeated call changes nothing."""

import asyncio
import uuid
from datetime import timedelta

from tests.support.queue import Queue, a_job


async def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert await queue.claim() is None


async def test_a_claim_returns_all_that_the_worker_needs(queue: Queue) -> None:
    asked = a_job(
        hash="00ff00ff00ff00ff", timeout_s=30, envs=["A=1"], reply_to="replica", traceparent="00-t", tag="gpu"
    )
    await queue.request(asked, args={"x": 1})
    row = (await queue.claimed("gpu")).row
    same = (
        "id",
        "workspace_id",
        "kind",
        "path",
        "hash",
        "language",
        "tag",
        "envs",
        "timeout_s",
        "reply_to",
        "traceparent",
    )
    assert {name: row[name] for name in same} == {name: asked[name] for name in same}
    assert (row["args"], row["claims"], row["token"][:4]) == ('{"x": 1}', 1, "tmj_")


async def test_only_jobs_of_the_named_tags_are_claimed(queue: Queue) -> None:
    await queue.request(a_job(tag="gpu"))
    assert await queue.claim("python3", "bash") is None
    assert await queue.claim("bash", "gpu") is not None


async def test_a_job_is_claimed_by_one_worker(queue: Queue) -> None:
    for _ in range(3):
        await queue.request(a_job())
    claims = await asyncio.gather(*(queue.claim() for _ in range(8)))
    taken = [claim.job_id for claim in claims if claim]
    assert len(taken) == len(set(taken)) == 3


async def test_repeating_a_claim_returns_the_same_claim(queue: Queue) -> None:
    await queue.request(a_job())
    await queue.request(a_job())
    key = uuid.uuid4()
    first, second = await queue.claim(key=key), await queue.claim(key=key)
    assert first == second


async def test_a_claim_that_is_repeated_while_it_is_still_going_on_returns_the_same_claim(queue: Queue) -> None:
    for _ in range(8):
        await queue.request(a_job())
    key = uuid.uuid4()
    claims = await asyncio.gather(*(queue.claim(key=key) for _ in range(8)))
    assert len({claim.job_id for claim in claims if claim}) == 1
    assert None not in claims
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job WHERE state = 'running'") == 1


async def test_a_higher_priority_goes_first_and_within_it_the_older(queue: Queue) -> None:
    asked = [(0, "d"), (10, "b"), (-5, "e"), (10, "c"), (100, "a")]
    for priority, path in asked:
        await queue.request(a_job(priority=priority, path=path))
    assert [(await queue.claimed()).row["path"] for _ in asked] == ["a", "b", "c", "d", "e"]


async def test_priority_counts_across_tags(queue: Queue) -> None:
    await queue.request(a_job(tag="bash", path="second"))
    await queue.request(a_job(tag="gpu", path="first", priority=1))
    assert (await queue.claimed("bash", "gpu")).row["path"] == "first"
    assert (await queue.claimed("bash", "gpu")).row["path"] == "second"


async def test_looking_at_two_tags_keeps_nobody_from_the_tag_that_was_not_taken(queue: Queue) -> None:
    await queue.request(a_job(tag="bash"))
    await queue.request(a_job(tag="gpu"))
    async with queue.worker.acquire() as connection, connection.transaction():
        taken = await queue.claim("bash", "gpu", by=connection)
        assert taken is not None
        other = "gpu" if taken.row["tag"] == "bash" else "bash"
        assert await queue.claim(other) is not None


async def test_a_job_that_another_is_taking_is_passed_over(queue: Queue) -> None:
    first, second = await queue.request(a_job()), await queue.request(a_job())
    async with queue.worker.acquire() as connection, connection.transaction():
        claim = await queue.claim(by=connection)
        assert claim is not None
        assert claim.job_id == first
        assert (await queue.claimed()).job_id == second


async def test_each_claim_of_a_job_is_counted(queue: Queue) -> None:
    await queue.request(a_job())
    for number in (1, 2, 3):
        claim = await queue.claimed()
        assert claim.row["claims"] == number
        await queue.release(claim)


async def test_a_long_line_of_one_workspace_lets_the_others_pass(queue: Queue) -> None:
    for _ in range(30):
        await queue.request(a_job(workspace_id="busy"))
    await queue.request(a_job(workspace_id="quiet"))
    order = [(await queue.claimed()).row["workspace_id"] for _ in range(10)]
    assert "quiet" in order[:5]


async def test_two_long_lines_take_turns(queue: Queue) -> None:
    for workspace in ("one", "two"):
        for _ in range(30):
            await queue.request(a_job(workspace_id=workspace))
    order = [(await queue.claimed()).row["workspace_id"] for _ in range(30)]
    assert 10 <= order.count("one") <= 20


async def test_the_busy_are_not_starved_by_a_stream_of_quiet_ones(queue: Queue) -> None:
    for _ in range(3):
        await queue.request(a_job(workspace_id="busy"))
    # Their places are in the past, because a stream this long would take minutes.
    await queue.look.execute("UPDATE queue.live_job SET rank = rank - 1000")
    for number in range(5):
        await queue.request(a_job(workspace_id=f"quiet{number}"))
    assert [(await queue.claimed()).row["workspace_id"] for _ in range(3)] == ["busy"] * 3


async def test_within_a_workspace_the_line_is_first_come_first_served(queue: Queue) -> None:
    asked = [await queue.request(a_job()) for _ in range(20)]
    assert [(await queue.claimed()).job_id for _ in asked] == asked


async def test_a_job_that_comes_back_has_its_old_place(queue: Queue) -> None:
    asked = [await queue.request(a_job()) for _ in range(3)]
    claims = [await queue.claimed() for _ in range(2)]
    for claim in reversed(claims):
        await queue.release(claim)
    assert [(await queue.claimed()).job_id for _ in asked] == asked


async def test_a_job_is_claimed_even_by_a_process_that_was_never_announced_and_lost_with_it(queue: Queue) -> None:
    await queue.request(a_job())
    claim = await queue.claimed(run=uuid.uuid4())
    assert (await queue.tick(lease=timedelta(0))).requeued == 1
    assert await queue.state_of(claim.job_id) == "queued"
