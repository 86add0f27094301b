"""What a result says about its own run."""

import json
from typing import Any

import msgspec
import pytest

from tidemill.worker import marks
from tidemill.worker.sandbox.execution import Ending


def an_ending(result: Any, *, success: bool = True) -> Ending:
    return Ending(success=success, result=msgspec.Raw(json.dumps(result).encode()), reason="returned")


@pytest.mark.parametrize("success", [True, False])
def test_labels_are_found_each_once_even_on_a_failure(success: bool) -> None:
    assert marks.labels(an_ending({"wm_labels": ["b", "a", "b"]}, success=success)) == ["b", "a"]


@pytest.mark.parametrize(
    "result", [None, 1, "wm_labels", ["wm_labels"], {}, {"wm_labels": []}, {"a": {"wm_labels": ["x"]}}]
)
def test_most_results_have_no_labels(result: Any) -> None:
    assert marks.labels(an_ending(result)) is None


@pytest.mark.parametrize("named", ["a", {"a": 1}, [1], [""], ["x" * 201], [["a"]], [str(n) for n in range(51)]])
def test_what_can_be_no_labels_is_said(named: Any) -> None:
    with pytest.raises(marks.NoLabels, match="wm_labels"):
        marks.labels(an_ending({"wm_labels": named}))


def test_a_result_may_call_itself_a_failure() -> None:
    ending = marks.judged(an_ending({"wm_failure": "too few", "rows": [1.50]}))
    assert not ending.success
    assert json.loads(bytes(ending.result)) == {
        "wm_failure": "too few",
        "rows": [1.5],
        "error": {"name": "ManualFailure", "message": "too few"},
    }


@pytest.mark.parametrize(
    "result", [{"wm_failure": ""}, {"wm_failure": None}, {"wm_failure": 7}, "wm_failure", {"a": 1}]
)
def test_everything_else_is_as_it_was(result: Any) -> None:
    ending = an_ending(result)
    assert marks.judged(ending) is ending


def test_an_error_stays_the_error_that_it_is() -> None:
    ending = an_ending({"wm_failure": "x", "error": {"name": "E"}}, success=False)
    assert marks.judged(ending) is ending


def test_attack_a_result_of_any_depth_is_only_a_result() -> None:
    deep = b'{"wm_labels": ["a"], "wm_failure": "x", "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    ending = Ending(success=True, result=msgspec.Raw(deep), reason="returned")
    assert marks.judged(ending) is ending
    assert marks.labels(ending) is None
