"""Bash: arguments are strings by position, named by the script's own lines `name="$1"` and `name="${2:-default}"`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidemill.shared.bash import Parameter, parameters
from tidemill.worker.sandbox.execution import Execution, Order, order_limits

__all__ = ["Parameter", "argv", "order", "parameters", "text"]


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
    """Return the order that runs the script under `bash -e`; there is nothing in it to keep warm."""
    args = msgspec.json.decode(execution.args, type=dict[str, msgspec.Raw])
    return Order(
        program="bash",
        code=execution.code,
        argv=argv(execution.code, args),
        env=execution.env,
        limits=order_limits(execution.limits),
    )
