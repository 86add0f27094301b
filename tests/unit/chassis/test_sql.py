"""Named SQL."""

import pytest

from tidemill.chassis.sql import parse

TEXT = """\
-- What this file is about.

-- name: take_due
-- SKIP LOCKED: several may look at once.
SELECT 1;

-- name: put_back
UPDATE x SET y = 1
"""


def test_statements_are_found_by_name() -> None:
    queries = parse(TEXT)
    assert list(queries) == ["take_due", "put_back"]
    assert queries.put_back == "UPDATE x SET y = 1"
    assert queries["take_due"].endswith("SELECT 1")


def test_a_name_may_not_come_twice() -> None:
    with pytest.raises(ValueError, match="take_due is there twice"):
        parse(TEXT + "\n-- name: take_due\nSELECT 2\n")


def test_a_part_stands_where_it_is_used() -> None:
    queries = parse("-- part: theirs\nWHERE id = $1\n\n-- name: a\nSELECT 1\n  -- use: theirs\nFOR UPDATE;\n")
    assert dict(queries) == {"a": "SELECT 1\nWHERE id = $1\nFOR UPDATE"}


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no part is named theirs"):
        parse("-- name: a\nSELECT 1\n-- use: theirs\n")


def test_an_unknown_name_says_so() -> None:
    with pytest.raises(AttributeError, match="no statement is named drop_all"):
        _ = parse(TEXT).drop_all
