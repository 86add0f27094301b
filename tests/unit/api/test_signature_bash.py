"""What a Bash script takes, as a schema."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.api.scripts.signatures import infer
from tidemill.shared.bash import parameters
from tidemill.worker.executors import bash as worker


def schema(content: str) -> Any:
    signature = infer("bash", content)
    assert signature.why is None
    assert not signature.is_library
    return signature.schema


def test_every_argument_is_a_string_by_position() -> None:
    assert schema('#!/bin/bash\nlast="${3:-x y}"\nfirst="$1"\nsecond="$2"\n') == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "first": {"type": "string"},
            "second": {"type": "string"},
            "last": {"type": "string", "default": "x y"},
        },
        "required": ["first", "second"],
        "order": ["first", "second", "last"],
    }


@pytest.mark.parametrize("default", ["$HOME", "`date`", "a\\n", "'quoted'", "*"])
def test_a_default_that_bash_works_out_is_left_to_it(default: str) -> None:
    found = schema(f'a="${{1:-{default}}}"')
    assert found["properties"] == {"a": {"type": "string"}}
    assert found["required"] == []


def test_a_name_for_two_positions_is_one_argument() -> None:
    assert schema('a="$2"\na="$1"\nb="$3"')["order"] == ["a", "b"]


def test_a_script_without_arguments_takes_none() -> None:
    assert schema("echo hi")["properties"] == {}


@pytest.mark.timeout(10)
def test_lines_that_look_like_the_beginning_of_a_default_cost_no_more_than_others() -> None:
    assert parameters("a=${1:-\n" * 100_000) == []
    assert parameters('a="$1"' + " \n" * 200_000 + "b")[0].name == "a"


def test_no_position_is_so_far_out_that_counting_to_it_hurts() -> None:
    assert parameters('a="${999999999}"') == []


_PIECES = [
    'a="$1"',
    "b=$2",
    'c="${3:-x}"',
    'd="${4:-',
    '}"',
    "export ",
    "\n",
    " ",
    ";",
    "#",
    "é",
    "${12}",
    "=",
    '"',
    "$9",
]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
def test_the_schema_names_what_a_worker_fills_in(content: str) -> None:
    ours = [(each.name, each.position, each.default) for each in parameters(content)]
    assert ours == [(each.name, each.position, each.default) for each in worker.parameters(content)]
