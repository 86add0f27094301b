"""How a Bash script names its arguments: by its own lines `name="$1"` and `name="${2:-default}"`. Pure."""

import re

import msgspec

# Nothing of a match leaves its line: a search that could run to the end from every line would take quadratic time.
_PARAMETER = re.compile(
    r"""^(?:export\ |readonly\ |declare\ )?     # only at the start of a line: inside a function $1 is the function's
        (?P<name>[A-Za-z_]\w*)=(?P<quote>"?)\$
        (?: (?P<bare>[1-9]) | \{ (?P<braced>[1-9]\d{0,4}) (?: :?- (?P<default>[^}\n]*) )? \} )
        (?P=quote) [^\S\n]* (?:\#.*|;.*)? $""",
    re.VERBOSE | re.MULTILINE | re.ASCII,
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
