"""Wait for what has to become true, with a deadline and the last thing seen."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], patience: float = 20, pause: float = 0.02) -> T:
    """Return the first truthy thing that `look` sees; fail with the last one when patience ends."""
    deadline = asyncio.get_running_loop().time() + patience
    while not (seen := await look()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"it never became true; last seen: {seen!r}")
        await asyncio.sleep(pause)
    return seen
