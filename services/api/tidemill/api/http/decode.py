"""From bytes to the structs that handlers get, and what becomes of fields that a struct does not have.

in the struct          decoded; a wrong value is refused with the field's name
in `route.refuses`     accepted while it asks for nothing, else 422 with the reason
in `route.tolerates`   accepted and not used
nowhere                named in the answer's Tidemill-Ignored header and counted; refused on our own routes and
                       everywhere with TIDEMILL_STRICT=1, because clients send more than any document says
"""

import re
import types
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec
from multidict import MultiMapping

from tidemill.api.http.errors import BadRequest, Unprocessable, Unsupported
from tidemill.api.http.route import Refused, Route

TOKEN_PARAMETER = "token"  # noqa: S105 - the name of a query parameter

_DEEPEST = "The body is nested too deeply."
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_AT = re.compile(r"(?P<what>.*?)(?: - at `(?P<where>.+)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.+)`")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_ZONE = re.compile(r"(Z|[+-]\d{2}:?\d{2})$", re.IGNORECASE)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True)
class Decoded:
    """A body or a query, and the names in it that nobody knows."""

    value: Any
    ignored: tuple[str, ...] = ()


def decode_body(route: Route, content_type: str, body: bytes, *, strict: bool) -> Decoded:
    """Return the body as the route's type; raises BadRequest, Unprocessable or Unsupported."""
    kind, optional = _unwrapped(route.body)
    if not body.strip():
        # Some clients say "application/json" with every request, an empty one included.
        if optional:
            return Decoded(None)
        raise BadRequest("A JSON body is needed.")
    if content_type not in ("", "application/octet-stream") and not _is_json(content_type):
        raise Unsupported(f"The body is {content_type}; send application/json.")
    refuse_unstorable(body)
    value = _decode(route, body)
    ignored: tuple[str, ...] = ()
    if value is not None and isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = _fields.decode(body)
        refuse_unsupported(route.refuses, fields)
        ignored = _unknown(route, kind, fields)
        if ignored and (strict or route.ours):
            raise Unprocessable(f"The field {ignored[0]} is not known.")
    return Decoded(value, ignored)


def decode_query(route: Route, query: MultiMapping[str], *, strict: bool) -> Decoded:
    """Return the query as the route's struct (None when it has none); raises BadRequest naming the parameter."""
    values: dict[str, Any] = {}
    kinds = _query_kinds(route.query) if route.query is not None else {}
    for name, kind in kinds.items():
        given = query.getall(name, [])
        if not given:
            continue
        if get_origin(kind) in (list, tuple):
            values[name] = given
        elif len(set(given)) > 1:
            raise BadRequest(f"The parameter {name} is given more than once.")
        elif given[0] != "" or kind is str:
            values[name] = _with_zone(given[0]) if kind is datetime else given[0]
    if any("\0" in each for each in query.values()):
        raise BadRequest("The query holds a NUL character.")
    _refuse_in_query(route, query)
    ignored = tuple(
        dict.fromkeys(
            name
            for name in query
            if name not in kinds
            and name not in route.tolerates
            and name not in route.refuses
            and name != TOKEN_PARAMETER
        )
    )
    if ignored and (strict or route.ours):
        raise BadRequest(f"The parameter {ignored[0]} is not known.")
    if route.query is None:
        return Decoded(None, ignored)
    try:
        return Decoded(msgspec.convert(values, route.query, strict=False), ignored)
    except msgspec.ValidationError as error:
        raise BadRequest(_sentence(error, "parameter")) from None


def refuse_unsupported(table: Mapping[str, Refused], fields: Mapping[str, msgspec.Raw]) -> None:
    """Raise Unprocessable with the reason when a field that is known but not supported asks for something."""
    for name in table.keys() & fields.keys():
        if msgspec.json.decode(fields[name]) not in table[name].harmless:
            raise Unprocessable(f"The field {name} is not supported: {table[name].reason}.")


def refuse_unstorable(body: bytes) -> None:
    """Raise BadRequest for what no text column could hold."""
    try:
        body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The body is not UTF-8.") from None
    if b"\0" in body or (b"\\u0000" in body and _NUL.search(body)):
        raise BadRequest("The body holds a NUL character.")


def _decode(route: Route, body: bytes) -> Any:
    try:
        return _decoder(route.body).decode(body)
    except msgspec.ValidationError as error:
        raise Unprocessable(_sentence(error, "field")) from None
    except msgspec.DecodeError as error:
        raise BadRequest(
            f"The body is not valid JSON: {_lower(str(error).removeprefix('JSON is malformed: '))}."
        ) from None
    except RecursionError:
        raise BadRequest(_DEEPEST) from None


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    inner, _ = _unwrapped(kind)
    # A Raw takes null as well, and nothing else when it stands beside it.
    return msgspec.json.Decoder(inner if _bare(inner) is msgspec.Raw else kind)


def _refuse_in_query(route: Route, query: MultiMapping[str]) -> None:
    for name in route.refuses.keys() & query.keys():
        if query[name] not in ("", "false", "0"):
            raise Unprocessable(f"The parameter {name} is not supported: {route.refuses[name].reason}.")


def _unknown(route: Route, kind: type[msgspec.Struct], fields: Collection[str]) -> tuple[str, ...]:
    known = set(kind.__struct_encode_fields__) | route.tolerates.keys() | route.refuses.keys()
    return tuple(name for name in fields if name not in known)


def _unwrapped(kind: Any) -> tuple[Any, bool]:
    """Return a type without its `| None`, and whether it had one."""
    if get_origin(kind) in (types.UnionType, Union):
        rest = [each for each in get_args(kind) if each is not type(None)]
        return (rest[0] if len(rest) == 1 else kind), len(rest) < len(get_args(kind))
    return kind, False


@cache
def _query_kinds(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return each parameter's bare type."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.encode_name: _bare(hints[field.name]) for field in msgspec.structs.fields(kind)}


def _bare(annotation: Any) -> Any:
    inner, _ = _unwrapped(annotation)
    if get_origin(inner) is Annotated:
        return _bare(get_args(inner)[0])
    return inner


def _with_zone(text: str) -> str:
    """Return an ISO date or time as one with a zone; without one it is UTC."""
    if _DATE.fullmatch(text):
        return text + "T00:00:00Z"
    return text if _ZONE.search(text) else text + "Z"


def _is_json(content_type: str) -> bool:
    return content_type == "application/json" or content_type.endswith("+json")


def _sentence(error: msgspec.ValidationError, what: str) -> str:
    """Return msgspec's complaint as a sentence that names the field."""
    parts = _AT.fullmatch(str(error))
    assert parts is not None
    where = (parts["where"] or "").removeprefix("$").removeprefix(".")
    missing = _MISSING.fullmatch(parts["what"])
    if missing:
        return f"The {what} {'.'.join(filter(None, (where, missing['field'])))} is missing."
    said = _lower(parts["what"]).replace("`", "")
    return f"The {what} {where} is not allowed: {said}." if where else f"The body is not allowed: {said}."


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
