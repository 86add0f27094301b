"""Flows of which all steps run on one worker."""

import json
import uuid
from datetime import timedelta

from tests.support.queue import AT_ONCE, Queue, a_job
from tests.support.steps import a_flow, a_step, advance, end, start

OURS, THEIRS = uuid.uuid4(), uuid.uuid4()


async def two_workers(queue: Queue) -> None:
    for run in (OURS, THEIRS):
        await queue.start_worker(run=run)


def line(run: uuid.UUID) -> tuple[str, str]:
    """Return what a worker claims from: its tag and its own line."""
    return "python3", f"@{run}"


async def second(queue: Queue, flow: uuid.UUID) -> uuid.UUID:
    """Run the first step on our worker, start the second and return its id."""
    await start(queue, flow, a_step(same_worker=True))
    first = await queue.claimed(*line(OURS), run=OURS)
    assert first.row["shares_with"] == flow
    await queue.finish(first, result=1)
    return await start(queue, flow, a_step(same_worker=True, step_no=1, step_id="b", tag="bash"))


async def test_the_following_steps_are_for_the_worker_of_the_first(queue: Queue) -> None:
    await two_workers(queue)
    step = await second(queue, flow := await a_flow(queue))
    assert await queue.claim("bash", *line(THEIRS), run=THEIRS) is None
    claim = await queue.claimed(*line(OURS), run=OURS)
    assert (claim.job_id, claim.row["tag"], claim.row["shares_with"]) == (step, "bash", flow)


async def test_a_ticket_of_such_a_step_goes_to_that_worker_alone(queue: Queue) -> None:
    await two_workers(queue)
    flow = await a_flow(queue)
    await second(queue, flow)
    (said,) = await advance(queue, flow, start=[a_step(same_worker=True, step_no=2, step_id="c")])
    assert said["key"] == f"@{OURS}"


async def test_bodies_and_flows_inside_share_with_the_flow_around_them(queue: Queue) -> None:
    await two_workers(queue)
    flow = await a_flow(queue)
    await second(queue, flow)
    for kind, tag in (("flownode", "flow"), ("flow", "flow")):
        inner = a_step(kind=kind, tag=tag, same_worker=True, step_no=2, step_id="c")
        await start(queue, flow, inner)
        below = a_step(same_worker=True)
        await start(queue, inner["id"], below)
        assert (await queue.live(below["id"]))["tag"] == f"@{OURS}"
        assert (await queue.live(below["id"]))["shares_with"] == flow


async def test_a_first_step_that_lost_its_worker_begins_anew_elsewhere(queue: Queue) -> None:
    await two_workers(queue)
    flow = await a_flow(queue)
    await start(queue, flow, a_step(same_worker=True))
    await queue.claimed(*line(OURS), run=OURS)
    await queue.tick(lease=AT_ONCE)
    claim = await queue.claimed(*line(THEIRS), run=THEIRS)
    await queue.finish(claim, result=1)
    step = await start(queue, flow, a_step(same_worker=True, step_no=1, step_id="b"))
    assert (await queue.live(step))["tag"] == f"@{THEIRS}"


async def test_steps_that_wait_for_a_worker_that_has_gone_fail_and_say_so(queue: Queue) -> None:
    await two_workers(queue)
    step = await second(queue, flow := await a_flow(queue))
    beat = "UPDATE queue.worker SET beat_at = now() + $2::interval WHERE worker_run = $1"
    await queue.look.execute(beat, OURS, timedelta(hours=1))
    assert (await queue.tick(lease=AT_ONCE)).failed == 0
    assert await queue.state_of(step) == "queued"
    await queue.look.execute(beat, OURS, -timedelta(hours=1))
    tick = await queue.tick(lease=AT_ONCE)
    assert tick.failed == 1
    row = await queue.job(step)
    assert row["outcome"] == "failure"
    error = json.loads(row["result"])["error"]
    assert error["name"] == "WorkerLost"
    assert "one worker, which has gone" in error["message"]
    assert str(flow) in "".join(each["body"] for each in tick.said)


async def test_a_step_that_ran_when_its_worker_went_fails_as_well(queue: Queue) -> None:
    await two_workers(queue)
    step = await second(queue, await a_flow(queue))
    await queue.claimed(*line(OURS), run=OURS)
    for _ in range(2):
        await queue.tick(lease=AT_ONCE)
    assert await queue.state_of(step) == "failure"


async def test_a_worker_is_told_which_flows_have_ended(queue: Queue) -> None:
    await two_workers(queue)
    flow, other = await a_flow(queue), await a_flow(queue)
    step = await second(queue, flow)
    await queue.finish(await queue.claimed(*line(OURS), run=OURS), result=2)
    ask = "SELECT queue.ended_flows($1)"
    assert await queue.worker.fetchval(ask, [flow, other]) == []
    await end(queue, flow, result=2)
    assert await queue.worker.fetchval(ask, [flow, other]) == [flow]
    assert await queue.look.fetchval("SELECT count(*) FROM queue.flow_worker") == 0
    assert await queue.state_of(step) == "success"


async def test_why_a_step_waits_for_its_worker_is_told(queue: Queue) -> None:
    await two_workers(queue)
    step = await second(queue, await a_flow(queue))
    for claimed in ("about to be claimed", "All 2 slots of the worker that runs all steps of its flow are busy"):
        said = await queue.explain(step)
        assert said is not None
        assert claimed in said["why"]
        for _ in range(2):
            await queue.request(a_job())
            await queue.claimed(run=OURS)
    await queue.look.execute("DELETE FROM queue.worker WHERE worker_run = $1", OURS)
    said = await queue.explain(step)
    assert said is not None
    assert "has gone" in said["why"]
