"""Bash: arguments are strings by position, named by the script's own lines `name="$1"` and `name="${2:-default}"`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from tidemill.worker.sandbox.execution import Execution, Order, order_limits

_PARAMETER = re.compile(
    r"""^(?:export\ |readonly\ |declare\ )?     # only at the start of a line: inside a function $1 is the function's
        (?P<name>[A-Za-z_]\w*)=(?P<quote>"?)\$
        (?: (?P<bare>[1-9]) | \{ (?P<braced>[1-9]\d*) (?: :?- (?P<default>[^}]*) )? \} )
        (?P=quote) \s* (?:\#.*|;.*)? $""",
    re.VERBOSE | re.MULTILINE,
)


class Parameter(msgspec.Struct, frozen=True):
    """One argument of the script; `default` is None when it has none."""

    name: str
    position: int
    default: str | None = None


def parameters(code: str) -> list[Parameter]:
    """Return the script's parameters in the order of their positions; of two names for one position, the first."""
    found: dict[int, Parameter] = {}
    for match in _PARAMETER.finditer(code):
        position = int(match["bare"] or match["braced"])
        found.setdefault(position, Parameter(match["name"], position, match["default"]))
    return [found[position] for position in sorted(found)]


def argv(code: str, args: Mapping[str, msgspec.Raw]) -> list[str]:
    """Return one string for each position: empty for what is missing or null, so that the script's default applies."""
    named = {parameter.position: parameter.name for parameter in parameters(code)}
    return [text(args.get(named.get(position, ""))) for position in range(1, max(named, default=0) + 1)]


def text(value: msgspec.Raw | None) -> str:
    """Return a string as it is, and everything else as its JSON text."""
    document = bytes(value or b"null").strip()
    if document == b"null":
        return ""
    if document.startswith(b'"'):
        # An argument of a process ends at its first NUL.
        return msgspec.json.decode(document, type=str).replace("\0", "")
    return document.decode()


def order(execution: Execution) -> Order:
    """Return the order that runs the script under `bash -e`."""
    args = msgspec.json.decode(execution.args, type=dict[str, msgspec.Raw])
    return Order(
        program="bash",
        code=execution.code,
        argv=argv(execution.code, args),
        env=execution.env,
        limits=order_limits(execution.limits),
    )
