"""Results as JSON: fast for what JSON knows, forgiving for what Python scripts return."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from .answer import legible


def to_json(value: object) -> bytes:
    """Return UTF-8 JSON: NaN and infinity as null, NUL and lone surrogates as U+FFFD, unknown objects as str()."""
    try:
        data = _dumps(value).encode()
    except (ValueError, TypeError):  # NaN, a lone surrogate, a key that is no string, a reference to itself
        return _clean_json(value)
    return _clean_json(value) if b"\\u0000" in data else data


def plain(value: Any) -> object:
    """Return something that JSON knows in place of what it does not."""
    match value:
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case enum.Enum():
            return value.value
        case set() | frozenset():
            return list(value)
        case Mapping():
            return dict(value)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        case _:
            return _foreign(value)


def _foreign(value: Any) -> object:
    """Return what well-known libraries' objects mean, told by their shape so that nothing has to be imported."""
    if type(value).__name__ == "DataFrame":
        return value.to_dict(orient="records") if hasattr(value, "iloc") else value.to_dicts()
    for method in ("model_dump", "tolist"):  # pydantic; numpy and its scalars
        if callable(getattr(value, method, None)) and not isinstance(value, type):
            return getattr(value, method)()
    return str(value)


def _dumps(value: object) -> str:
    return json.dumps(value, default=plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _clean_json(value: object) -> bytes:
    try:
        return _dumps(_clean(value)).encode()
    except RecursionError:
        raise ValueError("the result refers to itself or is nested too deeply for JSON") from None


def _clean(value: object) -> object:
    match value:
        case None | bool():
            return value
        case enum.Enum():
            return _clean(value.value)
        case str():
            return legible(value)
        case int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {_key(key): _clean(item) for key, item in value.items()}
        case list() | tuple():
            return [_clean(item) for item in value]
        case _:
            return _clean(plain(value))


def _key(key: object) -> str:
    match key:
        case str():
            return legible(key)
        case None | bool() | int() | float():
            return json.dumps(key)
        case _:
            text = plain(key)
            return legible(text if isinstance(text, str) else str(key))
