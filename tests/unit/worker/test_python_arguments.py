from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tidemill.worker.sandbox.inside.arguments import ArgumentError, bind


def call(function: Any, **args: Any) -> Any:
    positional, keywords = bind(function, args)
    return function(*positional, **keywords)


def test_what_the_function_does_not_take_is_left_out() -> None:
    def main(a, b=2):  # type: ignore[no-untyped-def]  # as scripts write it
        return a, b

    assert call(main, a=1, c=3) == (1, 2)


def test_a_function_with_open_keywords_takes_everything() -> None:
    def main(a, **rest):  # type: ignore[no-untyped-def]  # as scripts write it
        return a, rest

    assert call(main, c=3, a=1) == (1, {"c": 3})


def test_positional_only_parameters_keep_their_places() -> None:
    def main(a, b=5, /, *, c=7):  # type: ignore[no-untyped-def]  # as scripts write it
        return a, b, c

    assert call(main, a=1, c=2) == (1, 5, 2)


def test_a_missing_argument_is_named() -> None:
    def main(a, b):  # type: ignore[no-untyped-def]  # as scripts write it
        return a, b

    with pytest.raises(ArgumentError, match=r"main\(\) is missing the argument 'b'"):
        call(main, a=1)


def test_an_argument_that_may_be_none_may_be_left_out() -> None:
    def main(a: int | None, b: str | None) -> None: ...

    assert bind(main, {}) == ([], {"a": None, "b": None})


def test_a_computed_default_is_left_to_python() -> None:
    def main(a=object):  # type: ignore[no-untyped-def]  # as scripts write it
        return a

    assert call(main, a="<function call>") is object


@pytest.mark.parametrize(
    ("hint", "text", "expected"),
    [
        (dt.datetime, "2026-11-23T10:00:00Z", dt.datetime(2026, 11, 23, 10, tzinfo=dt.UTC)),
        (dt.date, "2026-11-23", dt.date(2026, 11, 23)),
        (dt.date, "2026-11-23T10:00:00Z", dt.date(2026, 11, 23)),
        (dt.time, "10:30", dt.time(10, 30)),
        (bytes, "aGk=", b"hi"),
        (dt.datetime | None, "2026-11-23T10:00:00", dt.datetime.fromisoformat("2026-11-23T10:00:00")),
        (dt.datetime | None, None, None),
        (list[bytes], ["aGk=", "aGk="], [b"hi", b"hi"]),
        (str, "2026-11-23", "2026-11-23"),
        (str | dt.date, "2026-11-23", "2026-11-23"),
        (None, "2026-11-23", "2026-11-23"),
        (int, "7", "7"),
    ],
)
def test_text_becomes_what_the_annotation_says(hint: Any, text: Any, expected: Any) -> None:
    def main(x):  # type: ignore[no-untyped-def]  # as scripts write it
        return x

    main.__annotations__["x"] = hint
    assert call(main, x=text) == expected


def test_annotations_written_as_text_are_looked_up() -> None:
    def main(x):  # type: ignore[no-untyped-def]  # as scripts write it
        return x

    main.__annotations__["x"] = "dt.date"
    assert call(main, x="2026-11-23") == dt.date(2026, 11, 23)


def test_annotations_that_cannot_be_looked_up_convert_nothing() -> None:
    def main(x):  # type: ignore[no-untyped-def]  # as scripts write it
        return x

    main.__annotations__["x"] = "Nowhere.Type"
    assert call(main, x="2026-11-23") == "2026-11-23"


@pytest.mark.parametrize(("hint", "text"), [(dt.datetime, "yesterday"), (bytes, "ä!")])
def test_text_that_cannot_be_converted_is_refused_by_its_name(hint: Any, text: Any) -> None:
    def main(x):  # type: ignore[no-untyped-def]  # as scripts write it
        return x

    main.__annotations__["x"] = hint
    with pytest.raises(ArgumentError, match="argument 'x' is not"):
        call(main, x=text)
