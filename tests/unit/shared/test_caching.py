"""Under which key results are cached."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.shared.caching import cache_key

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
ARGS = st.dictionaries(st.text(), VALUES, max_size=4)


def key(args: str) -> str:
    return cache_key("w", "script f/a/b 00ff", args)


@given(args=ARGS)
def test_the_order_of_names_and_blanks_do_not_tell_runs_apart(args: dict[str, object]) -> None:
    backwards = dict(reversed(args.items()))
    assert key(json.dumps(args, indent=2)) == key(json.dumps(backwards, separators=(",", ":")))


@given(one=ARGS, other=ARGS)
def test_different_arguments_are_told_apart(one: dict[str, object], other: dict[str, object]) -> None:
    written = [json.dumps(each, sort_keys=True) for each in (one, other)]
    assert (key(written[0]) == key(written[1])) == (written[0] == written[1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": 1.5}', '{"a": "1.5"}'),
        ('{"a": 9007199254740992}', '{"a": 9007199254740993}'),
        ('{"a": 0.1}', '{"a": 0.10000000000000000001}'),
        ('{"a": 1e400}', '{"a": 2e400}'),
        ('{"a": "\\ud800"}', '{"a": "\\ud801"}'),
        ('{"a": ' + "[" * 5000 + "]" * 5000 + "}", '{"a": ' + "[" * 4999 + "]" * 4999 + "}"),
        ('{"a": ' + "1" * 5000 + "}", '{"a": ' + "1" * 5001 + "}"),
    ],
)
def test_what_is_hard_to_read_is_told_apart(one: str, other: str) -> None:
    assert key(one) != key(other)


def test_neither_workspaces_nor_runnables_share_results() -> None:
    keys = {cache_key(*each, "{}") for each in (("w", "a"), ("w", "b"), ("v", "a"), ("wa", ""), ("", "wa"))}
    assert len(keys) == 5
