"""What a script takes, and the JSON Schema that says so."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

Schema = Mapping[str, Any]
LONGEST_CONTENT = 64 * 1024
"""How many characters are read for a signature: reading is done at once, while others wait."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What was read; without a schema, `why` says what was in the way, unless there is nothing to run at all."""

    schema: Schema | None = None
    why: str | None = None
    is_library: bool = False
    """True when the script has no main function."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """One argument."""

    name: str
    schema: Schema
    required: bool


def schema_of(parameters: Sequence[Parameter]) -> Schema:
    """Return the schema of all arguments together."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {each.name: each.schema for each in parameters},
        "required": [each.name for each in parameters if each.required],
        "order": [each.name for each in parameters],
    }
