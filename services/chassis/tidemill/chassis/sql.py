"""Named SQL: statements live in `.sql` files beside their store, each below a line `-- name: verb_noun`.

`load(package, file)` reads them at import, so that a missing statement fails the start and not a request.
"""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files

_NAME = re.compile(r"^-- name: (?P<name>[a-z][a-z0-9_]*)\s*$", re.MULTILINE)


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
    """Return the statements of a `.sql` text by name; raises ValueError when a name comes twice."""
    statements: dict[str, str] = {}
    marks = list(_NAME.finditer(text))
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        name = mark["name"]
        if name in statements:
            raise ValueError(f"the statement {name} is there twice")
        statements[name] = text[mark.end() : following.start() if following else None].strip().rstrip(";")
    return Queries(statements)


def load(package: str, file: str) -> Queries:
    """Return the statements of a `.sql` file that lies in the package."""
    return parse(files(package).joinpath(file).read_text(encoding="utf-8"))
