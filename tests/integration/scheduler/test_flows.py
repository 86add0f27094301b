"""Flows on real Postgres and a real scheduler: each kind of module and each option gives what it promises."""

import json

from tests.support.flows import Stage, branch_all, branch_one, expr, flow, loop, step, while_loop
from tests.support.waiting import eventually

ADD = "lambda x, y=1: x + y"
FAIL = "lambda **_: 1 / 0"


async def test_steps_follow_each_other_and_see_what_was_before(stage: Stage) -> None:
    ended = await stage.run(
        flow(
            step("a", ADD, x=expr("flow_input.n")),
            step("b", ADD, x=expr("previous_result"), y=expr("results.a * 10")),
            step("c", "lambda x: x", x=expr("[results.a, results['b'], flow_input]")),
        ),
        {"n": 1},
    )
    assert (ended.outcome, ended.result) == ("success", [2, 22, {"n": 1}])


async def test_an_empty_flow_answers_its_arguments(stage: Stage) -> None:
    assert (await stage.run(flow(), {"n": 1})).result == {"n": 1}


async def test_a_loop_goes_over_its_values_one_after_the_other(stage: Stage) -> None:
    ended = await stage.run(
        flow(loop("l", [1, 2, 3], step("a", ADD, x=expr("flow_input.iter.value"), y=expr("flow_input.iter.index"))))
    )
    assert ended.result == [1, 3, 5]
    ended = await stage.run(
        flow(
            step("z", "lambda: 100"),
            loop(
                "l",
                [1, 2],
                step("a", ADD, x=expr("flow_input.iter.value")),
                step("b", ADD, x=expr("results.a"), y=expr("results.z")),
            ),
            step("c", "lambda x: sum(x)", x=expr("results.l")),
        )
    )
    assert ended.result == 205


async def test_a_parallel_loop_keeps_the_order_of_its_values(stage: Stage) -> None:
    items = list(range(57))
    ended = await stage.run(flow(loop("l", items, step("a", ADD, x=expr("flow_input.iter.value")), parallel=True)))
    assert ended.result == [each + 1 for each in items]


async def test_loops_in_loops_know_both_iterations(stage: Stage) -> None:
    inner = loop(
        "m", expr("[10, 20]"), step("a", ADD, x=expr("flow_input.iter.value"), y=expr("flow_input.iter_parent.value"))
    )
    ended = await stage.run(flow(loop("l", [1, 2], inner)))
    assert ended.result == [[11, 21], [12, 22]]


async def test_an_empty_loop_answers_an_empty_list(stage: Stage) -> None:
    ended = await stage.run(flow(loop("l", [], step("a", ADD, x=1)), step("b", "lambda x: x", x=expr("results.l"))))
    assert ended.result == []


async def test_a_while_loop_goes_on_until_it_is_stopped(stage: Stage) -> None:
    body = step("a", ADD, x=expr("flow_input.iter.index"))
    ended = await stage.run(flow(while_loop("w", body, options={"stop_after_if": {"expr": "result >= 3"}})))
    assert ended.result == [1, 2, 3]
    body = step("a", ADD, x=expr("flow_input.iter.index"), options={"stop_after_if": {"expr": "result >= 2"}})
    assert (await stage.run(flow(while_loop("w", body)))).result == [1, 2]


async def test_the_first_true_branch_is_taken(stage: Stage) -> None:
    value = flow(
        branch_one(
            "b",
            ("flow_input.n > 10", [step("big", "lambda: 'big'")]),
            (
                "flow_input.n > 5",
                [step("mid", "lambda: 'mid'"), step("mid2", "lambda x: x + '!'", x=expr("results.mid"))],
            ),
            default=[step("small", "lambda: 'small'")],
        ),
        step("c", "lambda x: x", x=expr("results.b")),
    )
    assert [(await stage.run(value, {"n": n})).result for n in (11, 6, 1)] == ["big", "mid!", "small"]
    assert (await stage.run(flow(branch_one("b", ("false", []))))).result == []


async def test_all_branches_are_taken(stage: Stage) -> None:
    branches = [[step("a", "lambda: 1")], [step("b", "lambda: 2"), step("c", ADD, x=expr("results.b"))], []]
    assert (await stage.run(flow(branch_all("all", *branches)))).result == [1, 3, []]
    assert (await stage.run(flow(branch_all("all", *branches, parallel=True)))).result == [1, 3, []]


async def test_a_failed_step_fails_the_flow_and_is_named(stage: Stage) -> None:
    ended = await stage.run(flow(step("a", FAIL), step("b", "lambda: 1")))
    assert ended.outcome == "failure"
    assert ended.result == {"error": {"name": "ZeroDivisionError", "message": "division by zero", "step_id": "a"}}


async def test_the_failure_module_sees_the_error(stage: Stage) -> None:
    failure = step("failure", "lambda e: {'seen': e}", e=expr("error"))
    ended = await stage.run(flow(step("a", FAIL), failure_module=failure))
    assert ended.outcome == "failure"
    assert ended.result["seen"]["step_id"] == "a"
    failure = step("failure", "lambda: {'recover': True}")
    assert (await stage.run(flow(step("a", FAIL), failure_module=failure))).outcome == "success"


async def test_an_expression_that_fails_reaches_the_failure_module(stage: Stage) -> None:
    failure = step("failure", "lambda e: e", e=expr("error.message"))
    ended = await stage.run(flow(step("a", ADD, x=expr("nowhere.at.all")), failure_module=failure))
    assert ended.outcome == "failure"
    assert "step a, input x" in ended.result


async def test_a_step_is_tried_again(stage: Stage) -> None:
    retry = {"retry": {"constant": {"attempts": 2, "seconds": 0}}}
    before = stage.ran["r1"]
    ended = await stage.run(flow(step("r1", FAIL, options=retry)))
    assert (ended.outcome, stage.ran["r1"] - before) == ("failure", 3)
    rows = await stage.steps(ended.id)
    assert rows["r1"]["attempt"] == 2
    assert len(rows["r1"]["failed_retries"]) == 2


async def test_a_step_is_not_tried_again_when_its_rule_says_no(stage: Stage) -> None:
    retry = {"retry": {"constant": {"attempts": 2, "seconds": 0}, "retry_if": {"expr": "error.name == 'Other'"}}}
    ended = await stage.run(flow(step("r2", FAIL, options=retry)))
    assert (ended.outcome, stage.ran["r2"]) == ("failure", 1)


async def test_an_error_may_be_passed_over(stage: Stage) -> None:
    value = flow(
        step("a", FAIL, options={"continue_on_error": True}), step("b", "lambda x: x", x=expr("results.a.error.name"))
    )
    assert (await stage.run(value)).result == "ZeroDivisionError"


async def test_a_flow_stops_early(stage: Stage) -> None:
    stop: dict[str, dict[str, str | bool]] = {"stop_after_if": {"expr": "result == 2"}}
    ended = await stage.run(flow(step("a", ADD, x=1, options=stop), step("b", FAIL)))
    assert (ended.outcome, ended.result) == ("success", 2)
    stop = {"stop_after_if": {"expr": "result == 2", "skip_if_stopped": True}}
    assert (await stage.run(flow(step("a", ADD, x=1, options=stop), step("b", FAIL)))).outcome == "skipped"
    stop = {"stop_after_if": {"expr": "true", "error_message": "enough"}}
    ended = await stage.run(flow(step("a", ADD, x=1, options=stop), step("b", FAIL)))
    assert (ended.outcome, ended.result["error"]["message"]) == ("failure", "Flow early stop: enough")


async def test_a_step_may_be_skipped_or_mocked(stage: Stage) -> None:
    value = flow(
        step("a", ADD, x=1),
        step("s1", FAIL, options={"skip_if": {"expr": "results.a == 2"}}),
        step("m1", FAIL, options={"mock": {"enabled": True, "return_value": {"x": 1}}}),
        {"id": "i", "value": {"type": "identity"}},
        step("c", "lambda x: x", x=expr("[results.s1, results.m1, results.i]")),
    )
    assert (await stage.run(value)).result == [2, {"x": 1}, {"x": 1}]


async def test_a_failed_iteration_ends_the_loop_unless_it_is_passed_over(stage: Stage) -> None:
    body = step("f1", "lambda x: 1 // x", x=expr("flow_input.iter.value"))
    ended = await stage.run(flow(loop("l", [1, 0, 1], body)))
    assert (ended.outcome, ended.result["error"]["name"], stage.ran["f1"]) == ("failure", "ZeroDivisionError", 2)
    ended = await stage.run(flow(loop("l", [1, 0, 1], body, skip_failures=True)))
    assert ended.outcome == "success"
    assert [each if isinstance(each, int) else each["error"]["name"] for each in ended.result] == [
        1,
        "ZeroDivisionError",
        1,
    ]


async def test_one_bad_iteration_does_not_stop_the_others_of_a_parallel_loop(stage: Stage) -> None:
    body = step("f2", "lambda x: 1 // x", x=expr("flow_input.iter.value"))
    ended = await stage.run(flow(loop("l", [0, *range(1, 30)], body, parallel=True)))
    assert (ended.outcome, stage.ran["f2"]) == ("failure", 30)


async def test_parallelism_is_kept_exactly(stage: Stage) -> None:
    stage.most_at_once = 0
    body = step("p1", "lambda x: x", x=expr("flow_input.iter.value"))
    stage.held.clear()
    try:
        flow_id = await stage.request(flow(loop("l", list(range(20)), body, parallel=True, parallelism=3)))

        async def three() -> bool:
            return stage.most_at_once == 3

        await eventually(three)
    finally:
        stage.held.set()
    assert (await stage.end_of(flow_id)).result == list(range(20))
    assert stage.most_at_once == 3


async def test_a_canceled_flow_takes_what_is_below_with_it(stage: Stage) -> None:
    stage.held.clear()
    try:
        flow_id = await stage.request(
            flow(loop("l", list(range(100)), step("a", ADD, x=1), step("b", ADD, x=1), parallel=True))
        )
        answer = await stage.queue.cancel(flow_id)
        assert answer.answer in ("requested", "canceled")
    finally:
        stage.held.set()
    ended = await stage.end_of(flow_id)
    assert ended.outcome == "canceled"
    left = await stage.queue.look.fetchval("SELECT count(*) FROM queue.live_job WHERE root_job = $1", flow_id)
    assert left == 0


async def test_a_large_loop_is_a_window_that_slides(stage: Stage) -> None:
    body = step("w1", "lambda x: x", x=expr("flow_input.iter.value"))
    ended = await stage.run(
        flow(loop("l", list(range(400)), body, parallel=True), step("n", "lambda x: len(x)", x=expr("results.l")))
    )
    assert ended.result == 400


async def test_results_keep_their_text(stage: Stage) -> None:
    ended = await stage.run(flow({"id": "a", "value": {"type": "identity"}}), {"n": 12345678901234567890, "f": 1.50})
    row = await stage.queue.look.fetchval("SELECT result::text FROM queue.finished_job WHERE id = $1", ended.id)
    assert json.loads(row)["n"] == 12345678901234567890
