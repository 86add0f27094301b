"""What a flow does next, decided without anything around it: questions get canned answers, changes are looked at."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from tests.support.flows import expr, flow, loop, step
from tidemill.scheduler.domain.flow.asks import (
    ArgsOf,
    Ask,
    Cached,
    FindFlow,
    FindScript,
    Slots,
    Target,
    Truth,
    Unanswered,
    Value,
)
from tidemill.scheduler.domain.flow.changes import Changes, Start
from tidemill.scheduler.domain.flow.engine import next_steps
from tidemill.scheduler.domain.flow.progress import Ended, Happened, Progress, Step, StepState, Walk
from tidemill.shared import flow as flows
from tidemill.shared.caching import cache_key
from tidemill.shared.flow import Body
from tidemill.shared.script import JobKind, Outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FLOW_ID, JOB = UUID(int=1), UUID(int=2)
KNOWN: Mapping[str, Any] = {"flow_input.x": 7, "previous_result": {"before": True}}
SCRIPT = Target(
    path="u/ann/s",
    hash="5c",
    language="python3",
    tag="gpu-$args[x]",
    concurrent_limit=2,
    concurrency_key="k-$workspace-$args[x]",
    cache_ttl_s=60,
    erase_after_s=5,
)


class Told:
    """Answers what is asked, and remembers it."""

    def __init__(self, cached: Mapping[str, Any] | None = None, truths: Mapping[str, bool] | None = None) -> None:
        self.asked: list[Ask] = []
        self._cached = cached or {}
        self._truths = truths or {}

    def answer(self, ask: Ask) -> Any:
        self.asked.append(ask)
        match ask:
            case Truth(source=source):
                return self._truths[source]
            case Value(source="params", names={"params": ArgsOf()}):
                return msgspec.Raw(b'{"x":8}')
            case Value(source="result", names={"result": msgspec.Raw() as known}):
                return known
            case Value(source=source):
                return msgspec.Raw(json.dumps(KNOWN[source]).encode())
            case FindScript():
                return SCRIPT
            case FindFlow(path=path):
                return Target(path=path, hash="9", cache_ttl_s=30)
            case Cached(key=key):
                return msgspec.Raw(json.dumps(self._cached[key]).encode()) if key in self._cached else None
            case Slots():
                return 4


def decide(
    value: Mapping[str, Any],
    told: Told | None = None,
    *,
    step: Step | None = None,
    ended: Sequence[Ended] = (),
    body: str | None = None,
    **progress: Any,
) -> Changes:
    """Return the decision on a flow that stands at this step."""
    read = flows.read(json.dumps(value))
    ids = iter(range(100, 10_000))
    told = told or Told()
    asked: dict[str, Any] = {"kind": JobKind.FLOW, "path": "u/ann/f", "flow_version": "3", "tag": "flow"}
    standing = Progress(id=FLOW_ID, workspace_id="w", scope_job=FLOW_ID, body=body, step=step, **(asked | progress))
    deciding = next_steps(
        Walk(read, flows.modules_of(read, Body.parse(body))),
        standing,
        Happened(now=NOW, ended=ended),
        lambda: UUID(int=next(ids)),
    )
    try:
        ask = next(deciding)
        while True:
            try:
                answer = told.answer(ask)
            except Unanswered as wrong:
                ask = deciding.throw(wrong)
            else:
                ask = deciding.send(answer)
    except StopIteration as made:
        changes: Changes = made.value
        return changes


def only(changes: Changes) -> Start:
    """Return the one job that is started."""
    (new,) = changes.start
    return new


def message(new: Start) -> str:
    """Return what the job that has failed at once says."""
    assert (new.answered, new.outcome) == (True, Outcome.FAILURE)
    assert isinstance(new.result, msgspec.Raw)
    text: str = json.loads(bytes(new.result))["error"]["message"]
    return text


def script(module_id: str, *, options: Mapping[str, Any] | None = None, **value: Any) -> dict[str, Any]:
    transforms = {"x": {"type": "static", "value": 1}}
    return {
        "id": module_id,
        "value": {"type": "script", "path": "u/ann/s", "input_transforms": transforms, **value},
        **(options or {}),
    }


def raw(**value: Any) -> dict[str, Any]:
    made = step("a", "code", x=expr("flow_input.x"))
    return {**made, "value": {**made["value"], **value}}


def failed(attempt: int = 0) -> tuple[Step, Ended]:
    """Return a first step whose job has failed."""
    row = Step(no=0, module="a", state=StepState.ENDED, job_id=JOB, attempt=attempt)
    return row, Ended(job_id=JOB, outcome=Outcome.FAILURE, result=msgspec.Raw(b'{"error":{"name":"E"}}'))


def succeeded(result: Any) -> tuple[Step, Ended]:
    row = Step(no=0, module="a", state=StepState.ENDED, job_id=JOB)
    return row, Ended(job_id=JOB, outcome=Outcome.SUCCESS, result=msgspec.Raw(json.dumps(result).encode()))


# ---- tags and limits


@pytest.mark.parametrize(
    ("flow_tag", "preserve", "own", "wanted"),
    [
        ("flow", False, None, "python3"),
        ("flow", False, "t-$workspace", "t-w"),
        ("flow", False, "t-$args[x]", "t-7"),
        ("big", False, "t-$args[x]", "big"),
        ("big", True, "t-$args[x]", "t-7"),
        ("big", True, None, "big"),
    ],
)
def test_the_tag_of_a_step_is_filled_in(flow_tag: str, preserve: bool, own: str | None, wanted: str) -> None:
    new = only(decide(flow(raw(tag=own), preserve_step_tags=preserve), tag=flow_tag))
    assert new.tag == wanted


def test_a_script_counts_by_the_same_key_and_is_kept_under_the_same_key_as_when_it_runs_by_itself() -> None:
    new = only(decide(flow(script("a"))))
    assert (new.tag, new.limit_key, new.limit_ceiling) == ("gpu-1", "k-w-1", 2)
    assert (new.cache_key, new.cache_ttl_s) == (cache_key("w", "script u/ann/s 5c", '{"x":1}'), 60)


def test_code_in_a_flow_counts_by_its_place_or_by_its_own_key() -> None:
    assert only(decide(flow(raw(concurrent_limit=3)))).limit_key == "w/flow/u/ann/f/a"
    new = only(decide(flow(raw(concurrent_limit=3, custom_concurrency_key="mine-$args[x]"))))
    assert (new.limit_key, new.limit_ceiling) == ("mine-7", 3)
    assert only(decide(flow(raw(custom_concurrency_key="mine")))).limit_key is None


def test_a_tag_that_is_none_fails_the_step_with_a_sentence() -> None:
    new = only(decide(flow(raw(tag="t $args[x]"))))
    assert message(new).startswith("step a, tag: 't 7' is none: it must be up to 100 letters")


def test_a_step_that_is_tried_again_is_filled_in_from_the_arguments_that_it_had() -> None:
    row, ended = failed()
    options = {"retry": {"constant": {"attempts": 1, "seconds": 0}}}
    new = only(decide(flow(script("a", options=options)), step=row, ended=[ended]))
    assert (new.args_of, new.tag, new.limit_key) == (JOB, "gpu-8", "k-w-8")
    assert new.cache_key == cache_key("w", "script u/ann/s 5c", '{"x":8}')


# ---- results that are kept


def test_a_kept_result_answers_the_step_without_a_worker() -> None:
    key = cache_key("w", "script u/ann/s 5c", '{"x":1}')
    changes = decide(flow(script("a"), step("b", "code")), Told(cached={key: [1]}))
    new = only(changes)
    assert (new.kind, new.answered, new.outcome) == (JobKind.SCRIPT, True, Outcome.SUCCESS)
    assert new.result == msgspec.Raw(b"[1]")
    assert (new.cache_key, new.cache_ttl_s, new.limit_key) == (key, None, None)
    assert [row.state for row in changes.steps] == [StepState.SUCCESS]
    assert changes.wake_at == NOW


@pytest.mark.parametrize(("ttl", "wanted"), [(None, 60), (9, 9), (0, None)])
def test_a_module_says_how_long_its_result_is_kept(ttl: int | None, wanted: int | None) -> None:
    assert only(decide(flow(script("a", options={"cache_ttl": ttl})))).cache_ttl_s == wanted


def test_a_step_of_code_is_kept_only_with_a_time_of_its_own_and_apart_from_other_code() -> None:
    assert only(decide(flow(raw()))).cache_key is None
    kept = [
        only(decide(flow({**raw(**code), "cache_ttl": 5}), **how)).cache_key
        for code, how in (
            ({}, {}),
            ({"content": "other"}, {}),
            ({"lock": "x==1"}, {}),
            ({}, {"path": "u/ann/g"}),
            ({}, {"flow_version": None, "permissioned_as": "u/ann"}),
            ({}, {"flow_version": None, "permissioned_as": "u/bob"}),
        )
    ]
    assert None not in kept
    assert len(set(kept)) == len(kept)
    assert only(decide(flow({**raw(), "cache_ttl": 5}), flow_version="4")).cache_key == kept[0]


def test_a_step_after_a_sleep_does_not_look_for_a_kept_result() -> None:
    told = Told()
    row, ended = succeeded(1)
    sleeps = step("a", "code", options={"sleep": {"type": "static", "value": 2}})
    new = only(decide(flow(sleeps, script("b")), told, step=row, ended=[ended]))
    assert (new.due_in_ms, new.cache_ttl_s) == (2000, 60)
    assert not [ask for ask in told.asked if isinstance(ask, Cached)]


def test_a_nested_flow_is_kept_as_when_it_runs_by_itself() -> None:
    value = {"type": "flow", "path": "u/ann/g", "input_transforms": {}}
    new = only(decide(flow({"id": "a", "value": value}, same_worker=True)))
    assert (new.kind, new.cache_ttl_s, new.same_worker) == (JobKind.FLOW, 30, False)
    assert new.cache_key == cache_key("w", "flow u/ann/g 9", "{}")


# ---- what is erased, and where it runs


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, 5),
        ({"delete_after_secs": 9}, 9),
        ({"delete_after_use": True}, 0),
        ({"delete_after_use": True, "delete_after_secs": 3}, 3),
        ({"delete_after_use": False}, 5),
    ],
)
def test_a_module_says_when_its_traces_are_erased(options: Mapping[str, Any], wanted: int) -> None:
    assert only(decide(flow(script("a", options=options)))).erase_after_s == wanted


def test_a_loop_hands_down_when_its_traces_are_erased_and_that_all_run_on_one_worker() -> None:
    two = loop("l", [1], raw(), step("b", "code"), options={"delete_after_secs": 4})
    body = only(decide(flow(two, same_worker=True)))
    assert (body.kind, body.erase_after_s, body.same_worker) == (JobKind.FLOW_NODE, 4, True)
    one = loop("l", [1], raw(), options={"delete_after_secs": 4})
    collapsed = only(decide(flow(one, same_worker=True)))
    assert (collapsed.kind, collapsed.erase_after_s, collapsed.same_worker) == (JobKind.FLOW_SCRIPT, 4, True)
    inside = only(decide(flow(two, same_worker=True), body="l", kind=JobKind.FLOW_NODE))
    assert (inside.kind, inside.same_worker) == (JobKind.FLOW_SCRIPT, True)
    assert not only(decide(flow(raw()))).same_worker


# ---- what expressions see


def test_rules_see_the_inputs_of_their_step() -> None:
    told = Told(truths={"params.x": True})
    row, ended = succeeded(1)
    stops = {"stop_after_if": {"expr": "params.x"}}
    changes = decide(flow(step("a", "code", options=stops), step("b", "code")), told, step=row, ended=[ended])
    assert changes.end is not None
    assert [ask.names["params"] for ask in told.asked if isinstance(ask, Truth)] == [ArgsOf(JOB)]

    told = Told(truths={"params.x": False})
    row, ended = failed()
    retry = {"retry": {"constant": {"attempts": 1, "seconds": 0}, "retry_if": {"expr": "params.x"}}}
    changes = decide(flow(step("a", "code", options=retry)), told, step=row, ended=[ended])
    assert changes.end is not None
    assert [ask.names["params"] for ask in told.asked if isinstance(ask, Truth)] == [ArgsOf(JOB)]

    told = Told(truths={"params.x == 7": True})
    new = only(decide(flow({**raw(), "skip_if": {"expr": "params.x == 7"}}), told))
    assert new.answered
    assert [ask.names["params"] for ask in told.asked if isinstance(ask, Truth)] == [msgspec.Raw(b'{"x":7}')]


# ---- nesting


def test_flows_are_not_nested_without_an_end() -> None:
    value = flow({"id": "a", "value": {"type": "flow", "path": "u/ann/g", "input_transforms": {}}})
    assert only(decide(value, depth=19)).kind is JobKind.FLOW
    assert message(only(decide(value, depth=20))) == "step a: flows run in no more than 20 others"


# ---- time


def test_a_flow_that_takes_too_long_is_stopped_and_then_fails() -> None:
    changes = decide(flow(raw()), timeout_s=5, deadline_at=NOW - timedelta(seconds=1))
    assert changes.end is not None
    assert changes.end.outcome is Outcome.FAILURE


# ---- failure modules


def test_what_a_failure_module_has_answered_below_is_the_answer() -> None:
    row, ended = failed()
    ended = msgspec.structs.replace(ended, handled=True)
    value = flow(loop("a", [1], raw(), step("b", "code")), failure_module=step("failure", "code"))
    for kind, body, handled in ((JobKind.FLOW, None, False), (JobKind.FLOW_NODE, "a", True)):
        changes = decide(value, step=row, ended=[ended], kind=kind, body=body)
        assert changes.end is not None
        assert (changes.end.outcome, changes.end.handled) == (Outcome.FAILURE, handled)
        assert changes.end.result == ended.result
        assert not changes.start
