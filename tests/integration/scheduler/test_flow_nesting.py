"""What options do inside of loops and branches, on real Postgres and a real scheduler."""

import json
import uuid
from datetime import timedelta
from typing import Any

from tests.support.flows import Stage, branch_all, branch_one, expr, flow, loop, step
from tests.support.waiting import eventually

ADD = "lambda x, y=1: x + y"
FAIL = "lambda **_: 1 / 0"
DIVIDE = "lambda x: 12 // x"
APPROVED = {"suspend": {"required_events": 1, "timeout": 3600}}
ITEM = expr("flow_input.iter.value")


async def resume(stage: Stage, root: uuid.UUID, value: Any) -> None:
    """Approve what waits below a flow, once it does."""

    async def waits() -> Any:
        return await stage.queue.look.fetchrow(
            "SELECT s.flow_id, s.born, s.job_id FROM queue.flow_step s JOIN queue.live_job l ON l.id = s.flow_id"
            " WHERE $1 IN (l.id, l.root_job) AND s.state = 'waiting' AND s.no = l.at_step"
            " AND NOT EXISTS (SELECT FROM queue.flow_resume r WHERE r.flow_id = s.flow_id AND r.step_job = s.job_id)",
            root,
        )

    row = await eventually(waits)
    await stage.queue.look.execute(
        "INSERT INTO queue.flow_resume (flow_id, born, step_job, resume_id, approved, value, said_at)"
        " VALUES ($1, $2, $3, 1, true, $4, clock_timestamp())",
        row["flow_id"],
        row["born"],
        row["job_id"],
        json.dumps(value),
    )
    await stage.queue.look.execute(
        "UPDATE queue.live_job SET wake_at = clock_timestamp() WHERE id = $1", row["flow_id"]
    )
    said = await stage.queue.scheduler.fetchval("SELECT queue.wake_flows(interval '1 hour', 100)")
    stage.publish(json.loads(said))


async def test_each_iteration_waits_for_its_own_approval(stage: Stage) -> None:
    body = [step("a", ADD, x=ITEM, options=APPROVED), step("b", "lambda x: x", x=expr("[results.a, resume]"))]
    flow_id = await stage.request(flow(loop("l", [1, 2], *body)))
    for value in ("first", "second"):
        await resume(stage, flow_id, value)
    assert (await stage.end_of(flow_id)).result == [[2, "first"], [3, "second"]]


async def test_an_approval_is_awaited_behind_the_last_step_of_a_branch(stage: Stage) -> None:
    value = flow(
        branch_one("b", ("true", [step("a", "lambda: 'asked'", options=APPROVED)])),
        step("z", "lambda x: x", x=expr("[results.b, previous_result]")),
    )
    flow_id = await stage.request(value)
    await resume(stage, flow_id, "yes")
    assert (await stage.end_of(flow_id)).result == ["asked", "asked"]


async def test_steps_of_a_body_sleep(stage: Stage) -> None:
    sleeps = {"sleep": expr("flow_input.iter.value / 100")}
    body = [step("a", ADD, x=ITEM, options=sleeps), step("b", ADD, x=expr("results.a"))]
    assert (await stage.run(flow(loop("l", [1, 2], *body)))).result == [3, 4]


async def test_the_failure_module_runs_once_where_the_error_is(stage: Stage) -> None:
    failure = step("failure", "lambda e: {'seen': e['step_id']}", e=expr("error"))
    body = [step("a", ADD, x=1), step("f1", FAIL)]
    for outer in (
        loop("l", [1, 2], *body),
        branch_all("l", body, []),
        branch_one("l", ("true", body)),
        loop("l", [1], loop("m", [1], *body)),
    ):
        before = stage.ran["failure"]
        ended = await stage.run(flow(outer, step("z", "lambda: 'not reached'"), failure_module=failure))
        assert (ended.outcome, ended.result) == ("failure", {"seen": "f1"})
        assert stage.ran["failure"] - before == 1


async def test_the_failure_module_runs_although_a_flow_inside_has_one_of_its_own(stage: Stage) -> None:
    path = f"u/ann/p{uuid.uuid4().hex}"
    await stage.deploy_flow(path, flow(step("f3", FAIL), failure_module=step("failure", "lambda: {'inner': True}")))
    nested = {"id": "n", "value": {"type": "flow", "path": path, "input_transforms": {}}}
    failure = step("failure", "lambda e: {'outer': e}", e=expr("previous_result"))
    ended = await stage.run(flow(loop("l", [1], nested), failure_module=failure))
    assert (ended.outcome, list(ended.result)) == ("failure", ["outer"])


async def test_an_iteration_may_recover(stage: Stage) -> None:
    failure = step("failure", "lambda: {'recover': True}")
    body = [step("a", ADD, x=ITEM), step("f2", DIVIDE, x=ITEM)]
    ended = await stage.run(flow(loop("l", [1, 0, 3], *body), failure_module=failure))
    assert (ended.outcome, ended.result) == ("success", [12, {"recover": True}, 4])


async def test_a_loop_is_tried_again_as_a_whole(stage: Stage) -> None:
    retry = {"retry": {"constant": {"attempts": 1, "seconds": 0}}}
    ended = await stage.run(flow(loop("l", [1, 0, 2], step("r1", DIVIDE, x=ITEM), options=retry)))
    assert (ended.outcome, stage.ran["r1"]) == ("failure", 4)
    two = [step("r2", "lambda x: x", x=ITEM), step("r3", DIVIDE, x=expr("results.r2"))]
    ended = await stage.run(flow(loop("l", [1, 0, 2], *two, parallel=True, options=retry)))
    assert (ended.outcome, stage.ran["r3"]) == ("failure", 6)


async def test_steps_of_a_body_are_tried_again_before_their_failure_is_passed_over(stage: Stage) -> None:
    retry = {"retry": {"constant": {"attempts": 2, "seconds": 0}}}
    for no, parallel in enumerate((False, True)):
        body = step(f"s{no}", DIVIDE, x=ITEM, options=retry)
        ended = await stage.run(flow(loop("l", [1, 0, 2], body, skip_failures=True, parallel=parallel)))
        assert ended.outcome == "success"
        assert [ended.result[0], ended.result[1]["error"]["name"], ended.result[2]] == [12, "ZeroDivisionError", 6]
        assert stage.ran[f"s{no}"] == 5


async def test_an_error_is_passed_over_within_a_body(stage: Stage) -> None:
    body = [
        step("a", FAIL, options={"continue_on_error": True}),
        step("b", "lambda x: x", x=expr("results.a.error.name")),
    ]
    assert (await stage.run(flow(loop("l", [1, 2], *body)))).result == ["ZeroDivisionError"] * 2
    alone = step("a", FAIL, options={"continue_on_error": True})
    ended = await stage.run(flow(loop("l", [1, 2], alone), step("z", "lambda x: len(x)", x=expr("results.l"))))
    assert (ended.outcome, ended.result) == ("success", 2)


async def test_a_stop_within_a_branch_ends_the_loop_around_it(stage: Stage) -> None:
    stops: Any = {"stop_after_if": {"expr": "result == 3"}}
    body = [
        branch_one("b", ("true", [step("a", ADD, x=ITEM, options=stops), step("n", "lambda: 'on'")])),
        step("c", "lambda: 'c'"),
    ]
    assert (
        await stage.run(flow(loop("l", [1, 2, 3], *body), step("z", "lambda x: x", x=expr("results.l"))))
    ).result == ["c", 3]


async def test_a_stop_that_skips_ends_only_the_iteration(stage: Stage) -> None:
    stops: Any = {"stop_after_if": {"expr": "result == 3", "skip_if_stopped": True}}
    body = [step("a", ADD, x=ITEM, options=stops), step("c", "lambda: 'c'")]
    assert (await stage.run(flow(loop("l", [1, 2, 3], *body)))).result == ["c", 3, "c"]


async def test_a_stop_within_a_branch_ends_the_flow(stage: Stage) -> None:
    stops: Any = {"stop_after_if": {"expr": "true"}}
    inside = [step("a", "lambda: 1", options=stops), step("n", FAIL)]
    ended = await stage.run(flow(branch_one("b", ("true", inside)), step("z", FAIL)))
    assert (ended.outcome, ended.result) == ("success", 1)


async def test_a_flow_that_takes_too_long_fails_with_all_below(stage: Stage) -> None:
    stage.held.clear()
    try:
        flow_id = await stage.request(flow(loop("l", [1], step("a", ADD, x=1), step("b", ADD, x=1))), timeout_s=1)

        async def is_stopped() -> Any:
            return await stage.queue.look.fetchval(
                "SELECT bool_or(cancel_at IS NOT NULL) FROM queue.live_job WHERE root_job = $1", flow_id
            )

        await eventually(is_stopped)
    finally:
        stage.held.set()
    ended = await stage.end_of(flow_id)
    assert (ended.outcome, ended.result["error"]["message"]) == ("failure", "the flow took longer than its 1 s")
    assert await stage.queue.look.fetchval("SELECT count(*) FROM queue.live_job WHERE root_job = $1", flow_id) == 0


async def test_a_step_has_the_time_that_its_module_gives_it(stage: Stage) -> None:
    value = flow(
        step("a", "lambda: 1", options={"timeout": 5}),
        step("b", "lambda: 1", options={"timeout": expr("results.a + 6")}),
        loop("l", [8], step("c", "lambda: 1", options={"timeout": ITEM})),
    )
    ended = await stage.run(value)
    rows = await stage.queue.look.fetch("SELECT step_id, timeout_s FROM queue.job WHERE root_job = $1", ended.id)
    assert {row["step_id"]: row["timeout_s"] for row in rows} == {"a": 5, "b": 7, "c": 8}


async def test_all_iterations_behind_an_approval_and_their_further_tries_see_it(stage: Stage) -> None:
    retry = {"retry": {"constant": {"attempts": 1, "seconds": 0}}}
    body = step("v", "lambda x, i: x if i < 2 else 1 // 0", x=expr("resume"), i=expr("flow_input.iter.index"))
    value = flow(
        step("ask", "lambda: 1", options={"suspend": {"required_events": 1}}),
        loop("l", [1, 2, 3], body, options=retry),
    )
    flow_id = await stage.request(value)
    await resume(stage, flow_id, 7)
    ended = await stage.end_of(flow_id)
    assert ended.result["error"]["name"] == "ZeroDivisionError", "and not that resume is unknown"


async def test_a_step_that_needs_no_worker_waits_for_the_sleep_before_it(stage: Stage) -> None:
    value = flow(
        step("a", "lambda: 1", options={"sleep": {"type": "static", "value": 2}}),
        {"id": "i", "value": {"type": "identity"}},
        step("b", "lambda x: x", x=expr("results.i")),
    )
    flow_id = await stage.request(value)

    async def sleeps() -> bool:
        return "It sleeps until" in ((await stage.queue.explain(flow_id)) or {})["why"]

    await eventually(sleeps)
    ended = await stage.end_of(flow_id)
    rows = await stage.queue.look.fetch(
        "SELECT j.step_id, f.started_at, f.finished_at FROM queue.job j JOIN queue.finished_job f USING (id, born)"
        " WHERE j.parent_job = $1",
        ended.id,
    )
    at = {row["step_id"]: row for row in rows}
    assert ended.result == 1
    assert at["b"]["started_at"] - at["a"]["finished_at"] >= timedelta(seconds=2)
