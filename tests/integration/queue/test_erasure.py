"""What jobs leave behind can be erased before their day goes: after their end, or after that of the flow around."""

import json
import uuid
from datetime import timedelta
from typing import Any

from tests.support.queue import Claim, Queue, a_job
from tests.support.steps import a_flow, a_step, advance, end, start


async def erase(queue: Queue) -> None:
    """Let the time of all erasures that stand come, and look as the scheduler does."""
    await queue.look.execute("UPDATE queue.erasure SET due_at = now() WHERE root_flow IS NULL")
    await queue.tick()


async def left(queue: Queue, job: uuid.UUID) -> tuple[Any, Any, int]:
    """Return the arguments, the result and the number of pieces of the log that are left of a job."""
    row = await queue.job(job)
    pieces = await queue.look.fetchval("SELECT count(*) FROM queue.log_chunk WHERE job_id = $1", job)
    assert row["deleted"] is (row["result"] is None)
    return json.loads(row["args"]), row["result"] and json.loads(row["result"]), pieces


async def run(queue: Queue, **changes: Any) -> Claim:
    """Run a job that is given, prints and answers something."""
    await queue.request(a_job(**changes), args={"secret": 1})
    return await end_next(queue)


async def end_next(queue: Queue, outcome: str = "success") -> Claim:
    claim = await queue.claimed()
    await queue.append_log(claim, 0, "printed")
    await queue.finish(claim, outcome, result={"secret": 2})
    return claim


async def test_a_job_is_erased_when_its_time_after_the_end_has_come(queue: Queue) -> None:
    kept, erased = await run(queue), await run(queue, erase_after_s=3600)
    await queue.tick()
    assert await left(queue, erased.job_id) == ({"secret": 1}, {"secret": 2}, 1)
    await erase(queue)
    assert await left(queue, erased.job_id) == ({}, None, 0)
    assert await left(queue, kept.job_id) == ({"secret": 1}, {"secret": 2}, 1)
    row = await queue.job(erased.job_id)
    assert (row["outcome"], row["path"]) == ("success", "f/folder/script")
    assert await queue.look.fetchval("SELECT count(*) FROM queue.erasure") == 0


async def test_who_waits_for_the_result_has_the_time_to_read_it(queue: Queue) -> None:
    claim = await run(queue, erase_after_s=0)
    due_at = await queue.look.fetchval("SELECT due_at FROM queue.erasure WHERE job_id = $1", claim.job_id)
    assert due_at - (await queue.job(claim.job_id))["finished_at"] >= timedelta(seconds=10)


async def test_a_job_that_fails_or_never_runs_is_erased_as_well(queue: Queue) -> None:
    await queue.request(a_job(erase_after_s=0), args={"secret": 1})
    failed = await end_next(queue, "failure")
    canceled, closed = [await queue.request(a_job(erase_after_s=0), args={"secret": 1}) for _ in range(2)]
    await queue.cancel(canceled)
    await queue.api.fetch("SELECT * FROM queue.close_workspace('w', 'ann', 'because')")
    await erase(queue)
    for job in (failed.job_id, canceled, closed):
        assert await left(queue, job) == ({}, None, 0)


async def test_a_step_is_erased_when_the_highest_flow_around_it_has_ended(queue: Queue) -> None:
    flow = await a_flow(queue)
    inner = await start(queue, flow, a_step(kind="flow", path="f/folder/inner", tag="flow"))
    kept = await start(queue, inner, a_step(args={"secret": 1}))
    await end_next(queue)
    erased = await start(queue, inner, a_step(args={"secret": 1}, step_no=1, step_id="b", erase_after_s=0))
    await end_next(queue)
    await end(queue, inner, result=1)
    await erase(queue)
    assert await left(queue, erased) == ({"secret": 1}, {"secret": 2}, 1)
    await end(queue, flow, result=1)
    await erase(queue)
    assert await left(queue, erased) == ({}, None, 0)
    assert await left(queue, kept) == ({"secret": 1}, {"secret": 2}, 1)


async def test_a_step_whose_flow_has_ended_unseen_is_found_later(queue: Queue) -> None:
    flow = await a_flow(queue)
    step = await start(queue, flow, a_step(args={"secret": 1}, erase_after_s=0))
    await end_next(queue)
    # As if the flow had ended in the same moment in another transaction.
    await queue.look.execute("DELETE FROM queue.live_job WHERE id = $1", flow)
    await queue.look.execute("UPDATE queue.erasure SET due_at = now()")
    await queue.tick()
    assert await left(queue, step) == ({"secret": 1}, {"secret": 2}, 1)
    await erase(queue)
    assert await left(queue, step) == ({}, None, 0)


async def test_a_step_that_was_answered_without_a_worker_is_erased_with_the_others(queue: Queue) -> None:
    flow = await a_flow(queue)
    step = await start(queue, flow, a_step(args={"secret": 1}, answered=True, result={"secret": 2}, erase_after_s=0))
    await end(queue, flow, result=1)
    await erase(queue)
    assert await left(queue, step) == ({}, None, 0)


async def test_an_erased_flow_takes_its_steps_and_their_children_with_it(queue: Queue) -> None:
    flow = await a_flow(queue, erase_after_s=0)
    step = await start(queue, flow, a_step(args={"secret": 1}))
    await end_next(queue)
    child = a_step(kind="flownode", step_no=1, step_id="b", step_index=0, args={"secret": 1})
    loop = {"no": 1, "module": "b", "state": "started", "total": 1, "started": 1, "items": ["secret"]}
    await advance(queue, flow, at_step=1, steps=[loop], start=[child])
    below = await start(queue, child["id"], a_step(args={"secret": 1}))
    await end_next(queue)
    await end(queue, child["id"], result={"secret": 2})
    await end(queue, flow, result={"secret": 2})
    for _ in range(3):
        await erase(queue)
    for job in (flow, step, child["id"], below):
        assert await left(queue, job) == ({}, None, 0)
    kept = await queue.look.fetchval(
        "SELECT count(*) FROM queue.flow_step WHERE items IS NOT NULL OR result IS NOT NULL"
    )
    assert kept == 0


async def test_what_somebody_holds_is_erased_at_the_next_look(queue: Queue) -> None:
    held, free = await run(queue, erase_after_s=0), await run(queue, erase_after_s=0)
    async with queue.look.acquire() as other, other.transaction():
        await other.execute("SELECT FROM queue.finished_job WHERE id = $1 FOR UPDATE", held.job_id)
        await erase(queue)
        assert await left(queue, free.job_id) == ({}, None, 0)
        assert await left(queue, held.job_id) == ({"secret": 1}, {"secret": 2}, 1)
    await erase(queue)
    assert await left(queue, held.job_id) == ({}, None, 0)


async def test_what_retention_has_taken_is_forgotten(queue: Queue) -> None:
    await queue.look.execute("INSERT INTO queue.erasure VALUES (gen_random_uuid(), now(), NULL, 0)")
    await queue.tick()
    assert await queue.look.fetchval("SELECT count(*) FROM queue.erasure") == 0
