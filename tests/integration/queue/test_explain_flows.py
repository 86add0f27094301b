"""What does a flow wait for? It names its step and why the job of that has not ended."""

import uuid
from typing import Any

from tests.support.flow_rows import a_flow, a_step, advance, begin, begin_loop, code, park, row
from tests.support.queue import Queue, a_job

VALUE = {"modules": [code("a"), code("b")]}
LATE = "2099-01-02T03:04:05+00:00"


async def why(queue: Queue, job_id: Any) -> str:
    said = await queue.explain(uuid.UUID(str(job_id)))
    assert said is not None
    text = said["why"]
    assert isinstance(text, str)
    return text


async def test_a_flow_that_has_not_begun(queue: Queue) -> None:
    assert await why(queue, await a_flow(queue, VALUE)) == "It is about to begin."
    later = await a_flow(queue, VALUE, due_at="2050-01-02T03:04:05Z")
    assert await why(queue, later) == "It waits for its time, 2050-01-02 03:04:05 UTC."
    holder = await a_flow(queue, VALUE, limit_key="k", limit_ceiling=1)
    waiter = await a_flow(queue, VALUE, limit_key="k", limit_ceiling=1)
    assert await why(queue, waiter) == (
        f"It waits for a slot of the concurrency limit 'k', which allows 1 at a time; the job {holder} holds one."
    )


async def test_the_holder_of_a_limit_is_not_named_to_another_workspace(queue: Queue) -> None:
    await queue.request(a_job(limit_key="k", limit_ceiling=1, workspace_id="other"))
    waiter = await queue.request(a_job(limit_key="k", limit_ceiling=1))
    said = await queue.explain(waiter)
    assert said is not None
    assert said["why"] == "It waits for a slot of the concurrency limit 'k', which allows 1 at a time."
    assert (said["limit_holders"], said["limit_holder"]) == (1, None)


async def test_a_flow_says_why_the_job_of_its_step_waits(queue: Queue) -> None:
    flow_id = await a_flow(queue, VALUE)
    job = await begin(queue, flow_id, "a", tag="gpu")
    assert await why(queue, flow_id) == f"It is at the step 'a'. The job {job['id']}: No worker serves the tag 'gpu'."
    said = await queue.explain(flow_id)
    assert said is not None
    assert (said["step"], said["job"], said["job_waits"]["tag"]) == ("a", job["id"], "gpu")
    await queue.start_worker("gpu", run=uuid.uuid4())
    claim = await queue.claimed("gpu")
    assert await why(queue, flow_id) == f"It is at the step 'a'. The job {job['id']}: It is running."
    await queue.finish(claim)
    assert await why(queue, flow_id) == "It is about to go on behind the step 'a'."


async def test_a_step_behind_a_limit_names_who_holds_it(queue: Queue) -> None:
    holder = await queue.request(a_job(limit_key="k", limit_ceiling=1))
    flow_id = await a_flow(queue, VALUE)
    job = await begin(queue, flow_id, "a", limit_key="k", limit_ceiling=1)
    assert await why(queue, flow_id) == (
        f"It is at the step 'a'. The job {job['id']}: It waits for a slot of the concurrency limit 'k',"
        f" which allows 1 at a time; the job {holder} holds one."
    )


async def test_a_step_that_is_tried_again_says_when(queue: Queue) -> None:
    flow_id = await a_flow(queue, VALUE)
    first = await begin(queue, flow_id, "a")
    await queue.finish(await queue.claimed(), "failure")
    again = a_step("a", 0, step_attempt=1, due_in_ms=3_600_000)
    await advance(queue, flow_id, steps=[row(again, attempt=1, failed_retries=[first["id"]])], start=[again])
    due = (await queue.live(uuid.UUID(again["id"])))["due_at"]
    expected = f"It is tried again at {due:%Y-%m-%d %H:%M:%S} UTC; tries that have failed: 1."
    assert await why(queue, again["id"]) == expected
    assert await why(queue, flow_id) == f"It is at the step 'a'. The job {again['id']}: {expected}"


async def test_a_flow_that_waits_for_approvals_says_how_many_and_until_when(queue: Queue) -> None:
    flow_id = await a_flow(queue, VALUE)
    first = await begin(queue, flow_id, "a")
    await queue.finish(await queue.claimed())
    await park(queue, flow_id, first, "b", needed=2, until=LATE)
    for given in range(2):
        assert await why(queue, flow_id) == (
            f"It waits before the step 'b' for approvals, until 2099-01-02 03:04:05 UTC; {given} of 2 have been given."
        )
        await queue.look.execute(
            "INSERT INTO queue.flow_resume (flow_id, born, step_job, resume_id, approved, value, said_at)"
            " VALUES ($1, queue.locate($1), $2, $3, true, 'null', now())",
            flow_id,
            uuid.UUID(first["id"]),
            given,
        )


async def test_a_loop_counts_and_names_the_job_that_is_furthest(queue: Queue) -> None:
    flow_id = await a_flow(queue, VALUE)
    jobs = await begin_loop(queue, flow_id, "l", 2, total=5)
    claim = await queue.claimed()
    assert str(claim.job_id) == jobs[0]["id"]
    assert await why(queue, flow_id) == (
        f"It is at the step 'l', of whose 5 jobs 0 have ended and 2 have not. The job {jobs[0]['id']}: It is running."
    )
    await queue.finish(claim)
    loop = {"no": 0, "module": "l", "state": "started", "total": 5, "started": 2, "ended": 1, "parallelism": 2}
    await advance(queue, flow_id, take=[{"attempt": 0, "index": 0, "state": "success"}], steps=[loop])
    assert await why(queue, flow_id) == (
        "It is at the step 'l', of whose 5 jobs 1 have ended and 1 have not, at most 2 at once."
        f" The job {jobs[1]['id']}: It is about to be claimed; 0 jobs are ahead of it."
    )


async def test_a_flow_inside_a_flow_is_looked_into(queue: Queue) -> None:
    flow_id = await a_flow(queue, VALUE)
    inner = await begin(queue, flow_id, "a", kind="flownode", language="", tag="flow", entrypoint="a:0")
    assert await why(queue, flow_id) == f"It is at the step 'a'. The job {inner['id']}: It is about to begin."
    step = await begin(queue, uuid.UUID(inner["id"]), "x", tag="gpu")
    inside = f"It is at the step 'x'. The job {step['id']}: No worker serves the tag 'gpu'."
    assert await why(queue, flow_id) == f"It is at the step 'a'. The job {inner['id']}: {inside}"


async def test_a_flow_that_is_canceled_waits_for_what_runs(queue: Queue) -> None:
    flow_id = await a_flow(queue, VALUE)
    await begin(queue, flow_id, "a")
    claim = await queue.claimed()
    await queue.cancel(flow_id)
    assert await why(queue, flow_id) == "It is being canceled; jobs of its steps that have not ended: 1."
    await queue.finish(claim, "canceled")
    assert await why(queue, flow_id) == "It is being canceled; jobs of its steps that have not ended: 0."
    await advance(queue, flow_id, end={"outcome": "canceled"})
    assert await why(queue, flow_id) == "The job has finished: canceled."
