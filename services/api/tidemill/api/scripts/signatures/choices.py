"""One schema for several: what fits any of them, and what lists its values."""

from collections.abc import Sequence
from typing import Any

from tidemill.api.scripts.signatures.literals import NOT_LITERAL, TYPES
from tidemill.api.scripts.signatures.signature import Schema

NULL: Schema = {"type": "null"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}


def nullable(schema: Schema) -> Schema:
    """Return a schema that takes null as well."""
    return {**schema, "nullable": True}


def choice_of(alternatives: Sequence[Schema]) -> Schema:
    """Return what fits all alternatives best; null among them makes the others nullable."""
    distinct: list[Schema] = []
    takes_null = False
    for each in alternatives:
        takes_null |= each == NULL or each.get("nullable", False)
        bare = {name: value for name, value in each.items() if name != "nullable"}
        if bare not in (NULL, *distinct):
            distinct.append(bare)
    if not distinct:
        return NULL if takes_null else {}
    return nullable(_best(distinct)) if takes_null else _best(distinct)


def enum_of(values: Sequence[Any]) -> Schema:
    """Return the schema of these values; anything, if one of them is no plain value."""
    if any(value is NOT_LITERAL or isinstance(value, (list, dict)) for value in values):
        return {}
    # True and 1 are equal to Python and are two values in JSON.
    distinct = list({(type(value), value): value for value in values if value is not None}.values())
    types = {TYPES[type(value)] for value in distinct}
    schema: Schema = {**({"type": types.pop()} if len(types) == 1 else {}), "enum": distinct}
    if not distinct:
        return NULL if values else {}
    return nullable(schema) if None in values else schema


def _best(schemas: Sequence[Schema]) -> Schema:
    if len(schemas) == 1:
        return schemas[0]
    if {} in schemas:
        return {}
    if all(each in (INTEGER, NUMBER) for each in schemas):
        return NUMBER
    if all("enum" in each for each in schemas):
        return enum_of([value for each in schemas for value in each["enum"]])
    return {"anyOf": list(schemas)}
