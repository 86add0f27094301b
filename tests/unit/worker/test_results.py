from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from typing import Any

import msgspec
import pytest

from tidemill.worker.sandbox import answers
from tidemill.worker.sandbox.inside.answer import Answer, failure
from tidemill.worker.sandbox.inside.encode import to_json


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    when: dt.date


class Opaque:
    def __str__(self) -> str:
        return "opaque"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 2.5, None, True, "ü"]}, {"a": [1, 2.5, None, True, "ü"]}),
        (dt.datetime(2026, 11, 23, 10, tzinfo=dt.UTC), "2026-11-23T10:00:00+00:00"),
        (dt.date(2026, 11, 23), "2026-11-23"),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ({3}, [3]),
        (b"hi", "aGk="),
        (Colour.RED, "red"),
        (Point(1, dt.date(2026, 11, 23)), {"x": 1, "when": "2026-11-23"}),
        (Opaque(), "opaque"),
        ([float("nan"), float("inf"), 1.0], [None, None, 1.0]),
        ({"a": float("nan"), "d": dt.date(2026, 1, 2), "e": Colour.RED}, {"a": None, "d": "2026-01-02", "e": "red"}),
        ("a\0b", "a\ufffdb"),
        ("a\ud800b", "a?b"),
        ({(1, 2): "x", 3: "y", None: "z"}, {"(1, 2)": "x", "3": "y", "null": "z"}),
    ],
)
def test_python_values_become_json(value: Any, expected: Any) -> None:
    assert json.loads(to_json(value)) == expected


def test_a_value_that_contains_itself_is_an_error_that_says_so() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises(ValueError, match="refers to itself"):
        to_json(value)


def test_an_answer_frame_becomes_an_ending() -> None:
    ending = answers.ending(answers.decode(Answer(True, "returned", b'{"a":1}').frame(77)))
    assert (ending.success, bytes(ending.result), ending.reason, ending.memory_peak_kb) == (
        True,
        b'{"a":1}',
        "returned",
        77,
    )


def test_a_failure_frame_carries_name_message_and_stack() -> None:
    frame = failure("raised", "ValueError", "no\0", stack="at line 1").frame(1)
    assert json.loads(bytes(answers.ending(answers.decode(frame)).result)) == {
        "error": {"name": "ValueError", "message": "no\ufffd", "stack": "at line 1"}
    }


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"{}",
        b'{"success":true,"reason":"timeout","result":1}',
        b'{"success":true,"reason":"returned"}',
    ],
)
def test_a_frame_that_is_no_answer_fails_the_job(payload: Any) -> None:
    ending = answers.ending(answers.decode(payload))
    assert not ending.success
    assert set(json.loads(bytes(ending.result))["error"]) >= {"name", "message"}


@pytest.mark.parametrize("document", [b'{"a":', b"[NaN]", b'"\xff"', b'"\\ud800"', b"[" * 100_000, b"1 2"])
def test_a_result_that_is_no_json_is_refused(document: Any) -> None:
    with pytest.raises((ValueError, RecursionError)):
        answers.storable(document)


@pytest.mark.parametrize("document", [b'{"a": 1.50}', b"123456789012345678901234567890", '"ü\\\\u0041"'.encode()])
def test_a_good_result_is_kept_byte_for_byte(document: Any) -> None:
    assert answers.storable(document) == document


def test_nul_in_a_result_is_replaced() -> None:
    assert json.loads(answers.storable(b'{"a\\u0000": ["\\u0000"]}')) == {"a\ufffd": ["\ufffd"]}


def test_an_end_without_an_answer_names_its_signal_or_code() -> None:
    killed = json.loads(bytes(answers.vanished(139, 1).result))["error"]
    left = json.loads(bytes(answers.vanished(3, 1).result))["error"]
    assert (killed["message"], killed["exit_code"]) == ("killed by SIGSEGV", 139)
    assert left["exit_code"] == 3


@pytest.mark.parametrize("result", [b"[]", b"1", b'{"error": "no"}', b'{"error": {"name": "E"}}'])
def test_a_limit_is_named_whatever_the_job_wrote_in_place_of_an_error(result: bytes) -> None:
    ending = answers.ending(answers.Frame(reason="raised", result=msgspec.Raw(result)))
    error = json.loads(bytes(answers.limited(ending, "memory", "too much").result))["error"]
    assert (error["reason"], error["message"]) == ("memory", "too much: ")


@pytest.mark.parametrize("name", ["spent", "refused", "stream"])
def test_the_texts_of_a_frame_can_be_stored(name: str) -> None:
    assert getattr(answers.decode(b'{"%s": "a\\u0000b"}' % name.encode()), name) == "a\ufffdb"


@pytest.mark.parametrize(("said", "stored"), [(10**15, 2**31 - 1), (-1, 0), (7, 7)])
def test_a_peak_of_memory_can_be_stored(said: int, stored: int) -> None:
    frame = answers.Frame(success=True, reason="returned", result=msgspec.Raw(b"1"), peak_kb=said)
    assert answers.ending(frame).memory_peak_kb == stored
