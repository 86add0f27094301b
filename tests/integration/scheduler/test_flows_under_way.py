"""What is done to a flow from outside while a scheduler walks it."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from asyncpg import PostgresError

from tests.support.flows import Stage, flow, step
from tests.support.queue import a_job
from tests.support.waiting import eventually

A_STEP = flow(step("a", "lambda: 1"), step("b", "lambda: 2"))


async def running_step(stage: Stage, flow_id: uuid.UUID) -> uuid.UUID:
    """Return the running job of a flow's step."""
    query = "SELECT id FROM queue.live_job WHERE parent_job = $1 AND state = 'running'"

    async def look() -> Any:
        return await stage.queue.look.fetchval(query, flow_id)

    found: uuid.UUID = await eventually(look)
    return found


async def test_a_canceled_flow_ends_after_a_job_below_it_that_is_no_step(stage: Stage) -> None:
    stage.held.clear()
    flow_id = await stage.request(A_STEP)
    await running_step(stage, flow_id)
    await stage.queue.request(a_job(tag="manual", parent_job=flow_id))
    other = await stage.queue.claimed("manual")
    stage.publish((await stage.queue.cancel(flow_id)).said)
    stage.held.set()

    async def alone() -> bool:
        query = "SELECT count(*) = 1 FROM queue.live_job WHERE parent_job = $1"
        return bool(await stage.queue.look.fetchval(query, flow_id))

    await eventually(alone)
    assert await stage.queue.state_of(flow_id) == "suspended"
    _, said = await stage.queue.finish_and_hear(other, "canceled")
    stage.publish(said)
    assert (await stage.end_of(flow_id)).outcome == "canceled"


async def test_a_flow_goes_on_whose_step_somebody_has_tried_to_remove(stage: Stage) -> None:
    stage.held.clear()
    value = flow(step("a", "lambda: 1"))
    value["modules"][0]["value"]["tag"] = "manual"
    flow_id = await stage.request(value)
    query = "SELECT id FROM queue.live_job WHERE parent_job = $1"
    child = await eventually(lambda: stage.queue.look.fetchval(query, flow_id))
    stage.held.set()
    with pytest.raises(PostgresError, match="under way"):
        await stage.queue.api.execute("SELECT queue.delete_jobs('w', $1, NULL)", [child])
    _, said = await stage.queue.finish_and_hear(await stage.queue.claimed("manual"), result=5)
    stage.publish(said)
    assert (await stage.end_of(flow_id)).result == 5


async def test_a_step_to_be_erased_at_once_is_erased_after_the_end_of_its_flow(stage: Stage) -> None:
    value = flow(step("a", "lambda x: x", x=7, options={"delete_after_secs": 0}), step("b", "lambda: 2"))
    ended = await stage.run(value)
    look = stage.queue.look
    job_id = await look.fetchval("SELECT job_id FROM queue.flow_step WHERE flow_id = $1 AND no = 0", ended.id)
    flow_ended = await look.fetchval("SELECT finished_at FROM queue.finished_job WHERE id = $1", ended.id)
    due_at = await look.fetchval("SELECT due_at FROM queue.erasure WHERE job_id = $1 AND root_flow IS NULL", job_id)
    assert timedelta(seconds=10) <= due_at - flow_ended < timedelta(seconds=20)
    await look.execute("UPDATE queue.erasure SET due_at = now() WHERE job_id = $1", job_id)

    async def erased() -> bool:
        row = await stage.queue.job(job_id)
        return bool(row["deleted"]) and json.loads(row["args"]) == {} and row["result"] is None

    await eventually(erased)
