"""How far a flow is, as clients read it: from rows and modules to JSON, one case each."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from tidemill.api.jobs import flow_status, raw_flow
from tidemill.api.jobs.flow_status import FAILURE_NO, PREPROCESSOR_NO, Walk
from tidemill.shared import flow
from tidemill.shared.flow import DEFAULT_BRANCH, Body

A, B, C, D = (f"0000000{digit}-0000-7000-8000-000000000000" for digit in range(1, 5))
AT = "2026-11-24T03:00:00Z"


def code(module: str, **more: Any) -> dict[str, Any]:
    value = {"type": "rawscript", "content": "", "language": "bash", "input_transforms": {}}
    return {"id": module, "value": value, **more}


def container(module: str, kind: str, **value: Any) -> dict[str, Any]:
    return {"id": module, "value": {"type": kind, **value}}


LOOP = container("l", "forloopflow", modules=[code("i")], iterator={"type": "javascript", "expr": "[]"}, parallel=True)
WHILE = container("w", "whileloopflow", modules=[code("i"), code("j")])
ONE = container("o", "branchone", branches=[{"expr": "1", "modules": [code("x")]}], default=[])
ALL = container("all", "branchall", branches=[{"modules": [code("x")]}, {"modules": [code("y"), LOOP]}])
CHILDREN = {"ids": [A, B, C], "success": [True, False, None], "started_at": [AT, AT, None], "duration_ms": [5, 7, None]}
TOLD = {
    "flow_jobs": [A, B, C],
    "flow_jobs_success": [True, False, None],
    "flow_jobs_duration": {"started_at": [AT, AT, None], "duration_ms": [5, 7, None]},
}
UNTOUCHED = {"type": "WaitingForPriorSteps", "id": "failure"}


def rendered(
    modules: Sequence[Any], rows: Sequence[Mapping[str, Any]], body: Body | None = None, **how: Any
) -> dict[str, Any]:
    """Return the status as it goes over the wire; `modules` are those of the whole flow."""
    walk = Walk(
        flow=flow.read(json.dumps({"modules": modules})),
        body=body or Body(),
        steps=flow_status.read(json.dumps(rows)),
        **how,
    )
    told: dict[str, Any] = json.loads(msgspec.json.encode(flow_status.render(walk)))
    return told


def module(modules: Sequence[Any], no: int, row: Mapping[str, Any], **how: Any) -> dict[str, Any]:
    """Return the status of the one module that has a row."""
    full = {"no": no, "module": modules[no]["id"], **row}
    told: dict[str, Any] = rendered(modules, [full], **{"at_step": no} | how)["modules"][no]
    return told


def test_a_flow_shows_all_its_modules_from_the_first_moment() -> None:
    assert rendered([code("a"), LOOP], []) == {
        "step": 0,
        "modules": [{"type": "WaitingForPriorSteps", "id": "a"}, {"type": "WaitingForPriorSteps", "id": "l"}],
        "failure_module": UNTOUCHED,
    }
    assert rendered([], [], outcome="success") == {"step": 0, "modules": [], "failure_module": UNTOUCHED}


PLAIN: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]] = {
    "in line": ({"state": "started", "job_id": A, "job_state": "queued"}, {"type": "WaitingForExecutor", "job": A}, {}),
    "retry": (
        {"state": "started", "job_id": A, "job_state": "scheduled"},
        {"type": "WaitingForExecutor", "job": A},
        {},
    ),
    "limited": (
        {"state": "started", "job_id": A, "job_state": "blocked"},
        {"type": "WaitingForExecutor", "job": A},
        {},
    ),
    "claimed": ({"state": "started", "job_id": A, "job_state": "running"}, {"type": "InProgress", "job": A}, {}),
    "a flow": ({"state": "started", "job_id": A, "job_state": "suspended"}, {"type": "InProgress", "job": A}, {}),
    "just ended": ({"state": "started", "job_id": A, "job_state": None}, {"type": "InProgress", "job": A}, {}),
    "unheard": ({"state": "ended", "job_id": A, "outcome": "success"}, {"type": "Success", "job": A}, {}),
    "unheard skipped": ({"state": "ended", "job_id": A, "outcome": "skipped"}, {"type": "Success", "job": A}, {}),
    "unheard failure": ({"state": "ended", "job_id": A, "outcome": "failure"}, {"type": "Failure", "job": A}, {}),
    "unheard cancel": ({"state": "ended", "job_id": A, "outcome": "canceled"}, {"type": "Failure", "job": A}, {}),
    "well": ({"state": "success", "job_id": A}, {"type": "Success", "job": A}, {}),
    "badly": ({"state": "failure", "job_id": A}, {"type": "Failure", "job": A}, {}),
    "skipped": ({"state": "success", "job_id": A, "skipped": True}, {"type": "Success", "job": A, "skipped": True}, {}),
    "left behind": ({"state": "started", "job_id": A}, {"type": "Failure", "job": A}, {"outcome": "canceled"}),
    "parked": (
        {"state": "waiting", "job_id": A, "needed": 2},
        {"type": "WaitingForEvents", "job": A, "count": 2},
        {},
    ),
    "parked to the end": (
        {"state": "waiting", "job_id": A, "needed": 2},
        {"type": "WaitingForPriorSteps"},
        {"outcome": "canceled"},
    ),
    "approved": (
        {"state": "success", "job_id": A, "approvers": [{"resume_id": 4_000_000_000, "approver": "bob"}]},
        {"type": "Success", "job": A, "approvers": [{"resume_id": 4_000_000_000, "approver": "bob"}]},
        {},
    ),
    "tried again": (
        {"state": "success", "job_id": C, "attempt": 2, "failed_retries": [A, B]},
        {"type": "Success", "job": C, "failed_retries": [A, B]},
        {},
    ),
}


@pytest.mark.parametrize("case", PLAIN)
def test_a_plain_step(case: str) -> None:
    row, expected, how = PLAIN[case]
    assert module([code("a"), code("b")], 1, row, **how) == {"id": "b", **expected}


def test_a_failure_that_may_be_tried_again_is_not_told_before_that_is_decided() -> None:
    modules = [code("a", retry={"constant": {"attempts": 1}})]
    row = {"no": 0, "module": "a", "state": "ended", "job_id": A, "outcome": "failure"}
    assert rendered(modules, [row], at_step=0)["modules"][0]["type"] == "InProgress"
    again = {"no": 0, "module": "a", "state": "started", "job_id": B, "job_state": "scheduled", "failed_retries": [A]}
    status = rendered(modules, [{**again, "attempt": 1}], at_step=0)
    assert status["retry"] == {"fail_count": 1, "failed_jobs": [A]}
    assert status["modules"] == [{"type": "WaitingForExecutor", "id": "a", "job": B, "failed_retries": [A]}]


def test_a_loop_tells_its_children_and_the_iteration_begun_last() -> None:
    row = {"state": "started", "total": 5, "started": 3, "items": [1, 2, 3, 4, 5], "children": CHILDREN}
    assert module([LOOP], 0, row) == {
        "type": "InProgress",
        "id": "l",
        "job": C,
        "iterator": {"index": 2, "itered": [1, 2, 3, 4, 5], "itered_len": 5},
        "parallel": True,
        **TOLD,
    }
    assert module([LOOP], 0, {**row, "state": "success"}) == {"type": "Success", "id": "l", "job": C, **TOLD}
    # The one that failed is the one to look at.
    failed = module([LOOP], 0, {**row, "state": "failure", "job_id": B})
    assert failed == {"type": "Failure", "id": "l", "job": B, **TOLD}


def test_a_list_that_is_long_is_told_by_its_length() -> None:
    row = {"state": "started", "total": 9000, "started": 3, "items": None, "children": CHILDREN}
    assert module([LOOP], 0, row)["iterator"] == {"index": 2, "itered_len": 9000}


def test_a_loop_without_iterations_is_still_a_loop() -> None:
    empty = {"flow_jobs": [], "flow_jobs_success": [], "flow_jobs_duration": {"started_at": [], "duration_ms": []}}
    assert module([LOOP], 0, {"state": "success", "total": 0}) == {"type": "Success", "id": "l", **empty}
    assert module([WHILE], 0, {"state": "started"}) == {"type": "InProgress", "id": "w", **empty}


def test_a_loop_that_was_skipped_or_never_began_has_a_job_instead() -> None:
    skipped = module([LOOP], 0, {"state": "success", "job_id": A, "skipped": True})
    assert skipped == {"type": "Success", "id": "l", "job": A, "skipped": True}
    assert module([LOOP], 0, {"state": "failure", "job_id": A}) == {"type": "Failure", "id": "l", "job": A}


def test_a_while_loop_has_no_length() -> None:
    row = {"state": "started", "started": 3, "children": CHILDREN}
    told = module([WHILE], 0, row)
    assert (told["iterator"], told["while_loop"]) == ({"index": 2}, True)
    assert "parallel" not in told


def test_branches() -> None:
    told = module([ALL], 0, {"state": "started", "total": 2, "started": 1, "children": CHILDREN})
    assert (told["branchall"], told["parallel"], told["flow_jobs"]) == ({"branch": 0, "len": 2}, False, [A, B, C])
    chosen = {"state": "started", "job_id": A, "job_state": "suspended", "branch": 0}
    assert module([ONE], 0, chosen) == {
        "type": "InProgress",
        "id": "o",
        "job": A,
        "branch_chosen": {"type": "branch", "branch": 0},
    }
    default = {"state": "success", "job_id": A, "branch": DEFAULT_BRANCH}
    assert module([ONE], 0, default)["branch_chosen"] == {"type": "default"}


def test_the_failure_module_names_the_step_that_failed() -> None:
    rows: list[dict[str, Any]] = [
        {"no": 0, "module": "a", "state": "failure", "job_id": A},
        {"no": 1, "module": "b", "state": "failure", "job_id": B},
        {"no": FAILURE_NO, "module": "failure", "state": "started", "job_id": C, "job_state": "running"},
    ]
    status = rendered([code("a"), code("b"), code("c")], rows, at_step=FAILURE_NO)
    assert status["step"] == 3
    assert status["failure_module"] == {"type": "InProgress", "id": "failure", "job": C, "parent_module": "b"}
    assert [each["type"] for each in status["modules"]] == ["Failure", "Failure", "WaitingForPriorSteps"]


def test_the_preprocessor_stands_before_the_first_module() -> None:
    row = {"no": PREPROCESSOR_NO, "module": "preprocessor", "state": "success", "job_id": A}
    status = rendered([code("a")], [row], at_step=PREPROCESSOR_NO)
    assert status["step"] == -1
    assert status["preprocessor_module"] == {"type": "Success", "id": "preprocessor", "job": A}
    assert status["modules"] == [{"type": "WaitingForPriorSteps", "id": "a"}]


@pytest.mark.parametrize(
    ("outcome", "states", "step"),
    [
        (None, ["success", "started"], 1),
        ("success", ["success", "success"], 2),
        ("success", ["success"], 2),
        ("skipped", [], 2),
        ("failure", ["success", "failure"], 1),
        ("canceled", [], 0),
    ],
)
def test_the_step_lies_behind_all_modules_after_a_good_end(outcome: str | None, states: list[str], step: int) -> None:
    rows = [{"no": no, "module": "ab"[no], "state": state, "job_id": A} for no, state in enumerate(states)]
    at_step = len(rows) - 1 if outcome is None else None
    assert rendered([code("a"), code("b")], rows, outcome=outcome, at_step=at_step)["step"] == step


def test_a_flow_that_waits_behind_its_last_module_shows_it_there() -> None:
    rows: list[dict[str, Any]] = [
        {"no": 0, "module": "a", "state": "success", "job_id": A},
        {"no": 1, "module": "a", "state": "waiting", "job_id": A, "needed": 1},
    ]
    status = rendered([code("a")], rows, at_step=1)
    assert status["step"] == 1
    assert status["modules"] == [{"type": "WaitingForEvents", "id": "a", "job": A, "count": 1}]
    done = rendered([code("a")], [rows[0], {**rows[1], "state": "failure"}], outcome="failure")
    assert [each["type"] for each in done["modules"]] == ["Success"]


def test_a_body_shows_its_own_modules() -> None:
    row = {"no": 1, "module": "l", "state": "started", "total": 1, "started": 1, "children": CHILDREN}
    status = rendered([code("a"), ALL], [row], Body("all", 1), at_step=1)
    assert [(each["id"], each["type"]) for each in status["modules"]] == [
        ("y", "WaitingForPriorSteps"),
        ("l", "InProgress"),
    ]


def test_without_its_value_a_flow_is_told_by_its_rows() -> None:
    rows: list[dict[str, Any]] = [
        {"no": 0, "module": "a", "state": "success", "job_id": A},
        {"no": 1, "module": "l", "state": "success", "total": 3, "started": 3, "children": CHILDREN},
    ]
    walk = Walk(flow=None, body=Body(), steps=flow_status.read(json.dumps(rows)), outcome="success")
    status = json.loads(msgspec.json.encode(flow_status.render(walk)))
    assert status["step"] == 2
    assert status["modules"][0] == {"type": "Success", "id": "a", "job": A}
    assert status["modules"][1] == {"type": "Success", "id": "l", "job": C, **TOLD}


def test_what_it_walks_through_is_shown_as_it_was_sent() -> None:
    odd = code("y", notes={"big": 12345678901234567890123, "f": 1.50})
    value = json.dumps({"modules": [container("all", "branchall", branches=[{"modules": []}, {"modules": [odd]}])]})
    whole = raw_flow.part(value, Body())
    assert whole is not None
    assert bytes(whole).decode() == value
    inner = raw_flow.part(value, Body("all", 1))
    assert inner is not None
    assert json.loads(bytes(inner)) == {"modules": [odd]}
    assert b"12345678901234567890123" in bytes(inner)
    assert b"1.5" in bytes(inner)
    assert raw_flow.part(value, Body("all", 2)) is None


def test_each_body_of_a_flow_is_found_in_its_raw_value() -> None:
    value = json.dumps({"modules": [ALL, ONE, WHILE], "failure_module": {**code("failure")}})
    parsed = flow.read(value)
    for each in flow.every_module(parsed):
        for body, modules in flow.bodies(each):
            found = raw_flow.part(value, body)
            assert found is not None
            assert [m["id"] for m in json.loads(bytes(found))["modules"]] == [m.id for m in modules]
