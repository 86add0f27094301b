"""Any flow comes to the end that a straight interpreter says, whatever happens to schedulers and messages."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.unit.scheduler.flow_model import World
from tests.unit.scheduler.flow_reference import Reference, Said

INNER = {
    "modules": [
        {"id": "in", "value": {"type": "rawscript", "language": "python3", "content": "odd fails",
                               "input_transforms": {"x": {"type": "javascript", "expr": "flow_input.x"}}}},
        {"id": "out", "value": {"type": "identity"}},
    ],
    "failure_module": {"id": "failure", "value": {"type": "rawscript", "language": "python3", "content": "value",
                       "input_transforms": {"x": {"type": "javascript", "expr": "error.step_id"}}}},
}  # fmt: skip
SKIPS = {
    "modules": [
        {
            "id": "m1",
            "value": {"type": "identity"},
            "stop_after_if": {"expr": "result.x == 1", "skip_if_stopped": True},
        },
        {"id": "m2", "value": {"type": "identity"}},
    ]
}
FLOWS = {"f/inner": INNER, "f/skips": SKIPS}

VALUES = st.sampled_from(["flow_input.n", "previous_result", "flow_input.iter.value", "flow_input.iter_parent.value",
                          "results.m1", "results.m2", "results.m3", "boom"])  # fmt: skip
TRUTHS = st.sampled_from(["true", "false", "result", "result == 1", "flow_input.iter.index >= 1",
                          "previous_result == 2", "results.m1 == 1", "params.x == 1", "boom"])  # fmt: skip
CODES = st.sampled_from(["value", "value", "value", "list", "fail", "odd fails", "fails first:1", "fails first:2"])
NUMBERS = st.integers(0, 3)


@st.composite
def modules(draw: st.DrawFn, names: list[int], depth: int, most: int = 4) -> list[Any]:
    """A list of modules whose ids no other module of the flow has."""
    return [draw(module(names, depth)) for _ in range(draw(st.integers(0 if depth < 3 else 1, most)))]


@st.composite
def transform(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    if draw(st.integers(0, 3)):
        return {"type": "javascript", "expr": draw(VALUES)}
    return {"type": "static", "value": draw(values)}


@st.composite
def module(draw: st.DrawFn, names: list[int], depth: int) -> Any:
    """One step with what may be said of it."""
    names.append(len(names))
    made: dict[str, Any] = {"id": f"m{len(names)}"}
    kinds = ["rawscript", "rawscript", "rawscript", "identity", "flow"]
    if depth:
        kinds += ["forloopflow", "forloopflow", "branchall", "branchone", "whileloopflow"]
    kind = draw(st.sampled_from(kinds))
    value = draw(plain(kind)) if kind in kinds[:5] else draw(container(kind, names, depth - 1))
    made |= {"value": value, **draw(options(kind))}
    if kind == "whileloopflow":
        made["stop_after_if"] = {"expr": f"flow_input.iter.index >= {draw(NUMBERS)}"}
    return made


@st.composite
def plain(draw: st.DrawFn, kind: str) -> Any:
    """What has one job."""
    if kind == "identity":
        return {"type": kind}
    value = {"type": kind, "input_transforms": {"x": draw(transform(NUMBERS))}}
    if kind == "flow":
        return {**value, "path": draw(st.sampled_from(["f/inner", "f/skips", "f/skips", "f/gone"]))}
    return {**value, "language": "python3", "content": draw(CODES)}


@st.composite
def container(draw: st.DrawFn, kind: str, names: list[int], depth: int) -> Any:
    """A loop or branches."""
    value: dict[str, Any] = {"type": kind}
    body = modules(names, depth, 2)
    if kind in ("forloopflow", "whileloopflow"):
        value |= {"modules": draw(body), "skip_failures": False}
    if kind == "forloopflow":
        value |= {"iterator": draw(transform(st.lists(NUMBERS, max_size=4))), "skip_failures": draw(st.booleans())}
        value |= {"parallel": draw(st.booleans()), "parallelism": draw(st.sampled_from([None, 1, 2]))}
    if kind == "branchone":
        cases = [{"expr": draw(TRUTHS), "modules": draw(body)} for _ in range(draw(st.integers(0, 2)))]
        value |= {"branches": cases, "default": draw(body)}
    if kind == "branchall":
        count = draw(st.integers(0, 3))
        value["branches"] = [{"modules": draw(body), "skip_failure": draw(st.booleans())} for _ in range(count)]
        value["parallel"] = draw(st.booleans())
    return value


@st.composite
def options(draw: st.DrawFn, kind: str) -> Any:
    """One thing more that is said of a step, or none."""
    stop = {"expr": draw(TRUTHS)}
    retry: dict[str, Any] = {"constant": {"attempts": draw(NUMBERS), "seconds": draw(st.sampled_from([0, 5]))}}
    rule = draw(st.sampled_from(["error.message", "params.x == 1", "true", "boom"]))
    said: list[dict[str, Any]] = [
        {"skip_if": {"expr": draw(TRUTHS)}},
        {"mock": {"enabled": True, "return_value": draw(NUMBERS)}},
        {"continue_on_error": True},
        {"retry": retry},
        {"retry": retry, "continue_on_error": True},
        {"retry": {**retry, "retry_if": {"expr": rule}}},
        {"sleep": {"type": "static", "value": 3}},
        {"stop_after_if": stop},
        {"stop_after_if": {**stop, "skip_if_stopped": True}},
        {"stop_after_if": {**stop, "error_message": "enough"}},
    ]
    if kind in ("forloopflow", "whileloopflow", "branchall"):
        said.append({"stop_after_all_iters_if": stop})
    return draw(st.sampled_from([{}, {}, {}, {}, {}, *said]))


@st.composite
def flows(draw: st.DrawFn) -> Any:
    """The value of a flow."""
    value: dict[str, Any] = {"modules": draw(modules([], 3))}
    if draw(st.booleans()):
        code = draw(st.sampled_from(["value", "recover", "fail"]))
        seen = draw(st.sampled_from(["error.message", "previous_result", "results.m1", "boom"]))
        inputs = {"x": {"type": "javascript", "expr": seen}}
        call = {"type": "rawscript", "language": "python3", "content": code, "input_transforms": inputs}
        value["failure_module"] = {"id": "failure", "value": call}
    return value


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(value=flows(), seed=st.integers(0, 1 << 32), slots=st.integers(0, 3))
def test_whatever_happens_on_the_way_the_end_is_the_same(value: Any, seed: int, slots: int) -> None:
    args = {"n": 2}
    expected = Reference(FLOWS).flow(value, args)
    world = World(value, args, Random(seed), FLOWS, slots)
    ended = world.run()
    note(f"turns: {world.turns}")
    assert ended == Said(expected.outcome, expected.result), json.dumps(value)


def a_loop(count: int, **how: Any) -> Any:
    call = {"type": "rawscript", "language": "python3", "content": "value"}
    inputs = {"x": {"type": "javascript", "expr": "flow_input.iter.index"}}
    body = {"id": "b", "value": {**call, "input_transforms": inputs}}
    items = {"type": "static", "value": [0] * count}
    value = {"type": "forloopflow", "iterator": items, "modules": [body], "parallel": True, **how}
    return {"modules": [{"id": "a", "value": value}]}


@pytest.mark.parametrize(
    ("slots", "how", "most"),
    [(500, {}, 200), (5, {}, 10), (0, {}, 1), (500, {"parallelism": 3}, 3), (1, {"parallelism": 50}, 2)],
)
def test_a_large_loop_is_a_window(slots: int, how: dict[str, Any], most: int) -> None:
    world = World(a_loop(250, **how), {}, Random(0), slots=slots, trouble=0.05)
    assert world.run(100_000).result == list(range(250))
    assert world.most == 1 + most


@pytest.mark.parametrize("parallel", [True, False])
def test_a_large_loop_without_a_body_needs_no_jobs_to_go_on(parallel: bool) -> None:
    value = a_loop(450, parallel=parallel)
    value["modules"][0]["value"]["modules"] = []
    world = World(value, {}, Random(0), trouble=0.05)
    assert [each["iter"]["index"] for each in world.run().result] == list(range(450))
    assert world.most == 1


def test_what_failed_does_not_hang_on_who_was_faster() -> None:
    value = a_loop(4)
    value["modules"][0]["value"]["modules"][0]["value"]["content"] = "fail"
    ends = {json.dumps(World(value, {}, Random(seed)).run().result) for seed in range(30)}
    assert ends == {'{"error": {"name": "Bad", "message": "fail 0", "step_id": "b"}}'}


def test_the_failure_module_of_a_nested_flow_does_not_stand_for_that_around_it() -> None:
    nested = {
        "id": "a",
        "value": {"type": "flow", "path": "f/inner", "input_transforms": {"x": {"type": "static", "value": 1}}},
    }
    failure = {"id": "failure", "value": {"type": "rawscript", "language": "python3", "content": "recover"}}
    ended = World({"modules": [nested], "failure_module": failure}, {}, Random(0), FLOWS).run()
    assert (ended.outcome, ended.result["recover"]) == ("success", True)


def test_a_nested_flow_that_is_skipped_has_ended_well() -> None:
    inputs = {"x": {"type": "static", "value": 1}}
    nested = {"id": "a", "value": {"type": "flow", "path": "f/skips", "input_transforms": inputs}}
    ended = World({"modules": [nested]}, {}, Random(0), FLOWS).run()
    assert ended == Said("success", {"x": 1})


@pytest.mark.parametrize(("rule", "runs"), [("error.name == 1", 1), ("error.message", 3)])
def test_what_is_tried_again_is_asked_of_the_error_itself(rule: str, runs: int) -> None:
    retry = {"constant": {"attempts": 2, "seconds": 0}, "retry_if": {"expr": rule}}
    call = {"type": "rawscript", "language": "python3", "content": "fail"}
    world = World({"modules": [{"id": "a", "value": call, "retry": retry}]}, {}, Random(0))
    world.run()
    assert world.runs.total() == runs
