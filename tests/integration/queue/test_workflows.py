"""Workflows written as code, as the queue sees them: rounds that make room, tasks that end, and who may say so."""

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.queue import AT_ONCE, Claim, Queue, a_job
from tidemill.shared.ids import new_job_id


def a_task(key: str, **changes: Any) -> Mapping[str, Any]:
    """Return what is asked for of one task."""
    return {"id": new_job_id(), "key": key, "name": key, "args": {"of": key}} | changes


async def waiting(queue: Queue, *keys: str, **changes: Any) -> tuple[uuid.UUID, dict[str, Claim]]:
    """Return a workflow that waits for tasks, and the claims of these."""
    claim = await queue.a_claim(**changes)
    assert await queue.suspend(claim, {"tasks": [a_task(key) for key in keys]}) == "suspended"
    claims = [await queue.claimed() for _ in keys]
    keyed = {json.loads(each.row["args"])["of"]: each for each in claims}
    assert set(keyed) == set(keys)
    return claim.job_id, keyed


async def test_a_workflow_makes_room_until_all_its_tasks_have_ended(queue: Queue) -> None:
    job, tasks = await waiting(queue, "a", "b")
    assert (await queue.live(job))["state"] == "suspended"
    assert await queue.finish(tasks["a"], result=1) == "done"
    assert await queue.claim() is None
    assert await queue.finish(tasks["b"], result=2) == "done"
    again = await queue.claimed()
    assert (again.job_id, again.row["rounds"], again.row["checkpointed"]) == (job, 1, True)
    assert await queue.checkpoint(again) == ({"completed_steps": {"a": 1, "b": 2}, "_executing_key": None}, None)
    assert await queue.finish(again, result=3) == "done"
    row = await queue.job(job)
    first = await queue.job(tasks["a"].job_id)
    assert (row["state"], row["claims"]) == ("success", 2)
    assert row["started_at"] <= first["started_at"] <= row["finished_at"]


async def test_a_task_begins_with_its_key_and_the_arguments_of_the_workflow(queue: Queue) -> None:
    await queue.request(a_job(kind="preview", path=None, code="the code"), args={"x": 1})
    claim = await queue.claimed()
    await queue.suspend(claim, {"step": {"key": "s", "result": [1]}})
    claim = await queue.claimed()
    await queue.suspend(claim, {"tasks": [a_task("a")]})
    task = await queue.claimed()
    assert (task.row["code"], task.row["kind"], json.loads(task.row["args"])) == ("the code", "preview", {"of": "a"})
    assert (task.row["parent_job"], task.row["root_job"]) == (claim.job_id, claim.job_id)
    assert await queue.checkpoint(task) == ({"completed_steps": {"s": [1]}, "_executing_key": "a"}, {"x": 1})


async def test_a_failed_task_is_told_as_the_sdks_know_it(queue: Queue) -> None:
    _, tasks = await waiting(queue, "a")
    error = {"error": {"name": "ValueError", "message": "bad"}}
    await queue.finish(tasks["a"], "failure", error)
    checkpoint, _ = await queue.checkpoint(await queue.claimed())
    assert checkpoint["completed_steps"] == {
        "a": {
            "__wmill_error": True,
            "message": "bad",
            "step_key": "a",
            "child_job_id": str(tasks["a"].job_id),
            "result": error,
        }
    }


async def test_a_claim_that_is_over_asks_for_nothing(queue: Queue) -> None:
    lost = await queue.a_claim()
    await queue.tick(lease=AT_ONCE)
    current = await queue.claimed()
    assert current.job_id == lost.job_id
    assert await queue.suspend(lost, {"tasks": [a_task("a")]}) == "stale"
    assert await queue.suspend(lost, {"sleep": {"key": "s", "seconds": 1}}) == "stale"
    assert (await queue.live(current.job_id))["state"] == "running"
    assert await queue.look.fetchval("SELECT count(*) FROM queue.workflow_step") == 0
    assert await queue.suspend(current, {"tasks": [a_task("a")]}) == "suspended"
    for late in (lost, current):
        assert await queue.suspend(late, {"tasks": [a_task("b")]}) == "stale"
        assert await queue.finish(late) == "stale"
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 2
    nobody = Claim(uuid.uuid4(), uuid.uuid4(), queue.run, current.row)
    assert await queue.suspend(nobody, {}) == "unknown"


async def test_a_task_that_was_asked_for_before_is_not_made_again(queue: Queue) -> None:
    job, tasks = await waiting(queue, "a")
    await queue.finish(tasks["a"], result=1)
    again = await queue.claimed()
    assert await queue.suspend(again, {"tasks": [a_task("a")]}) == "suspended"
    assert await queue.look.fetchval("SELECT count(*) FROM queue.job WHERE parent_job = $1", job) == 1
    assert (await queue.claimed()).job_id == job


@pytest.mark.parametrize("direct", [True, False])
async def test_the_last_two_tasks_to_end_at_once_let_the_workflow_go_on(queue: Queue, direct: bool) -> None:
    job, tasks = await waiting(queue, "a", "b")
    async with queue.worker.acquire() as one, queue.worker.acquire() as other:
        first, second = one.transaction(), other.transaction()
        await first.start()
        await second.start()
        _, said = await queue.finish_and_hear(tasks["a"], by=one)
        assert [each["key"] for each in said] == ["flow.ready"]
        if direct:
            await first.commit()
        _, said = await queue.finish_and_hear(tasks["b"], by=other)
        assert [each["key"] for each in said] == ["python3" if direct else "flow.ready"]
        if not direct:
            assert await queue.resume(job) is None
            await first.commit()
            assert await queue.resume(job) is None
        await second.commit()
    if not direct:
        resumed = await queue.resume(job)
        assert resumed is not None
        assert [each["key"] for each in json.loads(resumed["said"])] == ["python3"]
    assert (await queue.claimed()).job_id == job
    assert await queue.resume(job) is None


async def test_an_end_that_nobody_heard_of_is_found_by_the_tick(queue: Queue) -> None:
    job, tasks = await waiting(queue, "a")
    async with queue.look.acquire() as somebody:
        looks = somebody.transaction()
        await looks.start()
        await somebody.execute("SELECT FROM queue.live_job WHERE id = $1 FOR UPDATE", job)
        _, said = await queue.finish_and_hear(tasks["a"])
        await looks.commit()
    assert [each["key"] for each in said] == ["flow.ready"]
    await queue.look.execute("UPDATE queue.workflow_step SET ended_at = ended_at - interval '1 minute'")
    said = (await queue.tick()).said
    assert [json.loads(each["body"])["data"]["flow_id"] for each in said if each["key"] == "flow.ready"] == [str(job)]


async def test_a_workflow_sleeps_until_its_time(queue: Queue) -> None:
    claim = await queue.a_claim()
    assert await queue.suspend(claim, {"sleep": {"key": "sleep", "seconds": 3600}}) == "suspended"
    assert await queue.resume(claim.job_id) is None
    assert await queue.claim() is None
    await queue.look.execute("UPDATE queue.workflow_step SET until = clock_timestamp()")
    await queue.look.execute("UPDATE queue.live_job SET wake_at = clock_timestamp()")
    assert "flow.ready" in [each["key"] for each in (await queue.tick()).said]
    assert await queue.resume(claim.job_id) is not None
    again = await queue.claimed()
    assert (await queue.checkpoint(again))[0]["completed_steps"] == {"sleep": None}


async def test_a_workflow_keeps_its_slot_of_a_limit_while_it_waits(queue: Queue) -> None:
    limit = {"limit_key": "k", "limit_ceiling": 1}
    _, tasks = await waiting(queue, "a", **limit)
    behind = await queue.request(a_job(**limit))
    assert await queue.state_of(behind) == "blocked"
    await queue.finish(tasks["a"])
    again = await queue.claimed()
    assert await queue.state_of(behind) == "blocked"
    await queue.finish(again)
    assert await queue.state_of(behind) == "queued"


@pytest.mark.parametrize("limit", [{}, {"limit_key": "k", "limit_ceiling": 1}])
async def test_canceling_a_workflow_that_waits_ends_it_when_nothing_below_runs(
    queue: Queue, limit: dict[str, Any]
) -> None:
    claim = await queue.a_claim(**limit)
    await queue.suspend(claim, {"tasks": [a_task("a"), a_task("b")]})
    running = await queue.claimed()
    assert (await queue.cancel(claim.job_id)).answer == "requested"
    assert await queue.resume(claim.job_id) is None
    assert await queue.finish(running, "canceled") == "done"
    resumed = await queue.resume(claim.job_id)
    assert resumed is not None
    assert resumed["ended"]
    states = await queue.look.fetch("SELECT outcome FROM queue.finished_job")
    assert [row["outcome"] for row in states] == ["canceled"] * 3
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0


@pytest.mark.parametrize("force", [False, True])
async def test_canceling_a_workflow_whose_tasks_all_wait_ends_it_at_once(queue: Queue, force: bool) -> None:
    claim = await queue.a_claim()
    await queue.suspend(claim, {"tasks": [a_task("a"), a_task("b")]})
    assert (await queue.cancel(claim.job_id, force=force)).answer == "canceled"
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0
    assert await queue.claim() is None


async def test_a_round_that_is_being_canceled_asks_for_nothing_more(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.cancel(claim.job_id)
    assert await queue.suspend(claim, {"tasks": [a_task("a")]}) == "done"
    assert await queue.state_of(claim.job_id) == "canceled"
    assert await queue.look.fetchval("SELECT count(*) FROM queue.job WHERE parent_job = $1", claim.job_id) == 0


async def test_a_round_whose_worker_is_lost_is_run_again_with_what_was_known(queue: Queue) -> None:
    job, tasks = await waiting(queue, "a")
    await queue.finish(tasks["a"], result=1)
    lost = await queue.claimed()
    await queue.tick(lease=AT_ONCE)
    again = await queue.claimed()
    assert (again.job_id, again.key != lost.key) == (job, True)
    assert (await queue.checkpoint(again))[0]["completed_steps"] == {"a": 1}
    assert await queue.worker.fetchrow("SELECT * FROM queue.read_checkpoint($1, $2)", job, lost.key) is None


async def test_erasing_a_workflow_takes_its_tasks_with_it(queue: Queue) -> None:
    job, tasks = await waiting(queue, "a", erase_after_s=0)
    await queue.finish(tasks["a"], result="secret")
    await queue.finish(await queue.claimed(), result="secret")
    for _ in range(2):
        await queue.look.execute("UPDATE queue.erasure SET due_at = clock_timestamp()")
        await queue.tick()
    for each in (job, tasks["a"].job_id):
        row = await queue.job(each)
        assert (row["deleted"], row["result"], row["args"]) == (True, None, "{}")


async def test_rounds_have_an_end(queue: Queue) -> None:
    claim = await queue.a_claim()
    await queue.look.execute("UPDATE queue.live_job SET rounds = 30000")
    assert await queue.suspend(claim, {"tasks": [a_task("a")]}) == "too_many_rounds"
    assert await queue.finish(claim, "failure") == "done"


async def test_a_running_round_keeps_its_steps_by_its_token_alone(queue: Queue) -> None:
    claim, other = await queue.a_claim(), await queue.a_claim()

    async def keep(token: str, result: Any, job: Claim = claim) -> tuple[str, Any]:
        row = await queue.api.fetchrow(
            "SELECT * FROM queue.keep_step($1, $2, 'now', $3, clock_timestamp(), 5)",
            token,
            job.job_id,
            json.dumps(result),
        )
        assert row is not None
        return row["answer"], None if row["result"] is None else json.loads(row["result"])

    assert await keep(other.row["token"], 0) == ("over", None)
    assert await keep(claim.row["token"], 1) == ("kept", 1)
    assert await keep(claim.row["token"], 2) == ("kept", 1)
    await queue.tick(lease=AT_ONCE)
    assert await keep(claim.row["token"], 3) == ("over", None)
    again = {each.job_id: each for each in (await queue.claimed(), await queue.claimed())}
    assert again[claim.job_id].row["checkpointed"] is True
    assert again[other.job_id].row["checkpointed"] is False
    assert (await queue.checkpoint(again[claim.job_id]))[0]["completed_steps"] == {"now": 1}


async def test_a_running_round_keeps_its_steps_by_its_claim_alone(queue: Queue) -> None:
    claim, other = await queue.a_claim(), await queue.a_claim()

    async def keep(key: uuid.UUID, result: Any, under: str = "now") -> str:
        answer: str = await queue.worker.fetchval(
            "SELECT queue.keep_claimed_step($1, $2, $3, $4, clock_timestamp(), 5)",
            claim.job_id,
            key,
            under,
            json.dumps(result),
        )
        return answer

    assert await keep(other.key, 0) == "over"
    version = (await queue.live(claim.job_id))["version"]
    assert [await keep(claim.key, result) for result in ("one", "two")] == ["kept", "kept"]
    assert (await queue.live(claim.job_id))["version"] == version + 1
    await queue.suspend(claim, {"tasks": [a_task("a")]})
    assert await keep(claim.key, 3) == "over"
    await queue.finish(await queue.claimed(), result=4)
    again = await queue.claimed()
    assert await keep(again.key, 5, "a") == "taken"
    row = await queue.worker.fetchrow("SELECT * FROM queue.read_checkpoint($1, $2)", again.job_id, again.key)
    assert row is not None
    assert json.loads(row["checkpoint"])["completed_steps"] == {"now": "one", "a": 4}
    assert (row["count"], row["size"]) == (1, len('"one"'))
    await queue.tick(lease=AT_ONCE)
    assert await keep(again.key, 6, "late") == "over"


async def test_many_tasks_ending_and_a_cancel_at_the_same_time_leave_nothing_behind(queue: Queue) -> None:
    for canceled in (False, True, True):
        await queue.empty()
        await queue.start_worker()
        job, tasks = await waiting(queue, *(f"t{number}" for number in range(12)))
        ends = [queue.finish(each, result=1) for each in tasks.values()]
        await asyncio.gather(*ends, *([queue.cancel(job, force=True)] if canceled else []))
        resumed = await queue.resume(job)
        if not canceled:
            assert (await queue.claimed()).job_id == job
            assert resumed is None or not resumed["ended"]
            continue
        assert await queue.state_of(job) == "canceled"
        assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0
