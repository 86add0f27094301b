"""Why is this job not running? Every state has an answer."""

import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.queue import Queue, a_job


async def test_a_job_for_later_waits_for_its_time(queue: Queue) -> None:
    job = await queue.request(a_job(due_at="2050-01-02T03:04:05Z"))
    assert await why(queue, job) == "It waits for its time, 2050-01-02 03:04:05 UTC."


async def test_a_blocked_job_waits_for_its_limit(queue: Queue) -> None:
    job = await queue.request(a_job(limit_key="k", limit_ceiling=0))
    assert await why(queue, job) == "It waits for a slot of the concurrency limit 'k', which allows 0 at a time."


async def test_a_job_that_nobody_can_run_says_which_tag_is_not_served(queue: Queue) -> None:
    job = await queue.request(a_job(tag="gpu"))
    assert await why(queue, job) == "No worker serves the tag 'gpu'."


@pytest.mark.parametrize("change", ["draining = true", "beat_at = beat_at - interval '1 minute'"])
async def test_a_worker_that_is_going_or_silent_serves_nothing(queue: Queue, change: str) -> None:
    job = await queue.request(a_job())
    await queue.look.execute(f"UPDATE queue.worker SET {change}")
    assert await why(queue, job) == "No worker serves the tag 'python3'."


async def test_a_job_behind_busy_workers_knows_its_place(queue: Queue) -> None:
    for _ in range(2):
        await queue.a_claim()
    await queue.request(a_job())
    job = await queue.request(a_job())
    assert await why(queue, job) == (
        "All 2 slots of the 1 workers that serve the tag 'python3' are busy; 1 jobs are ahead of it."
    )


async def test_a_job_with_a_free_worker_is_about_to_be_claimed(queue: Queue) -> None:
    job = await queue.request(a_job())
    assert await why(queue, job) == "It is about to be claimed; 0 jobs are ahead of it."


async def test_a_running_job_runs_until_it_is_canceled(queue: Queue) -> None:
    claim = await queue.a_claim()
    assert await why(queue, claim.job_id) == "It is running."
    await queue.cancel(claim.job_id)
    assert await why(queue, claim.job_id) == "It is being canceled."


async def test_a_finished_job_says_how_it_ended(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.finish(claim, "failure")
    assert await why(queue, claim.job_id) == "The job has finished: failure."


async def test_a_job_of_another_workspace_is_not_explained(queue: Queue) -> None:
    job = await queue.request(a_job(workspace_id="theirs"))
    assert await queue.explain(job, workspace="mine") is None
    await queue.finish(await queue.claimed())
    assert await queue.explain(job, workspace="mine") is None
    assert await queue.explain(uuid.uuid4()) is None


async def test_the_facts_stand_behind_the_sentence(queue: Queue) -> None:
    await queue.a_claim()
    job = await queue.request(a_job())
    facts: Mapping[str, Any] = await queue.explain(job) or {}
    told = ("state", "tag", "workers", "slots", "busy_slots", "ahead", "claims", "lost_claims")
    assert [facts[name] for name in told] == ["queued", "python3", 1, 2, 1, 0, 0, 0]


async def why(queue: Queue, job: uuid.UUID) -> str:
    answer = await queue.explain(job)
    assert answer is not None
    return str(answer["why"])
