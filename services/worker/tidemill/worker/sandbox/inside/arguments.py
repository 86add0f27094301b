"""A job's JSON arguments as the parameters of the function that it calls."""

from __future__ import annotations

import base64
import binascii
import datetime
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

# A default that is not a literal is recorded under this name and left to Python.
COMPUTED_DEFAULT = "<function call>"


class ArgumentError(TypeError):
    """The job's arguments do not fit the function."""


def bind(function: Callable[..., Any], args: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments for the function; what it does not take is left out."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin that does not tell
        return [], dict(args)
    hints = _hints(function)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in parameters:
        name = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            keywords = {**{key: value for key, value in args.items() if key not in keywords}, **keywords}
            continue
        has_default = parameter.default is not parameter.empty
        # The schema calls an argument that may be None not required, so a caller may leave it out.
        optional = not has_default and _may_be_none(hints.get(name))
        if not optional and (name not in args or (has_default and args[name] == COMPUTED_DEFAULT)):
            if not has_default:
                raise ArgumentError(f"{_name(function)}() is missing the argument {name!r}")
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(parameter.default)
            continue
        value = convert(name, args.get(name), hints.get(name))
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            keywords[name] = value
    return positional, keywords


def _may_be_none(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)


def convert(name: str, value: Any, hint: Any) -> Any:
    """Return the value as annotated: dates from ISO text, bytes from base64, alone, optional or in lists."""
    if hint is None:
        return value
    if isinstance(value, list) and typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint) or (None,)
        return [convert(name, each, item) for each in value]
    if not isinstance(value, str):
        return value
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = typing.get_args(hint)
        if str in choices:
            return value
        hint = next((choice for choice in choices if choice in CONVERSIONS), None)
    if not isinstance(hint, type) or hint not in CONVERSIONS:
        return value
    parse, wanted = CONVERSIONS[hint]
    try:
        return parse(value)
    except (ValueError, binascii.Error) as error:
        raise ArgumentError(f"argument {name!r} is not {wanted}: {error}") from None


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


CONVERSIONS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    datetime.datetime: (datetime.datetime.fromisoformat, "a date and time in ISO 8601"),
    datetime.date: (lambda text: datetime.datetime.fromisoformat(text).date(), "a date in ISO 8601"),
    datetime.time: (datetime.time.fromisoformat, "a time of day in ISO 8601"),
    bytes: (_bytes, "base64"),
}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations; those written as text are looked up, and left alone if they cannot be."""
    raw = getattr(function, "__annotations__", {})
    if not any(isinstance(hint, str) for hint in raw.values()):
        return dict(raw)
    try:
        return typing.get_type_hints(function)
    except Exception:
        return {name: hint for name, hint in raw.items() if not isinstance(hint, str)}


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "the entrypoint")
