"""The end of tasks, made sure of."""

import asyncio
from typing import Any

_ASK_AGAIN = 0.5


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and return when they have ended; what they raised stays with them.

    Asked again and again, because one cancel is not enough: `asyncio.wait_for` of Python 3.11, which the drivers use,
    swallows a cancel that comes in the moment of the answer, and the task would go on for ever.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN)
