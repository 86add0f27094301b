"""Python: what `main` takes, read off the syntax tree. Nothing of the script is run or imported."""

import ast
import warnings
from collections.abc import Iterator

from tidemill.api.scripts.signatures.annotations import Annotations, TooMuch
from tidemill.api.scripts.signatures.definitions import MAIN, Definitions, Function
from tidemill.api.scripts.signatures.literals import NOT_LITERAL, kind_of, value_of
from tidemill.api.scripts.signatures.signature import Parameter, Schema, Signature, schema_of

COMPUTED_DEFAULT = "<function call>"
"""What stands for a default that is not a literal; a worker leaves it to Python."""


def read(content: str) -> Signature:
    """Return the signature of a script's main function."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _signature(ast.parse(content))
        except SyntaxError as error:
            return Signature(why=f"line {error.lineno or 1} of the content is not Python")
        except ValueError:
            return Signature(why="the content is not text that Python reads")
        except (RecursionError, MemoryError):
            return Signature(why="the content is nested too deeply")
        except TooMuch:
            return Signature(why="it would be too large")


def _signature(module: ast.Module) -> Signature:
    definitions = Definitions.of(module)
    if definitions.main is not None:
        return Signature(schema=schema_of(list(_parameters(definitions.main, Annotations(definitions)))))
    if definitions.may_have_main:
        return Signature(why=f"{MAIN} is not a function of this file")
    return Signature(is_library=True)


def _parameters(function: Function, annotations: Annotations) -> Iterator[Parameter]:
    for position, (arg, default) in enumerate(_arguments(function)):
        if position == 0 and arg.arg == "self":
            continue
        schema = annotations.schema_of(arg.annotation)
        if default is not None:
            schema = _with_default(schema if arg.annotation else kind_of(default), default)
        yield Parameter(name=arg.arg, schema=schema, required=default is None and not schema.get("nullable", False))


def _arguments(function: Function) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """Yield what has a name of its own, with its default; *args and **kwargs have none."""
    takes = function.args
    positional = [*takes.posonlyargs, *takes.args]
    without = len(positional) - len(takes.defaults)
    yield from zip(positional, [*[None] * without, *takes.defaults], strict=True)
    yield from zip(takes.kwonlyargs, takes.kw_defaults, strict=True)


def _with_default(schema: Schema, default: ast.expr) -> Schema:
    value = value_of(default)
    if value is NOT_LITERAL:
        return {**schema, "default": COMPUTED_DEFAULT}
    if value is None:
        return {**schema, "nullable": True, "default": None}
    return {**schema, "default": value}
