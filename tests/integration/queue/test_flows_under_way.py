"""What must not happen to a flow from outside while it is under way."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncpg import PostgresError

from tests.support import suspended
from tests.support.queue import Queue, a_job
from tests.support.steps import a_flow, a_step, end, start
from tidemill.chassis.database import sqlstate


async def delete(queue: Queue, *jobs: uuid.UUID) -> str | None:
    """Remove jobs and return the code of the refusal."""
    try:
        await queue.api.execute("SELECT queue.delete_jobs('w', $1, NULL)", jobs)
    except PostgresError as refused:
        return sqlstate(refused)
    return None


async def load(queue: Queue, flow: uuid.UUID) -> Any:
    """Return where a flow stands, as the scheduler reads it."""
    text = await queue.scheduler.fetchval("SELECT queue.load_flow($1, 50, 1000)", flow)
    return None if text is None else json.loads(text)


@pytest.mark.parametrize("ends_first", [False, True])
async def test_the_job_of_a_step_is_not_removed_before_its_flow_has_ended(queue: Queue, ends_first: bool) -> None:
    flow = await a_flow(queue)
    step = await start(queue, flow, a_step())
    if ends_first:
        await queue.finish(await queue.claimed())
    assert await delete(queue, step) == "TM009"
    if not ends_first:
        await queue.finish(await queue.claimed())
    await end(queue, flow)
    assert await delete(queue, step) is None
    assert await queue.state_of(step) is None


async def test_a_task_is_not_removed_while_its_workflow_waits_for_it(queue: Queue) -> None:
    workflow = await queue.a_claim()
    asked = {"id": a_job()["id"], "key": "t", "name": "t", "args": {}}
    task = uuid.UUID(str(asked["id"]))
    assert await queue.suspend(workflow, {"tasks": [asked]}) == "suspended"
    assert await delete(queue, task) == "TM009"


async def test_a_job_that_a_running_job_has_asked_for_can_be_removed(queue: Queue) -> None:
    above = await queue.a_claim()
    assert await delete(queue, await queue.request(a_job(parent_job=above.job_id))) is None


async def test_a_flow_hears_that_a_step_has_ended_whose_job_is_gone(queue: Queue) -> None:
    flow = await a_flow(queue)
    step = await start(queue, flow, a_step())
    await queue.finish(await queue.claimed(), result=7)
    (heard,) = (await load(queue, flow))["ended"]
    assert (heard["job_id"], heard["outcome"], heard["result"]) == (str(step), "success", 7)
    await queue.look.execute("DELETE FROM queue.finished_job WHERE id = $1", step)
    (heard,) = (await load(queue, flow))["ended"]
    assert (heard["job_id"], heard["outcome"], heard["result"]) == (str(step), "success", None)


async def test_what_is_no_flow_is_not_walked_whatever_its_tag_is(queue: Queue) -> None:
    assert await load(queue, await a_flow(queue)) is not None
    with pytest.raises(PostgresError) as refused:
        await queue.request(a_job(tag="flow"))
    assert sqlstate(refused.value) == "TM012"
    job = await queue.request(a_job())
    await queue.look.execute("UPDATE queue.live_job SET tag = 'flow' WHERE id = $1", job)
    assert await load(queue, job) is None


async def test_what_was_decided_before_a_flow_was_moved_to_another_day_is_stale(queue: Queue) -> None:
    flow = await a_flow(queue)
    step = await start(queue, flow, a_step())
    version = (await load(queue, flow))["version"]
    today = (await queue.live(flow))["born"].astimezone(UTC).date()
    assert await queue.move_on(today, datetime.now(UTC)) == 2
    answer = await queue.scheduler.fetchval(
        'SELECT answer FROM queue.advance_flow($1, $2, \'{"end": {"outcome": "failure"}}\', 1000)', flow, version
    )
    assert answer == "stale"
    assert (await load(queue, flow))["step"]["job_id"] == str(step)


async def test_a_job_of_a_worker_is_none_with_a_checkpoint_after_it_was_moved(queue: Queue) -> None:
    job = await queue.request(a_job())
    await queue.move_on((await queue.live(job))["born"].astimezone(UTC).date(), datetime.now(UTC))
    assert not (await queue.claimed()).row["checkpointed"]


async def woken(queue: Queue, limit: int = 10) -> list[str]:
    """Return the flows that are said to have something to hear, as of now."""
    await queue.look.execute("UPDATE queue.flow_step SET ended_at = ended_at - interval '1 hour' WHERE state = 'ended'")
    said = json.loads(await queue.scheduler.fetchval("SELECT queue.wake_flows('1 minute', $1)", limit))
    return sorted(json.loads(each["body"])["data"]["flow_id"] for each in said)


async def a_flow_to_hear(queue: Queue) -> uuid.UUID:
    """Return a flow of which a step has ended."""
    flow = await a_flow(queue)
    await start(queue, flow, a_step())
    await queue.finish(await queue.claimed())
    return flow


async def test_an_end_that_was_not_heard_is_said_again_but_not_at_every_look(queue: Queue) -> None:
    flow = await a_flow_to_hear(queue)
    assert await woken(queue) == [str(flow)]
    assert await woken(queue) == []
    await queue.look.execute("UPDATE queue.live_job SET wake_at = now()")
    assert await woken(queue) == [str(flow)]


async def test_an_end_is_said_again_of_a_flow_whose_own_time_is_far(queue: Queue) -> None:
    flow = await a_flow_to_hear(queue)
    await queue.look.execute("UPDATE queue.live_job SET wake_at = now() + interval '1 year'")
    assert await woken(queue) == [str(flow)]


async def test_flows_that_nobody_gets_on_with_do_not_keep_others_from_being_woken(queue: Queue) -> None:
    gone = await a_flow_to_hear(queue)
    await queue.look.execute("DELETE FROM queue.live_job WHERE id = $1", gone)
    flows = [await a_flow_to_hear(queue) for _ in range(2)]
    assert sorted(await woken(queue, 1) + await woken(queue, 1)) == sorted(str(each) for each in flows)


async def test_closing_a_workspace_leaves_nothing_to_be_heard(queue: Queue) -> None:
    flow = await a_flow_to_hear(queue)
    await queue.api.execute("SELECT queue.close_workspace('w', 'ann', NULL)")
    state = await queue.look.fetchval("SELECT state FROM queue.flow_step WHERE flow_id = $1", flow)
    assert state == "success"


async def resume(queue: Queue, flow: uuid.UUID, **decision: Any) -> tuple[str, list[Any]]:
    """Approve as somebody who owns the flow and return the answer and what was said."""
    asked = {"job_id": str(flow), "approved": True, "username": "ann", "may_be_early": True, "in_person": True}
    row = await queue.api.fetchrow(
        "SELECT answer, said FROM queue.resume_flow('w', $1, '7', '[]')", json.dumps(asked | decision)
    )
    assert row is not None
    return row["answer"], json.loads(row["said"] or "[]")


async def wakes_soon(queue: Queue, flow: uuid.UUID) -> bool:
    """Return whether a flow is looked at in a moment, even if every message of it is lost."""
    wake_at = (await queue.live(flow))["wake_at"]
    return wake_at is not None and wake_at < datetime.now(UTC) + timedelta(seconds=10)


@pytest.mark.parametrize("changes", [{"due_in_ms": 3_600_000}, {"limit_key": "k", "limit_ceiling": 1}, {}])
async def test_nothing_is_said_of_an_approval_before_the_flow_has_begun(queue: Queue, changes: dict[str, Any]) -> None:
    await queue.a_claim(limit_key="k", limit_ceiling=1)
    flow = await a_flow(queue, **changes)
    assert await resume(queue, flow) == ("noted", [])


async def test_an_approval_is_heard_of_although_its_message_is_lost(queue: Queue) -> None:
    flow = await suspended.a_flow(queue, {"modules": []})
    job = await suspended.start(queue, flow, 0, "a")
    await suspended.end(queue, job)
    await suspended.park(queue, flow, 1, "b", job, needed=2)
    answer, said = await resume(queue, flow)
    assert (answer, len(said)) == ("noted", 1)
    assert not await wakes_soon(queue, flow), "it is not decided yet"
    await resume(queue, flow, username="bob")
    assert await wakes_soon(queue, flow)


async def test_a_workflow_hears_of_an_approval_from_before_it_came_to_wait(queue: Queue) -> None:
    claim = await queue.a_claim()
    await resume(queue, claim.job_id)
    assert await queue.suspend(claim, {"approval": {"key": "yes", "timeout": 3600}}) == "suspended"
    await queue.tick()
    await queue.resume(claim.job_id)
    assert await queue.state_of(claim.job_id) == "queued"


async def test_a_cancel_is_heard_of_although_its_message_is_lost(queue: Queue) -> None:
    flow = await a_flow(queue)
    await start(queue, flow, a_step())
    await queue.claimed()
    assert (await queue.cancel(flow)).answer == "requested"
    assert await wakes_soon(queue, flow)


async def test_a_canceled_flow_hears_of_the_end_of_a_job_below_it_that_is_no_step(queue: Queue) -> None:
    flow = await a_flow(queue)
    step = await start(queue, flow, a_step())
    await queue.finish(await queue.claimed())
    other = await queue.a_claim(parent_job=flow)
    assert (await queue.cancel(flow)).answer == "requested"
    _, said = await queue.finish_and_hear(other, "canceled")
    assert [json.loads(each["body"])["data"] for each in said] == [{"flow_id": str(flow)}]
    assert not (await load(queue, flow))["children_live"]
    assert await queue.state_of(step) == "success"


async def test_what_a_flow_starts_while_its_workspace_closes_is_not_missed(queue: Queue) -> None:
    flow = await a_flow(queue)
    step = a_step()
    row = {"no": 0, "module": "a", "state": "started", "job_id": step["id"]}
    changes = json.dumps({"at_step": 0, "steps": [row], "start": [step]}, default=str)
    async with queue.scheduler.acquire() as walking:
        transaction = walking.transaction()
        await transaction.start()
        await walking.fetch("SELECT * FROM queue.advance_flow($1, 0, $2, 1000)", flow, changes)
        closing = asyncio.create_task(queue.api.execute("SELECT queue.close_workspace('w', 'ann', NULL)"))
        await asyncio.wait_for(queue.until_somebody_waits(), 20)
        assert await queue.look.fetchval("SELECT array_agg(locktype) FROM pg_locks WHERE NOT granted") == ["advisory"]
        await transaction.commit()
    await asyncio.wait_for(closing, 20)
    assert await queue.state_of(uuid.UUID(str(step["id"]))) == "canceled"
    assert await queue.scheduler.fetchval("SELECT answer FROM queue.advance_flow($1, 1, '{}', 1000)", flow) == "gone"
