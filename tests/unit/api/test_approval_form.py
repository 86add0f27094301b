"""The form of an approval: what a schema asks for, and what comes back from a browser."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tidemill.api.approvals import form
from tidemill.api.approvals.form import Kind, WrongForm

SCHEMA = {
    "properties": {
        "line": {"type": "string", "default": "x"},
        "text": {"type": "string", "format": "textarea"},
        "secret": {"type": "string", "password": True},
        "whole": {"type": "integer"},
        "number": {"type": "number"},
        "tick": {"type": "boolean"},
        "pick": {"type": "string", "enum": ["a", 2]},
        "more": {"type": "object"},
        "no schema": "at all",
    },
    "required": ["line"],
    "order": ["tick", "gone", ["line"], {"line": 1}, None, "line"],
}
GOOD: Mapping[str, tuple[str, Any]] = {
    "line": ("a\r\nb", "a\nb"), "secret": ("s", "s"), "whole": ("-3", -3), "number": ("1.5", 1.5),
    "tick": ("yes", True), "pick": ("1", 2), "more": ('{"a": [1]}', {"a": [1]}),
}  # fmt: skip
WRONG = {
    "whole": ["1.5", "x", "true", "[", '"1"'], "number": ["x", "NaN", "true", "null"],
    "pick": ["2", "-1", "x", "a", "99999999"],
    "more": ["{", "nope", "[" * 5000],
}  # fmt: skip


def asked(
    schema: Any = SCHEMA, defaults: Mapping[str, Any] | None = None, enums: Mapping[str, Any] | None = None
) -> dict[str, form.Field]:
    raw = None if schema is None else msgspec.Raw(json.dumps(schema).encode())
    return {each.key: each for each in form.fields(raw, defaults or {}, enums or {})}


def test_each_type_is_asked_for_in_its_own_way_and_in_the_given_order() -> None:
    fields = asked()
    assert {key: each.kind for key, each in fields.items()} == {
        "line": Kind.LINE, "text": Kind.TEXT, "secret": Kind.HIDDEN, "whole": Kind.WHOLE, "number": Kind.NUMBER,
        "tick": Kind.TICK, "pick": Kind.CHOICE, "more": Kind.JSON,
    }  # fmt: skip
    assert list(fields)[:3] == ["tick", "line", "text"]
    assert [each.key for each in fields.values() if each.required] == ["line"]


def test_the_steps_answer_gives_defaults_and_choices() -> None:
    fields = asked(defaults={"line": "theirs"}, enums={"whole": [1, 2]})
    assert (fields["line"].value, fields["whole"].kind, list(fields["whole"].choices)) == (
        "theirs",
        Kind.CHOICE,
        [1, 2],
    )


def test_what_is_filled_in_comes_back_as_json() -> None:
    sent = {f"field.{key}": given for key, (given, _) in GOOD.items()}
    assert json.loads(form.filled_in(list(asked().values()), sent)) == {key: value for key, (_, value) in GOOD.items()}


def test_what_is_left_empty_is_left_out_but_for_a_tick() -> None:
    assert json.loads(form.filled_in(list(asked().values()), {"field.line": "x", "field.other": "y"})) == {
        "line": "x",
        "tick": False,
    }


@pytest.mark.parametrize(("key", "given"), [(key, given) for key, all_of in WRONG.items() for given in all_of])
def test_what_is_filled_in_wrongly_is_named(key: str, given: str) -> None:
    with pytest.raises(WrongForm, match=key):
        form.filled_in([asked()[key]], {f"field.{key}": given})


def test_what_is_needed_has_to_be_filled_in() -> None:
    with pytest.raises(WrongForm, match="line"):
        form.filled_in(list(asked().values()), {"field.line": "  "})


@pytest.mark.parametrize("schema", [None, {}, [], "x", {"properties": []}, {"properties": {"a": 1}}])
def test_what_is_no_schema_asks_for_nothing(schema: Any) -> None:
    assert asked(schema) == {}


def test_a_form_is_bounded() -> None:
    assert len(asked({"properties": {str(each): {} for each in range(5000)}})) == form.MOST_FIELDS
    for body in (b"\xff", b"&".join(b"a=1" for _ in range(5000))):
        with pytest.raises(WrongForm):
            form.sent(body)
