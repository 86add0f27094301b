"""Bash: every argument is a string."""

from tidemill.api.scripts.signatures.signature import Parameter, Schema, Signature, schema_of
from tidemill.shared import bash

_EXPANDED = frozenset("$`\\\"'~*?[")
"""What Bash may make something else of: such a default is left to the script."""


def read(content: str) -> Signature:
    """Return the signature of a script; a name that takes two positions is one argument."""
    parameters = {each.name: each for each in reversed(bash.parameters(content))}
    in_order = sorted(parameters.values(), key=lambda each: each.position)
    return Signature(schema=schema_of([_argument(each) for each in in_order]))


def _argument(parameter: bash.Parameter) -> Parameter:
    schema: Schema = {"type": "string"}
    if parameter.default is not None and not _EXPANDED & set(parameter.default):
        schema = {**schema, "default": parameter.default}
    return Parameter(name=parameter.name, schema=schema, required=parameter.default is None)
