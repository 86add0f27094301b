"""Beats: what a worker may keep, what it must stop, and what it never knew it had."""

import asyncio
import json
import uuid
from datetime import timedelta

import asyncpg
import pytest

from tests.support.queue import AT_ONCE, NO_SUCH_WORKER, Queue, a_job


async def test_what_is_held_is_kept(queue: Queue) -> None:
    claims = [await queue.a_claim(), await queue.a_claim()]
    assert await queue.renew(*claims, beat=AT_ONCE) == {claim.key: "keep" for claim in claims}


async def test_what_is_no_longer_ones_own_is_dropped(queue: Queue) -> None:
    lost, finished, never = await queue.a_claim(), await queue.a_claim(), await queue.a_claim(tag="bash")
    await queue.release(lost)
    await queue.finish(finished)
    other = await queue.start_worker("bash", run=uuid.uuid4())
    assert await queue.renew(lost, finished) == {lost.key: "drop", finished.key: "drop"}
    assert await queue.renew(never, run=other) == {never.key: "drop"}


async def test_what_is_being_canceled_is_to_be_stopped(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id, reason="too long")
    rows = await queue.worker.fetch("SELECT * FROM queue.renew($1, $2, '1 s', 0, false)", queue.run, [claim.key])
    assert [(row["verdict"], row["reason"]) for row in rows] == [("cancel", "too long")]


async def test_what_was_canceled_by_force_is_dropped(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id, force=True)
    assert await queue.renew(claim) == {claim.key: "drop"}


async def test_a_claim_whose_answer_was_lost_goes_back_without_being_counted_as_lost(
    queue: Queue,
) -> None:
    held, unknown = await queue.a_claim(), await queue.a_claim()
    assert await queue.renew(held, beat=AT_ONCE) == {held.key: "keep", None: "said"}
    live = await queue.live(unknown.job_id)
    assert (live["state"], live["lost_claims"]) == ("queued", 0)
    assert (await queue.claimed()).job_id == unknown.job_id


async def test_a_claim_whose_answer_may_still_be_on_its_way_is_left_alone(queue: Queue) -> None:
    unknown = await queue.a_claim()
    assert await queue.renew(beat=timedelta(hours=1)) == {}
    assert await queue.state_of(unknown.job_id) == "running"


async def test_a_job_that_comes_back_while_it_is_being_canceled_ends_there(queue: Queue) -> None:
    unknown = await queue.a_claim()
    await queue.cancel(unknown.job_id)
    await queue.renew(beat=AT_ONCE)
    assert await queue.state_of(unknown.job_id) == "canceled"


async def test_a_job_that_comes_back_gets_a_ticket(queue: Queue) -> None:
    unknown = await queue.a_claim()
    rows = await queue.worker.fetch("SELECT * FROM queue.renew($1, '{}', '0', 0, false)", queue.run)
    (said,) = json.loads(rows[0]["said"])
    assert json.loads(said["body"])["data"]["job_id"] == str(unknown.job_id)


async def test_a_beat_keeps_the_lease_of_everything_that_is_held(queue: Queue) -> None:
    claims = [await queue.a_claim() for _ in range(3)]
    await queue.look.execute("UPDATE queue.live_job SET claimed_at = claimed_at - interval '1 minute'")
    await queue.renew(*claims, beat=timedelta(hours=1))
    assert (await queue.tick(lease=timedelta(seconds=30))).requeued == 0


async def test_a_restarted_worker_is_another_worker(queue: Queue) -> None:
    claim = await queue.a_claim()
    restarted = await queue.start_worker(run=uuid.uuid4())
    assert await queue.renew(run=restarted, beat=AT_ONCE) == {}
    assert await queue.state_of(claim.job_id) == "running"
    assert (await queue.tick(lease=AT_ONCE)).requeued == 1


async def test_a_process_that_was_forgotten_has_to_announce_itself_again(queue: Queue) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.renew(run=uuid.uuid4())
    assert refused.value.sqlstate == NO_SUCH_WORKER


async def test_a_worker_can_be_seen_with_its_last_beat(queue: Queue) -> None:
    claim = await queue.a_claim()
    before = await queue.api.fetchrow("SELECT * FROM queue.known_worker")
    await queue.worker.execute("SELECT queue.renew($1, $2, '1 s', 17, true)", queue.run, [claim.key])
    after = await queue.api.fetchrow("SELECT * FROM queue.known_worker")
    assert before is not None
    assert after is not None
    assert after["beat_at"] > before["beat_at"]
    assert (after["jobs_executed"], after["draining"], after["tags"]) == (17, True, ["python3"])


async def test_announcing_oneself_says_so_and_repeating_it_is_harmless(queue: Queue) -> None:
    run = uuid.uuid4()
    await asyncio.gather(*(queue.start_worker("gpu", run=run) for _ in range(4)))
    said = await queue.outbox()
    assert {row["key"] for row in said} == {"worker.announced"}
    assert json.loads(said[0]["body"])["data"] == {"worker_run": str(run), "name": "worker", "tags": ["gpu"]}
    assert await queue.api.fetchval("SELECT count(*) FROM queue.known_worker WHERE worker_run = $1", run) == 1


async def test_a_worker_that_goes_in_good_order_is_forgotten_unless_it_still_holds_a_job(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.retire_worker()
    assert await queue.api.fetchval("SELECT count(*) FROM queue.known_worker") == 1
    await queue.finish(claim)
    await queue.retire_worker()
    assert await queue.api.fetchval("SELECT count(*) FROM queue.known_worker") == 0


async def test_workers_silent_for_a_day_are_forgotten_when_another_comes(queue: Queue) -> None:
    await queue.look.execute("UPDATE queue.worker SET beat_at = beat_at - interval '2 days'")
    other = await queue.start_worker(run=uuid.uuid4())
    assert [row[0] for row in await queue.api.fetch("SELECT worker_run FROM queue.known_worker")] == [other]


async def test_no_ticket_is_given_for_what_was_kept(queue: Queue) -> None:
    await queue.request(a_job())
    claim = await queue.claimed()
    before = await queue.outbox()
    await queue.renew(claim, beat=AT_ONCE)
    assert await queue.outbox() == before
