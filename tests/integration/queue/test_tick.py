"""The scheduler's one look: what is due, who is lost, what was never published, which tickets may be lost."""

import asyncio
import json
import uuid
from datetime import timedelta

import asyncpg
import pytest

from tests.support.queue import AT_ONCE, NEVER, Queue, a_job, an_audit_event


async def test_a_quiet_queue_has_nothing_to_tell(queue: Queue) -> None:
    tick = await queue.tick()
    assert (tick.said, tick.stranded, tick.ended, tick.stale_tags) == ([], [], [], [])
    assert (tick.dispatched, tick.requeued, tick.failed, tick.next_due_in) == (0, 0, 0, None)


async def test_what_is_due_gets_a_place_and_a_ticket(queue: Queue) -> None:
    due, later = await queue.request(a_job(due_in_ms=1)), await queue.request(a_job(due_in_ms=60_000))
    await queue.look.execute("SELECT pg_sleep(0.002)")
    tick = await queue.tick()
    assert tick.dispatched == 1
    assert [json.loads(each["body"])["data"]["job_id"] for each in tick.said] == [str(due)]
    assert [await queue.state_of(each) for each in (due, later)] == ["queued", "scheduled"]


async def test_a_tick_tells_when_the_next_job_is_due(queue: Queue) -> None:
    for seconds in (60, 30, 90):
        await queue.request(a_job(due_in_ms=seconds * 1000))
    next_due_in = (await queue.tick()).next_due_in
    assert next_due_in is not None
    assert timedelta(seconds=25) < next_due_in <= timedelta(seconds=30)


async def test_what_is_due_first_is_dispatched_first_when_not_all_fit(queue: Queue) -> None:
    jobs = [await queue.request(a_job(due_in_ms=60_000 - 1000 * number)) for number in range(5)]
    await queue.look.execute("UPDATE queue.live_job SET due_at = due_at - interval '1 hour'")
    tick = await queue.tick(limit=3)
    assert tick.dispatched == 3
    assert tick.next_due_in is not None
    assert tick.next_due_in < timedelta(0)
    assert [await queue.state_of(job) for job in jobs] == ["scheduled"] * 2 + ["queued"] * 3


async def test_two_schedulers_dispatch_each_job_once(queue: Queue) -> None:
    for _ in range(40):
        await queue.request(a_job(due_in_ms=3_600_000))
    await queue.look.execute("UPDATE queue.live_job SET due_at = now()")
    ticks = await asyncio.gather(*(queue.tick() for _ in range(4)))
    assert sum(tick.dispatched for tick in ticks) == 40
    tickets = [json.loads(each["body"])["data"]["job_id"] for tick in ticks for each in tick.said]
    assert len(tickets) == len(set(tickets)) == 40


async def test_a_job_whose_worker_fell_silent_is_queued_again(queue: Queue) -> None:
    claim = await queue.a_claim()
    tick = await queue.tick(lease=AT_ONCE)
    assert (tick.requeued, tick.failed, tick.ended) == (1, 0, [])
    assert [each["key"] for each in tick.said] == ["python3"]
    live = await queue.live(claim.job_id)
    assert (live["state"], live["lost_claims"], live["worker_run"]) == ("queued", 1, None)


async def test_a_worker_that_was_heard_within_its_lease_keeps_its_jobs(queue: Queue) -> None:
    await queue.a_claim()
    assert (await queue.tick(lease=timedelta(seconds=30))).requeued == 0


async def test_a_job_claimed_just_now_by_a_process_that_has_not_beaten_for_long_is_left_alone(queue: Queue) -> None:
    await queue.look.execute("UPDATE queue.worker SET beat_at = beat_at - interval '1 hour'")
    await queue.a_claim()
    assert (await queue.tick(lease=timedelta(seconds=30))).requeued == 0


async def test_nobody_is_given_up_by_a_scheduler_that_has_only_just_connected(queue: Queue) -> None:
    await queue.a_claim()
    lease, beat = timedelta(milliseconds=1), timedelta(milliseconds=1)
    assert (await queue.tick(connected_for=lease + beat, lease=lease, beat=beat)).requeued == 0
    assert (await queue.tick(connected_for=lease + beat * 1.1, lease=lease, beat=beat)).requeued == 1


async def test_nobody_is_given_up_by_a_server_that_has_only_just_started(queue: Queue) -> None:
    await queue.a_claim()
    await queue.look.execute("UPDATE queue.live_job SET claimed_at = claimed_at - interval '10 days'")
    await queue.look.execute("UPDATE queue.worker SET beat_at = beat_at - interval '10 days'")
    assert (await queue.tick(connected_for=timedelta(days=9), lease=timedelta(days=1))).requeued == 0


async def test_a_job_that_lost_its_worker_three_times_fails(queue: Queue) -> None:
    job = await queue.request(a_job(reply_to="replica"))
    for _ in range(2):
        await queue.claimed()
        assert (await queue.tick(lease=AT_ONCE)).requeued == 1
    await queue.claimed()
    tick = await queue.tick(lease=AT_ONCE)
    assert (tick.requeued, tick.failed) == (0, 1)
    assert tick.ended == [{"job_id": str(job), "reply_to": "replica"}]
    row = await queue.job(job)
    assert (row["state"], row["claims"]) == ("failure", 3)
    assert json.loads(row["result"])["error"] == {
        "name": "WorkerLost",
        "message": "The worker was lost during each of 3 runs of this job.",
    }


async def test_drains_do_not_count_as_losses(queue: Queue) -> None:
    await queue.request(a_job())
    for _ in range(5):
        await queue.release(await queue.claimed())
    await queue.claimed()
    assert (await queue.tick(lease=AT_ONCE)).failed == 0


async def test_a_job_that_was_to_stop_and_lost_its_worker_is_canceled(queue: Queue) -> None:
    claim = await queue.a_claim(reply_to="replica")
    await queue.cancel(claim.job_id)
    tick = await queue.tick(lease=AT_ONCE)
    assert (tick.requeued, tick.failed) == (0, 0)
    assert tick.ended == [{"job_id": str(claim.job_id), "reply_to": "replica"}]
    assert await queue.state_of(claim.job_id) == "canceled"


async def test_a_message_that_was_never_published_is_found_and_taken_for_a_while(queue: Queue) -> None:
    await queue.request(a_job())
    assert (await queue.tick()).stranded == []
    await queue.look.execute("UPDATE bus.outbox SET said_at = said_at - interval '2 seconds'")
    found = [each for tick in await asyncio.gather(*(queue.tick() for _ in range(3))) for each in tick.stranded]
    assert [each["key"] for each in found] == ["python3"]
    assert set(found[0]) == {"id", "exchange", "key", "message_id", "body", "traceparent"}
    await queue.look.execute("UPDATE bus.outbox SET taken_until = now() - interval '1 second'")
    assert len((await queue.tick()).stranded) == 1


async def test_what_the_broker_has_confirmed_is_forgotten_by_who_said_it_or_by_the_scheduler(queue: Queue) -> None:
    await queue.request(a_job(), also=[an_audit_event()])
    first, second = [row["id"] for row in await queue.outbox()]
    await queue.worker.execute("SELECT bus.forget($1)", [first, second])
    assert len(await queue.outbox()) == 2
    await queue.api.execute("SELECT bus.forget($1)", [first])
    await queue.scheduler.execute("SELECT bus.forget($1)", [second])
    assert await queue.outbox() == []


async def test_nobody_says_what_the_catalog_gives_to_others(queue: Queue) -> None:
    said = json.dumps([{"type": "worker.announced.v1", "key": "worker.announced", "data": {}}])
    for pool in (queue.api, queue.scheduler):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute("SELECT bus.say_all($1, NULL)", said)
    await queue.worker.execute("SELECT bus.say_all($1, NULL)", said)


async def test_a_tag_whose_first_ticket_is_old_is_named_until_it_gets_a_new_one(queue: Queue) -> None:
    await queue.request(a_job(tag="bash"))
    await queue.request(a_job(tag="gpu"))
    assert (await queue.tick()).stale_tags == []
    await queue.look.execute("UPDATE queue.live_job SET hinted_at = hinted_at - interval '6 s' WHERE tag = 'gpu'")
    assert (await queue.tick()).stale_tags == ["gpu"]
    await queue.rehint("gpu")
    assert (await queue.tick()).stale_tags == []


async def test_the_pause_between_two_tickets_doubles_up_to_five_minutes(queue: Queue) -> None:
    await queue.request(a_job())
    pauses = []
    for _ in range(8):
        low, high = 1, 1000
        while low < high:
            middle = (low + high) // 2
            await queue.look.execute(
                "UPDATE queue.live_job SET hinted_at = clock_timestamp() - $1 * interval '1 s'", middle
            )
            low, high = (low, middle) if (await queue.tick()).stale_tags else (middle + 1, high)
        pauses.append(low)
        await queue.rehint("python3")
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]


async def test_new_tickets_are_written_for_as_many_rows_as_have_none_first_in_line_first(queue: Queue) -> None:
    jobs = [await queue.request(a_job()) for _ in range(5)]
    await queue.request(a_job(tag="bash"))
    said = await queue.rehint("python3", ready=3)
    assert [json.loads(each["body"])["data"]["job_id"] for each in said] == [str(job) for job in jobs[:2]]
    assert len(await queue.rehint("python3", ready=0, limit=3)) == 3
    assert await queue.rehint("python3", ready=5) == []
    assert await queue.rehint("python3", ready=50) == []
    assert await queue.rehint("nobody") == []


async def test_a_tag_whose_tickets_are_all_there_is_not_named_again_at_once(queue: Queue) -> None:
    await queue.request(a_job())
    await queue.look.execute("UPDATE queue.live_job SET hinted_at = hinted_at - interval '6 s'")
    await queue.rehint("python3", ready=1)
    assert (await queue.tick()).stale_tags == []


async def test_the_backlog_tells_how_much_waits_and_for_how_long(queue: Queue) -> None:
    for tag in ("bash", "gpu", "gpu"):
        await queue.request(a_job(tag=tag))
    await queue.look.execute("UPDATE queue.live_job SET due_at = due_at - interval '1 minute' WHERE tag = 'bash'")
    for pool in (queue.scheduler, queue.api):
        rows = {row["tag"]: row for row in await pool.fetch("SELECT * FROM queue.backlog")}
        assert {tag: row["waiting"] for tag, row in rows.items()} == {"bash": 1, "gpu": 2}
        assert rows["gpu"]["oldest"] < timedelta(minutes=1) <= rows["bash"]["oldest"]


async def test_a_tick_of_a_busy_queue_changes_nothing_that_runs_well(queue: Queue) -> None:
    claims = [await queue.a_claim() for _ in range(5)]
    await queue.tick(lease=NEVER)
    assert await queue.renew(*claims) == {claim.key: "keep" for claim in claims}
    assert await queue.state_of(uuid.uuid4()) is None
