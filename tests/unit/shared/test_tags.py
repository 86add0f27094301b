"""Places in tags and concurrency keys."""

import pytest

from tidemill.shared import tags


@pytest.mark.parametrize("tag", ["python3", "gpu", "a.b-c_d:e/f+g", "9"])
def test_good_tags(tag: str) -> None:
    assert tags.why_not(tag) is None


@pytest.mark.parametrize("tag", ["", "a b", "-a", "a\n", "$workspace", "é", "a" * 101, "a#", "*"])
def test_bad_tags(tag: str) -> None:
    assert tags.why_not(tag) is not None


def test_places_are_filled_in() -> None:
    args = '{"a": "x", "n": 1.5, "o": {"in": true}, "dot.ted": "d"}'
    filled = tags.fill("$workspace-$args[a]-$args[n]-$args[o.in]-$args[dot.ted]-$args[no]-$args[a.b]", "w", args)
    assert filled == "w-x-1.5-true-d-null-null"


def test_a_tag_may_have_places() -> None:
    assert tags.why_not_template("gpu-$workspace-$args[size]") is None
    assert tags.why_not_template("gpu-$other") is not None


def test_the_default_key_is_the_scripts_or_the_flows_own() -> None:
    assert tags.limit_key(None, "w", "u/a/s", "{}") == "w/script/u/a/s"
    assert tags.limit_key(None, "w", "u/a/s", "{}", of="flow") == "w/flow/u/a/s"


def test_a_long_key_is_shortened_without_losing_what_tells_it_apart() -> None:
    one, other = (tags.limit_key("k-$args[a]", "w", None, f'{{"a": "{"x" * 500}{last}"}}') for last in "12")
    assert len(one) < 255
    assert one != other
