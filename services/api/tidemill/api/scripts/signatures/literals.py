"""Python literals as JSON values."""

import ast
import base64
import math
from collections.abc import Mapping
from typing import Any, Final

from tidemill.api.scripts.signatures.signature import Schema

NOT_LITERAL: Final = object()
"""What an expression is that has to be computed, or that JSON or the database can't hold."""

_DEEPEST = 50
_LARGEST_INTEGER = 2**63
TYPES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
"""What JSON Schema calls the values of these types."""


def value_of(node: ast.expr, depth: int = 0) -> Any:
    """Return the JSON value of a literal, bytes as base64, or NOT_LITERAL."""
    match node:
        case ast.Constant(value):
            return _constant(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return _constant(-value)
        case ast.List(elts) | ast.Tuple(elts) if depth < _DEEPEST:
            items = [value_of(each, depth + 1) for each in elts]
            return NOT_LITERAL if NOT_LITERAL in items else items
        case ast.Dict(keys, values) if depth < _DEEPEST:
            return _dict(keys, values, depth)
        case _:
            return NOT_LITERAL


def kind_of(node: ast.expr) -> Schema:
    """Return the schema that a default alone suggests."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
        return {"type": "string", "contentEncoding": "base64"}
    kind = TYPES.get(type(value_of(node)))
    return {} if kind is None else {"type": kind}


def _constant(value: object) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str):
        return value if _storable(value) else NOT_LITERAL
    if isinstance(value, int):
        return value if -_LARGEST_INTEGER <= value < _LARGEST_INTEGER else NOT_LITERAL
    if isinstance(value, float):
        return value if math.isfinite(value) else NOT_LITERAL
    return None if value is None else NOT_LITERAL


def _dict(keys: list[ast.expr | None], values: list[ast.expr], depth: int) -> Any:
    found = {}
    for key, node in zip(keys, values, strict=True):
        name = NOT_LITERAL if key is None else value_of(key, depth + 1)
        value = value_of(node, depth + 1)
        if not isinstance(name, str) or value is NOT_LITERAL:
            return NOT_LITERAL
        found[name] = value
    return found


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text)
