"""Which classes of a Python file say what an object holds, and what they say."""

import ast
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tidemill.api.scripts.signatures.definitions import Definitions

ENUMS = frozenset({"Enum", "StrEnum", "IntEnum"})
RECORDS = frozenset({"TypedDict", "BaseModel"})
_HAS_DEFAULT = frozenset({"default", "default_factory"})


class Field(NamedTuple):
    """One field of a class."""

    annotation: ast.expr
    required: bool


class Records:
    """The classes of one file."""

    def __init__(self, file: Definitions) -> None:
        """Start with nothing read."""
        self._file = file
        self._fields: dict[str, Mapping[str, Field] | None] = {}

    def is_enum(self, node: ast.ClassDef) -> bool:
        """Return whether a class lists values."""
        return any(self._file.name_of(each) in ENUMS for each in node.bases)

    def values_of(self, node: ast.ClassDef) -> Iterator[ast.expr]:
        """Yield the values that a class lists."""
        for each in node.body:
            match each:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if not name.startswith("_"):
                    yield value
                case _:
                    pass

    def fields_of(self, node: ast.ClassDef) -> Mapping[str, Field] | None:
        """Return the fields of a class, those of its parents first, or None when it is not made of fields."""
        if node.name not in self._fields:
            self._fields[node.name] = None  # what a class that is its own parent inherits
            self._fields[node.name] = self._read(node)
        return self._fields[node.name]

    def _read(self, node: ast.ClassDef) -> Mapping[str, Field] | None:
        bases = [self._file.name_of(each) for each in node.bases]
        parents = [self.fields_of(self._file.classes[each]) for each in bases if each in self._file.classes]
        decorated = any(self._file.name_of(each) == "dataclass" for each in node.decorator_list)
        if not decorated and not RECORDS & set(bases) and all(parent is None for parent in parents):
            return None
        found: dict[str, Field] = {}
        for parent in parents:
            found.update(parent or {})
        partial = any(each.arg == "total" and _is_false(each.value) for each in node.keywords)
        for each in node.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                outer = self._file.name_of(each.annotation) if isinstance(each.annotation, ast.Subscript) else ""
                if outer != "ClassVar":
                    required = outer == "Required" or (not partial and outer != "NotRequired")
                    found[each.target.id] = Field(each.annotation, required and not self._has_default(each.value))
        return found

    def _has_default(self, value: ast.expr | None) -> bool:
        match value:
            case None:
                return False
            case ast.Call(args=args, keywords=keywords) if self._file.name_of(value) in ("field", "Field"):
                first_is_default = bool(args) and not (isinstance(args[0], ast.Constant) and args[0].value is ...)
                return first_is_default or any(each.arg in _HAS_DEFAULT for each in keywords)
        return True


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False
