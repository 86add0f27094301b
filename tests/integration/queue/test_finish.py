"""The end of a run: said once, by the one who holds the claim; and what it printed until then."""

import asyncio
import uuid

import asyncpg
import pytest

from tests.support.queue import AT_ONCE, BAD_TRANSITION, Claim, Queue, a_job


async def test_an_end_is_stored_with_all_that_the_worker_says(queue: Queue) -> None:
    claim = await queue.a_claim()
    assert await queue.finish(claim, "failure", {"error": {}}, memory_peak_kb=9, labels=["a"]) == "done"
    row = await queue.job(claim.job_id)
    said = ("state", "outcome", "result", "worker", "memory_peak_kb", "labels", "claims")
    assert [row[name] for name in said] == ["failure", "failure", '{"error": {}}', "worker", 9, ["a"], 1]
    assert row["created_at"] <= row["started_at"] <= row["finished_at"]
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0


async def test_saying_it_again_is_harmless(queue: Queue) -> None:
    claim = await queue.a_claim()
    answers = await asyncio.gather(*(queue.finish(claim, result=number) for number in range(6)))
    assert sorted(answers) == ["already_done"] * 5 + ["done"]


async def test_a_run_that_was_lost_cannot_say_how_the_job_ended(queue: Queue) -> None:
    lost = await queue.a_claim()
    await queue.tick(lease=AT_ONCE)
    assert await queue.finish(lost, result="late") == "stale"
    current = await queue.claimed()
    assert await queue.finish(lost, result="late") == "stale"
    assert await queue.finish(current, result="right") == "done"
    assert await queue.finish(lost, result="late") == "stale"
    assert (await queue.job(current.job_id))["result"] == '"right"'


async def test_a_run_whose_job_was_ended_for_it_is_told_that_its_end_was_not_stored(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id, force=True)
    assert await queue.finish(claim) == "stale"
    assert await queue.state_of(claim.job_id) == "canceled"


async def test_a_run_whose_job_was_given_up_is_told_that_its_end_was_not_stored(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.look.execute("UPDATE queue.live_job SET lost_claims = 2")
    await queue.tick(lease=AT_ONCE)
    assert await queue.state_of(claim.job_id) == "failure"
    assert await queue.finish(claim) == "stale"


async def test_nobody_finishes_a_job_that_does_not_exist(queue: Queue) -> None:
    claim = await queue.a_claim()
    assert await queue.finish(Claim(uuid.uuid4(), claim.key, claim.run, claim.row)) == "unknown"


async def test_a_queued_job_cannot_be_finished(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.release(claim)
    assert await queue.finish(claim) == "stale"
    assert await queue.state_of(claim.job_id) == "queued"


@pytest.mark.parametrize("outcome", ["queued", "suspended", "running", "skipped", "fine"])
async def test_a_run_ends_in_one_of_the_ways_that_runs_end(queue: Queue, outcome: str) -> None:
    claim = await queue.a_claim()
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.finish(claim, outcome)
    assert refused.value.sqlstate == BAD_TRANSITION
    assert await queue.state_of(claim.job_id) == "running"


async def test_the_result_comes_back_letter_by_letter(queue: Queue) -> None:
    claim = await queue.a_claim()
    text = '{"a":1.0,  "a": 1e5}'
    await queue.worker.execute(
        "SELECT queue.finish_job($1, $2, $3, $4)", claim.job_id, claim.key, '{"outcome": "success"}', text
    )
    assert (await queue.job(claim.job_id))["result"] == text


async def test_a_run_that_was_asked_to_stop_ends_with_the_one_who_asked(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id, reason="enough")
    await queue.worker.execute(
        "SELECT queue.finish_job($1, $2, $3, NULL)", claim.job_id, claim.key, '{"outcome": "canceled"}'
    )
    row = await queue.job(claim.job_id)
    assert (row["state"], row["canceled_by"], row["canceled_reason"]) == ("canceled", "bob", "enough")
    assert "Job canceled by bob: enough" in row["result"]


async def test_a_log_is_kept_in_order_and_a_repeated_chunk_is_stored_once(queue: Queue) -> None:
    claim = await queue.a_claim()
    for seq, text in ((0, "a"), (1, "b"), (1, "b"), (0, "a"), (2, "c")):
        assert await queue.append_log(claim, seq, text)
    assert await log_of(queue, claim.job_id) == "abc"


async def test_the_last_chunk_may_come_with_the_end(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.append_log(claim, 0, "first ")
    await queue.finish(claim, log_seq=1, log_text="last", log_units=4)
    assert await log_of(queue, claim.job_id) == "first last"


async def test_nothing_is_added_to_the_log_of_a_run_that_is_over(queue: Queue) -> None:
    lost = await queue.a_claim()
    await queue.append_log(lost, 0, "lost ")
    await queue.release(lost)
    assert not await queue.append_log(lost, 1, "late")
    current = await queue.claimed()
    assert not await queue.append_log(lost, 1, "late")
    assert await queue.append_log(current, 0, "found")
    await queue.finish(current)
    assert not await queue.append_log(current, 1, "late")
    assert await log_of(queue, current.job_id) == "lost found"


async def test_a_job_given_back_is_queued_with_a_ticket_and_counts_against_nothing(queue: Queue) -> None:
    claim = await queue.a_claim()
    assert [each["key"] for each in await queue.release(claim)] == ["python3"]
    live = await queue.live(claim.job_id)
    assert (live["state"], live["lost_claims"], live["claim_key"]) == ("queued", 0, None)


async def test_giving_back_twice_is_harmless(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.release(claim)
    again = await queue.claimed()
    assert await queue.release(claim) == []
    assert await queue.state_of(again.job_id) == "running"


async def test_a_job_given_back_while_it_is_being_canceled_ends_there(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id)
    await queue.release(claim)
    assert await queue.state_of(claim.job_id) == "canceled"
    assert await queue.claim() is None


async def test_a_plain_end_says_nothing(queue: Queue) -> None:
    await queue.request(a_job())
    assert await queue.finish_and_hear(await queue.claimed()) == ("done", [])


async def log_of(queue: Queue, job: uuid.UUID) -> str:
    rows = await queue.api.fetch("SELECT text FROM queue.job_log WHERE job_id = $1 ORDER BY claim_no, seq", job)
    return "".join(row["text"] for row in rows)
