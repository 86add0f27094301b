"""What a flow comes to at the edges: values that can't be kept, limits that are too high, tags of others."""

import asyncio
import json
import uuid
from collections.abc import Iterator

import pytest

from tests.support.flows import Stage, branch_all, expr, flow, loop, step, while_loop
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _at_large(stage: Stage) -> Iterator[None]:
    stage.held.set()
    stage.ran.clear()
    yield
    stage.held.set()


async def _cancel(stage: Stage, job_id: uuid.UUID) -> None:
    for row in await stage.queue.api.fetch(
        "SELECT said FROM queue.cancel_job('w', $1, 'ann', 'x', true, '[]')", job_id
    ):
        stage.publish(json.loads(row["said"]))


async def _running_child(stage: Stage, flow_id: uuid.UUID) -> uuid.UUID:
    child: uuid.UUID = await eventually(
        lambda: stage.queue.look.fetchval(
            "SELECT id FROM queue.live_job WHERE parent_job = $1 AND state = 'running'", flow_id
        )
    )
    return child


async def test_a_result_that_the_next_step_cannot_be_given_fails_the_flow(stage: Stage) -> None:
    ended = await stage.run(flow(step("a", "lambda: 'x\\x00y'"), step("b", "lambda x: 1", x=expr("results.a"))))
    assert (ended.outcome, ended.result["error"]["name"]) == ("failure", "FlowError")


async def test_half_a_character_is_read_as_one_that_is_not_known(stage: Stage) -> None:
    ended = await stage.run(flow(step("a", "lambda: '\\ud800'"), step("b", "lambda x: [x]", x=expr("results.a"))))
    assert ended.result == ["\ufffd"]


async def test_a_result_that_cannot_be_written_down_stops_what_runs_beside_it(stage: Stage) -> None:
    stage.held.clear()
    value = flow(
        branch_all(
            "all",
            [step("one", "lambda: 'x\\x00y'"), step("two", "lambda x: 1", x=expr("results.one"))],
            [step("other", "lambda: 1")],
            parallel=True,
        )
    )
    flow_id = await stage.request(value)
    await eventually(lambda: asyncio.sleep(0, stage.ran["one"] and stage.ran["other"]))
    stage.held.set()
    assert (await stage.end_of(flow_id)).outcome == "failure"


async def test_a_time_limit_that_an_expression_makes_too_long_is_the_longest_there_is(stage: Stage) -> None:
    value = flow(step("a", "lambda: 1", options={"timeout": expr("1e12")}))
    ended = await stage.run(value)
    assert ended.result == 1
    limit = await stage.queue.look.fetchval("SELECT timeout_s FROM queue.job WHERE parent_job = $1", ended.id)
    assert limit == 7 * 24 * 3600


async def test_a_loop_asked_for_more_at_once_than_there_can_be_runs(stage: Stage) -> None:
    body = step("a", "lambda: 1")
    ended = await stage.run(flow(loop("l", [1, 2], body, parallel=True, parallelism=expr("1e12"))))
    assert ended.result == [1, 1]


async def test_a_step_on_the_tag_of_flows_fails_instead_of_being_walked_as_one(stage: Stage) -> None:
    module = step("a", "lambda: 1")
    module["value"]["tag"] = "flow"
    ended = await stage.run(flow(module))
    assert (ended.outcome, ended.result["error"]["name"]) == ("failure", "TagError")


async def test_a_flow_asked_for_with_a_token_for_some_tags_runs_no_steps_of_others(stage: Stage) -> None:
    permissions = {"username": "ann", "is_admin": False, "scopes": ["if_jobs:filter_tags:flow,bash"]}
    asked = await stage.request(flow(step("a", "lambda: 1")), permissions=permissions)
    ended = await stage.end_of(asked)
    assert (ended.outcome, ended.result["error"]["name"]) == ("failure", "TagError")
    assert not stage.ran


async def test_the_own_stop_of_a_loop_sees_the_value_it_was_at(stage: Stage) -> None:
    stop = {"stop_after_if": {"expr": "flow_input.iter.value == 'y'"}}
    ended = await stage.run(flow(loop("l", ["x", "y", "z"], step("a", "lambda: 1"), options=stop)))
    assert ended.result == [1, 1]


async def test_nobody_is_asked_to_approve_what_has_failed_and_is_passed_over(stage: Stage) -> None:
    options = {"continue_on_error": True, "suspend": {"required_events": 1}}
    ended = await stage.run(flow(step("a", "lambda: 1 // 0", options=options), step("b", "lambda: 2")))
    assert ended.result == 2


async def test_an_iteration_that_was_canceled_is_not_tried_again(stage: Stage) -> None:
    stage.held.clear()
    again = {"retry": {"constant": {"attempts": 2, "seconds": 0}}}
    value = flow(loop("l", [1], step("a", "lambda: 1"), options=again), failure_module=step("failure", "lambda: 7"))
    flow_id = await stage.request(value)
    await _cancel(stage, await _running_child(stage, flow_id))
    stage.held.set()
    assert (await stage.end_of(flow_id)).outcome == "failure"
    assert stage.ran == {"a": 1}


async def test_a_mocked_preprocessor_makes_the_arguments(stage: Stage) -> None:
    mock = {"mock": {"enabled": True, "return_value": {"x": 5}}}
    value = flow(
        step("a", "lambda x: x", x=expr("flow_input.x")),
        preprocessor_module=step("preprocessor", "lambda: 1", options=mock),
    )
    assert (await stage.run(value, entrypoint="preprocessor")).result == 5


async def test_a_while_loop_whose_body_always_fails_is_ended_by_its_own_rule(stage: Stage) -> None:
    stop = {"stop_after_if": {"expr": "flow_input.iter.index == 2"}}
    ended = await stage.run(flow(while_loop("w", step("f", "lambda: 1 / 0"), skip_failures=True, options=stop)))
    assert (ended.outcome, len(ended.result)) == ("success", 3)
