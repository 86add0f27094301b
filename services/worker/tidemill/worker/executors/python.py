"""Python: the script's function gets the arguments by name; the child fits them to its signature."""

from __future__ import annotations

from tidemill.worker.sandbox.execution import Execution, Order, order_limits


def order(execution: Execution) -> Order:
    """Return the order that loads the script and calls its entrypoint."""
    return Order(
        program="python",
        code=execution.code,
        entrypoint=execution.entrypoint,
        args=execution.args,
        env=execution.env,
        limits=order_limits(execution.limits),
        checkpoint=execution.checkpoint,
        warm=execution.warm is not None,
    )
