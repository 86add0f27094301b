"""Cancelling: what waits ends at once, what runs is asked, and force does not ask."""

import asyncio
import json
import uuid
from typing import Any

import pytest

from tests.support.queue import Queue, a_job, an_audit_event


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        ("queued", {}),
        ("scheduled", {"due_in_ms": 60_000}),
        ("blocked", {"limit_key": "k", "limit_ceiling": 0}),
    ],
)
@pytest.mark.parametrize("force", [False, True])
async def test_a_job_that_waits_ends_at_once(queue: Queue, state: str, asked: dict[str, Any], force: bool) -> None:
    job = await queue.request(a_job(reply_to="replica", **asked))
    assert await queue.state_of(job) == state
    canceled = await queue.cancel(job, force=force)
    assert (canceled.answer, canceled.worker_run, canceled.reply_to) == ("canceled", None, "replica")
    row = await queue.job(job)
    assert (row["state"], row["canceled_by"], row["canceled_reason"]) == ("canceled", "bob", "because")
    assert "Job canceled by bob: because" in row["result"]
    assert await queue.claim() is None


async def test_a_job_that_runs_is_asked_to_stop(queue: Queue) -> None:
    claim = await queue.a_claim()
    canceled = await queue.cancel(claim.job_id)
    assert (canceled.answer, canceled.worker_run) == ("requested", queue.run)
    row = await queue.job(claim.job_id)
    assert (row["state"], row["canceled_by"]) == ("running", "bob")


async def test_force_takes_the_claim_away(queue: Queue) -> None:
    claim = await queue.a_claim()
    canceled = await queue.cancel(claim.job_id, force=True)
    assert (canceled.answer, canceled.worker_run) == ("canceled", queue.run)
    assert await queue.state_of(claim.job_id) == "canceled"
    assert not await queue.append_log(claim, 0, "late")


async def test_the_first_reason_stays(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id, reason="first")
    await queue.cancel(claim.job_id, reason="second", force=True)
    assert (await queue.job(claim.job_id))["canceled_reason"] == "first"


async def test_a_finished_job_stays_as_it_is(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.finish(claim)
    assert (await queue.cancel(claim.job_id, force=True)).answer == "finished"
    assert await queue.state_of(claim.job_id) == "success"


async def test_a_job_of_another_workspace_is_unknown(queue: Queue) -> None:
    job = await queue.request(a_job(workspace_id="theirs"))
    assert (await queue.cancel(job, workspace="mine")).answer == "unknown"
    assert (await queue.cancel(uuid.uuid4())).answer == "unknown"
    assert await queue.state_of(job) == "queued"


async def test_a_cancellation_is_told_together_with_it(queue: Queue) -> None:
    job = await queue.request(a_job())
    canceled = await queue.cancel(job, also=[an_audit_event("jobs.cancel")])
    assert [each["key"] for each in canceled.said] == ["audit.jobs.cancel"]
    again = await queue.cancel(job, also=[an_audit_event("jobs.cancel")])
    assert (again.answer, again.said) == ("finished", [])


async def test_of_an_end_and_a_cancellation_by_force_at_the_same_time_one_wins(queue: Queue) -> None:
    for _ in range(20):
        claim = await queue.a_claim()
        answer, canceled = await asyncio.gather(queue.finish(claim), queue.cancel(claim.job_id, force=True))
        assert (answer, canceled.answer, await queue.state_of(claim.job_id)) in {
            ("done", "finished", "success"),
            ("stale", "canceled", "canceled"),
        }


async def cancel_many(queue: Queue, jobs: list[uuid.UUID], *, force: bool = False) -> dict[uuid.UUID | None, str]:
    rows = await queue.api.fetch(
        "SELECT id, answer FROM queue.cancel_jobs('w', $1, 'bob', NULL, $2, $3)",
        jobs,
        force,
        json.dumps([an_audit_event("jobs.cancel")]),
    )
    return {row["id"]: row["answer"] for row in rows}


async def test_many_are_canceled_at_once_and_told_of_once(queue: Queue) -> None:
    claim = await queue.a_claim()
    ended = await queue.a_claim()
    await queue.finish(ended)
    waits, theirs = await queue.request(a_job()), await queue.request(a_job(workspace_id="theirs"))
    await queue.look.execute("DELETE FROM bus.outbox")
    answers = await cancel_many(queue, [waits, theirs, claim.job_id, ended.job_id, uuid.uuid4()])
    assert answers == {waits: "canceled", claim.job_id: "requested", None: "said"}
    assert [each["key"] for each in await queue.outbox()] == ["audit.jobs.cancel"]
    assert await queue.state_of(theirs) == "queued"


async def test_many_ends_at_the_same_time_wait_for_each_other_and_not_in_a_circle(queue: Queue) -> None:
    await queue.start_worker(slots=20)
    for _ in range(15):
        jobs = [await queue.request(a_job(limit_key=key, limit_ceiling=2)) for _ in range(4) for key in ("b", "a", "c")]
        claims = [await queue.claimed() for _ in range(6)]
        await asyncio.gather(
            cancel_many(queue, jobs, force=True),
            cancel_many(queue, jobs[::-1], force=True),
            *(queue.finish(each) for each in claims),
            *(queue.cancel(each, force=True) for each in jobs[::2]),
        )
        assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0
