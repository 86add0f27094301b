"""Named SQL: statements live in `.sql` files beside their store, each below a line `-- name: verb_noun`.

    -- part: of_theirs                 lines that several statements of the file have in common
    WHERE t.email = $1

    -- name: drop_theirs
    DELETE FROM token t
    -- use: of_theirs                  stands for them, on a line of its own

`load(package, file)` reads them at import, so that a missing statement fails the start and not a request.
"""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

_MARK = re.compile(r"^-- (?P<kind>name|part): (?P<name>[a-z][a-z0-9_]*)\s*$", re.MULTILINE)
_USE = re.compile(r"^[ \t]*-- use: (?P<name>[a-z][a-z0-9_]*)[ \t]*$", re.MULTILINE)


class Queries(Mapping[str, str]):
    """The statements of one file, as attributes and as a mapping of name to text."""

    def __init__(self, statements: Mapping[str, str]) -> None:
        self._statements = dict(statements)

    def __getitem__(self, name: str) -> str:
        return self._statements[name]

    def __getattr__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            raise AttributeError(f"no statement is named {name}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def parse(text: str) -> Queries:
    """Return a text's statements by name; raises ValueError for a name that is there twice or a part that is not."""
    found: dict[str, dict[str, str]] = {"name": {}, "part": {}}
    marks = list(_MARK.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        kind, name = mark["kind"], mark["name"]
        if name in found[kind]:
            raise ValueError(f"the {'statement' if kind == 'name' else kind} {name} is there twice")
        found[kind][name] = text[mark.end() : following.start() if following else None].strip().rstrip(";")
    parts = found["part"]

    def part(use: re.Match[str]) -> str:
        if use["name"] not in parts:
            raise ValueError(f"no part is named {use['name']}")
        return parts[use["name"]]

    return Queries({name: _USE.sub(part, statement) for name, statement in found["name"].items()})


def load(package: str, file: str) -> Queries:
    """Return the statements of a `.sql` file that lies in the package."""
    return parse(files(package).joinpath(file).read_text(encoding="utf-8"))
