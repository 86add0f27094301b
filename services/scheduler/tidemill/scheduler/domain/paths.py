"""Plain paths such as `results.a.b[0]`, read and followed without JavaScript.

Most expressions of flows are nothing else. What is returned is the JSON text as it was, where JavaScript would write it
anew: numbers keep all their digits (JavaScript has doubles), 1.0 stays 1.0, and keys keep their order. Else the results
are those of JavaScript, and so are the failures; whatever is inherited (`.constructor`, `.map`) is left to it.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

ROOTS = frozenset(
    {
        "WM_SCHEDULED_FOR",
        "all_iters",
        "approvers",
        "error",
        "flow_env",
        "flow_input",
        "params",
        "previous_result",
        "result",
        "results",
        "resume",
        "resumes",
    }
)
STEPS = "results"  # its first key names a step; there is no value that has them all
REFERENCES = {"variable": "$var:", "resource": "$res:"}
INHERITED = frozenset(
    {
        "__defineGetter__",
        "__defineSetter__",
        "__lookupGetter__",
        "__lookupSetter__",
        "__proto__",
        "constructor",
        "hasOwnProperty",
        "isPrototypeOf",
        "propertyIsEnumerable",
        "toLocaleString",
        "toString",
        "valueOf",
    }
)


class Key(NamedTuple):
    """One property of a path; an optional one (`?.`) of nothing ends the path with nothing."""

    name: str
    optional: bool = False


class Path(NamedTuple):
    """A name and the properties that are followed from it."""

    root: str
    keys: tuple[Key, ...] = ()


class Literal(NamedTuple):
    """A value that stands in the expression itself."""

    value: msgspec.Raw


class Reference(NamedTuple):
    """A variable or resource that is wanted whole, as a job's arguments name it: `$var:path`, `$res:path`."""

    text: str


class NoProperty(Exception):
    """Nothing has properties; the message is JavaScript's."""


class Undecided(Exception):
    """JavaScript has to say what this is."""


UNDEFINED = None
_LONGEST_NAMED = 40  # JavaScript's message shortens what is much longer
_NULL = msgspec.Raw(b"null")
_TEXT = r""""(?P<double>[^"\\\x00-\x1f\x7f]*)"|'(?P<single>[^'\\\x00-\x1f\x7f]*)'"""
_NAME = re.compile(r"\s*(?P<name>[A-Za-z_$][\w$]*)", re.ASCII)
_KEY = re.compile(
    r"\s*(?:(?P<optional>\?\.)|(?P<dot>\.))?\s*"
    r"(?:(?P<name>[A-Za-z_$][\w$]*)|\[\s*(?:(?P<index>0|[1-9][0-9]{0,14})|" + _TEXT + r")\s*\])",
    re.ASCII,
)
_END = re.compile(r"[\s;]*\Z", re.ASCII)
_LITERAL = re.compile(
    r"\s*(?:(?P<json>true|false|null|-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?)|(?P<nothing>undefined)|"
    + _TEXT
    + r")[\s;]*\Z",
    re.ASCII,
)
_REFERENCE = re.compile(
    r"\s*(?:await\s+)?(?P<function>variable|resource)\s*\(\s*(?:" + _TEXT + r")\s*\)[\s;]*\Z", re.ASCII
)
_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
Level = dict[str, msgspec.Raw] | list[msgspec.Raw] | str | float | bool | None
_LEVEL: msgspec.json.Decoder[Level] = msgspec.json.Decoder(Level)


def parse(expression: str) -> Path | Literal | Reference | None:
    """Return what the expression is when it is nothing more than that, or None when JavaScript has to run it."""
    if (found := _LITERAL.match(expression)) is not None:
        return Literal(_literal(found))
    if (found := _REFERENCE.match(expression)) is not None:
        return Reference(REFERENCES[found["function"]] + _text(found))
    root = _NAME.match(expression)
    if root is None or root["name"] not in ROOTS:
        return None
    keys = []
    position = root.end()
    while (found := _END.match(expression, position)) is None:
        found = _KEY.match(expression, position)
        if found is None or not _well_formed(found):
            return None
        keys.append(Key(found["name"] or found["index"] or _text(found), found["optional"] is not None))
        position = found.end()
    if root["name"] == STEPS and not keys:
        return None
    return Path(root["name"], tuple(keys))


def follow(keys: Iterable[Key], value: msgspec.Raw | None) -> msgspec.Raw | None:
    """Return what lies at the end of the path, or None for undefined; raises NoProperty, or Undecided."""
    for name, optional in keys:
        level = None if value is UNDEFINED else _level(value)
        if level is None:
            if optional:
                return UNDEFINED
            if len(name.encode()) > _LONGEST_NAMED:
                raise Undecided
            raise NoProperty(f"TypeError: cannot read property '{name}' of {'undefined' if value is None else 'null'}")
        value = _own(level, name)
    return value


def written(value: msgspec.Raw | None) -> msgspec.Raw:
    """Return the value as JSON, which has no undefined."""
    return _NULL if value is UNDEFINED else value


def truthy(value: msgspec.Raw | None) -> bool:
    """Return whether JavaScript takes the value for true: not for 0, the empty text, null and undefined."""
    if value is UNDEFINED:
        return False
    level = _level(value)
    return isinstance(level, dict | list) or bool(level)


def _own(level: dict[str, msgspec.Raw] | list[msgspec.Raw] | str | float | bool, name: str) -> msgspec.Raw | None:
    """Return a property of a value, or None where it has none; raises Undecided where it may have inherited it."""
    match level:
        case dict():
            if name not in level and name in INHERITED:
                raise Undecided
            return level.get(name)
        case list() if _INDEX.fullmatch(name):
            return level[int(name)] if int(name) < len(level) else UNDEFINED
        case list() if name == "length":
            return msgspec.Raw(b"%d" % len(level))
        case str() if _INDEX.fullmatch(name):
            unit = level.encode("utf-16-le")[2 * int(name) : 2 * int(name) + 2]
            # Half of a surrogate pair is no text outside of JavaScript.
            return msgspec.Raw(msgspec.json.encode(unit.decode("utf-16-le", "replace"))) if unit else UNDEFINED
        case str() if name == "length":
            return msgspec.Raw(b"%d" % (len(level.encode("utf-16-le")) // 2))
        case _:
            raise Undecided


def _level(value: msgspec.Raw) -> Level:
    try:
        return _LEVEL.decode(value)
    except (msgspec.DecodeError, RecursionError):
        raise Undecided from None


def _well_formed(key: re.Match[str]) -> bool:
    """Tell whether a name stands behind a dot, and a bracket behind none."""
    if key["name"] is None:
        return key["dot"] is None
    return key["dot"] is not None or key["optional"] is not None


def _literal(found: re.Match[str]) -> msgspec.Raw:
    if found["nothing"] is not None:
        return _NULL
    return msgspec.Raw(found["json"].encode() if found["json"] is not None else msgspec.json.encode(_text(found)))


def _text(found: re.Match[str]) -> str:
    text = found["double"] if found["double"] is not None else found["single"]
    assert isinstance(text, str)
    return text
