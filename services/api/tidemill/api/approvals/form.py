"""The form of an approval, from its JSON schema to what a browser sends back. Pure.

string ── a line of text, or several    boolean ───────── a box to tick
number, integer ── a number             anything else ─── JSON
whatever has values to choose from ──── a list
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl

import msgspec

MOST_FIELDS = 100
MOST_CHOICES = 1000
_PREFIX = "field."


class WrongForm(ValueError):
    """A sentence on what was filled in wrongly."""


class Kind(StrEnum):
    """How something is asked for."""

    LINE = "line"
    TEXT = "text"
    HIDDEN = "hidden line"
    NUMBER = "number"
    WHOLE = "whole number"
    TICK = "tick"
    CHOICE = "choice"
    JSON = "json"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is asked for."""

    key: str
    kind: Kind
    title: str
    description: str
    required: bool
    value: Any
    """What stands in it at first; None for nothing."""
    choices: Sequence[Any] = ()

    @property
    def name(self) -> str:
        """What the browser calls it."""
        return _PREFIX + self.key


def fields(schema: msgspec.Raw | None, defaults: Mapping[str, Any], enums: Mapping[str, Any]) -> Sequence[Field]:
    """Return what a schema asks for; what the step's answer says of defaults and choices comes first."""
    read = {} if schema is None else msgspec.json.decode(schema)
    properties = read.get("properties") if isinstance(read, dict) else None
    if not isinstance(properties, dict):
        return ()
    required = read.get("required")
    needed = set(map(str, required)) if isinstance(required, list) else set()
    order = read.get("order")
    keys = [each for each in order if isinstance(each, str) and each in properties] if isinstance(order, list) else []
    keys = list(dict.fromkeys([*keys, *properties]))[:MOST_FIELDS]
    return [
        _field(key, properties[key], key in needed, defaults, enums)
        for key in keys
        if isinstance(properties[key], dict)
    ]


def filled_in(asked: Sequence[Field], sent: Mapping[str, str]) -> str:
    """Return what was filled in as JSON; raises WrongForm."""
    values: dict[str, Any] = {}
    for field in asked:
        given = sent.get(field.name, "")
        if field.kind is Kind.TICK:
            values[field.key] = bool(given)
        elif given.strip():
            values[field.key] = _value(field, given)
        elif field.required:
            raise WrongForm(f"{field.title}: this is needed.")
    return msgspec.json.encode(values).decode()


def sent(body: bytes) -> Mapping[str, str]:
    """Return what a browser sent, the last of each name; raises WrongForm."""
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=2 * MOST_FIELDS))
    except ValueError:
        raise WrongForm("What your browser sent can't be read.") from None


def _field(
    key: str, about: Mapping[str, Any], required: bool, defaults: Mapping[str, Any], enums: Mapping[str, Any]
) -> Field:
    choices = enums.get(key, about.get("enum"))
    kind = Kind.CHOICE if isinstance(choices, list) and choices else _kind(about)
    title, description = about.get("title"), about.get("description")
    return Field(
        key=key,
        kind=kind,
        title=title if isinstance(title, str) and title else key,
        description=description if isinstance(description, str) else "",
        required=required,
        value=defaults.get(key, about.get("default")),
        choices=choices[:MOST_CHOICES] if kind is Kind.CHOICE else (),
    )


def _kind(about: Mapping[str, Any]) -> Kind:
    match about.get("type"):
        case "string":
            if about.get("password") is True:
                return Kind.HIDDEN
            return Kind.TEXT if about.get("format") == "textarea" else Kind.LINE
        case "integer":
            return Kind.WHOLE
        case "number":
            return Kind.NUMBER
        case "boolean":
            return Kind.TICK
        case _:
            return Kind.JSON


def _value(field: Field, given: str) -> Any:
    if field.kind in (Kind.LINE, Kind.TEXT, Kind.HIDDEN):
        return given.replace("\r\n", "\n")
    if field.kind is Kind.CHOICE:
        if not (given.isascii() and given.isdigit() and len(given) < 5 and int(given) < len(field.choices)):
            raise WrongForm(f"{field.title}: this is none of the choices.")
        return field.choices[int(given)]
    try:
        value = msgspec.json.decode(given)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise WrongForm(f"{field.title}: this is no {_called(field.kind)}.") from None
    if field.kind is Kind.JSON:
        return value
    wanted = (int,) if field.kind is Kind.WHOLE else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise WrongForm(f"{field.title}: this is no {_called(field.kind)}.")
    return value


def _called(kind: Kind) -> str:
    return "JSON" if kind is Kind.JSON else str(kind)
