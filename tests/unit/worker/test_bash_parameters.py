from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tidemill.worker.executors.bash import Parameter, argv, parameters, text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('name="$1"', Parameter("name", 1)),
        ("name=$1", Parameter("name", 1)),
        ('name="${1}"', Parameter("name", 1)),
        ('name="${2:-default value}"', Parameter("name", 2, "default value")),
        ('name="${2:-}"', Parameter("name", 2, "")),
        ('name="${12}" # the twelfth', Parameter("name", 12)),
        ('export NAME="$3"', Parameter("NAME", 3)),
    ],
)
def test_a_line_that_takes_an_argument_names_it(line: Any, expected: Any) -> None:
    assert parameters(f"#!/bin/bash\n{line}\necho done") == [expected]


@pytest.mark.parametrize(
    "line", ['  name="$1"', '# name="$1"', 'name="$x"', 'name="a$1"', 'echo "$1"', 'name="$0"', 'local name="$1"']
)
def test_other_lines_name_nothing(line: Any) -> None:
    assert parameters(line) == []


def test_parameters_come_by_position_and_the_first_name_counts() -> None:
    assert [p.name for p in parameters('b="$2"\na="$1"\nc="$2"')] == ["a", "b"]


def test_strings_go_as_they_are_and_everything_else_as_json_text() -> None:
    code = 's="$1"\nn="$2"\no="$3"\nb="$4"'
    args = msgspec.json.decode(
        b'{"o": {"k": [1, 2.0]}, "n": 1.50, "s": "a \\"b\\"\\n", "b": true}', type=dict[str, msgspec.Raw]
    )
    assert argv(code, args) == ['a "b"\n', "1.50", '{"k": [1, 2.0]}', "true"]


def test_missing_null_and_unnamed_positions_are_empty() -> None:
    args = {"first": msgspec.Raw(b"null"), "third": msgspec.Raw(b'"x"')}
    assert argv('first="$1"\nthird="$3"\nfourth="${4:-d}"', args) == ["", "", "x", ""]


def test_nul_cannot_be_an_argument_and_is_left_out() -> None:
    assert text(msgspec.Raw(b'"a\\u0000b"')) == "ab"
