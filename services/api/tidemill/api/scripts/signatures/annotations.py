"""Python annotations as JSON Schema, with the classes and aliases of their file."""

import ast
import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.api.scripts.signatures.choices import INTEGER, NULL, NUMBER, choice_of, enum_of
from tidemill.api.scripts.signatures.definitions import Definitions
from tidemill.api.scripts.signatures.literals import value_of
from tidemill.api.scripts.signatures.records import Field, Records
from tidemill.api.scripts.signatures.signature import Schema

OBJECT: Schema = {"type": "object"}
KINDS: Mapping[str, Schema] = {
    "int": INTEGER,
    "float": NUMBER,
    "str": {"type": "string"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "dict": OBJECT,
    "Dict": OBJECT,
    "Mapping": OBJECT,
    "MutableMapping": OBJECT,
    "TypedDict": OBJECT,
    "NoneType": NULL,
    "S3Object": {"type": "object", "format": "resource-s3_object"},
}
ARRAYS = frozenset(
    {"list", "List", "Sequence", "MutableSequence", "Iterable", "Collection", "set", "Set", "frozenset", "FrozenSet"}
)
TUPLES = frozenset({"tuple", "Tuple"})
WRAPPERS = frozenset({"Annotated", "Required", "NotRequired", "ReadOnly", "Final"})
"""What says something of a type that a schema does not."""
BUILTINS = frozenset(dir(builtins))
_DEEPEST = 16
_MOST_CHOICES = 100
_LARGEST = 64 * 1024
"""About how many characters a schema may have: classes that name each other grow without bound."""
_OF_A_NODE = 10


class TooMuch(Exception):
    """The schema would be too large."""


class Annotations:
    """The annotations of one file."""

    def __init__(self, file: Definitions) -> None:
        """Start with nothing read."""
        self._file = file
        self._records = Records(file)
        self._spent = 0
        self._depth = 0
        self._open: list[str] = []
        self._parsed: dict[str, ast.expr | None] = {}
        self._enums: dict[str, Schema] = {}

    def schema_of(self, node: ast.expr | None) -> Schema:
        """Return the schema of an annotation; one that says nothing of JSON takes anything. Raises TooMuch."""
        self._spend(_OF_A_NODE)
        if self._depth >= _DEEPEST:
            return {}
        self._depth += 1
        try:
            return self._schema(node)
        finally:
            self._depth -= 1

    def _spend(self, characters: int) -> None:
        self._spent += characters
        if self._spent > _LARGEST:
            raise TooMuch

    def _schema(self, node: ast.expr | None) -> Schema:
        match node:
            case ast.Constant(value=None):
                return NULL
            case ast.Constant(value=str(text)):
                return self.schema_of(self._parse(text))
            case ast.Name():
                return self._named(self._file.name_of(node))
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                return self._resource_of(module, name) or self._known(name)
            case ast.BinOp(op=ast.BitOr()):
                return self._choice(_alternatives(node))
            case ast.Subscript(value=generic, slice=inner):
                return self._generic(self._file.name_of(generic), inner)
            case _:
                return {}

    def _parse(self, text: str) -> ast.expr | None:
        if text not in self._parsed:
            self._spend(len(text))
            try:
                self._parsed[text] = ast.parse(text, mode="eval").body
            except (SyntaxError, ValueError):
                self._parsed[text] = None
        return self._parsed[text]

    def _named(self, name: str) -> Schema:
        if name in self._open:
            return OBJECT if name in self._file.classes else {}
        self._open.append(name)
        try:
            if name in self._file.classes and name != "S3Object":
                return self._class(self._file.classes[name])
            if name in KINDS or name in ARRAYS | TUPLES | BUILTINS:
                return self._known(name)
            alias = self._file.aliases.get(name)
            schema = OBJECT if alias is None and name[:1].islower() else self._alias(alias)
            return self._resource(name) if schema == OBJECT and name[:1].islower() else schema
        finally:
            self._open.pop()

    def _known(self, name: str) -> Schema:
        return {"type": "array"} if name in ARRAYS | TUPLES else KINDS.get(name, {})

    def _resource(self, name: str) -> Schema:
        self._spend(len(name))
        return {"type": "object", "format": f"resource-{name}"}

    def _resource_of(self, module: str, name: str) -> Schema | None:
        of_clients = self._file.originals.get(module, module) == "wmill" and name[:1].islower()
        return self._resource(name) if of_clients else None

    def _generic(self, name: str, inner: ast.expr) -> Schema:
        arguments: Sequence[ast.expr] = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Literal":
            return self._enum(arguments)
        if name == "Union":
            return self._choice(arguments)
        if name == "Optional":
            return choice_of([self.schema_of(inner), NULL])
        if name in WRAPPERS and arguments:
            return self.schema_of(arguments[0])
        if name in ARRAYS:
            return _array(self.schema_of(inner))
        if name in TUPLES:
            return _array(self.schema_of(arguments[0]) if _is_repeated(arguments) else {})
        return self._known(name)

    def _choice(self, alternatives: Sequence[ast.expr]) -> Schema:
        if len(alternatives) > _MOST_CHOICES:
            return {}
        return choice_of([self.schema_of(each) for each in alternatives])

    def _enum(self, values: Sequence[ast.expr]) -> Schema:
        self._spend(len(values))
        return self._paid(enum_of([value_of(each) for each in values]))

    def _paid(self, enum: Schema) -> Schema:
        self._spend(sum(len(str(value)) for value in enum.get("enum", ())))
        return enum

    def _class(self, node: ast.ClassDef) -> Schema:
        if self._records.is_enum(node):
            if node.name not in self._enums:
                self._enums[node.name] = self._enum(list(self._records.values_of(node)))
            return self._paid(self._enums[node.name])
        if node.name[:1].islower():
            return self._resource(node.name)
        fields = self._records.fields_of(node)
        return OBJECT if fields is None else self._record(fields)

    def _record(self, fields: Mapping[str, Field]) -> Schema:
        properties: dict[str, Any] = {}
        for name, field in fields.items():
            self._spend(2 * len(name))
            properties[name] = self.schema_of(field.annotation)
        required = [name for name, field in fields.items() if field.required]
        return {"type": "object", "properties": properties, "required": required, "order": list(fields)}

    def _alias(self, node: ast.expr | None) -> Schema:
        match node:
            case ast.Call(args=args):
                maker = self._file.name_of(node)
                return self.schema_of(args[1]) if maker == "NewType" and len(args) > 1 else self._known(maker)
            case ast.Name() | ast.Attribute() | ast.Subscript() | ast.BinOp():
                return self.schema_of(node)
            case _:
                return {}


def _alternatives(node: ast.expr) -> Sequence[ast.expr]:
    """Return the parts of `A | B | C`, in order; of too many, more than are read."""
    found: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and len(found) <= _MOST_CHOICES:
        found.append(node.right)
        node = node.left
    return [node, *reversed(found)]


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items} if items else {"type": "array"}


def _is_repeated(arguments: Sequence[ast.expr]) -> bool:
    return len(arguments) == 2 and isinstance(arguments[1], ast.Constant) and arguments[1].value is ...
