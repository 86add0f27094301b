"""Time as a dependency: the real clock, and the port that a test's own clock fits."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What code that waits or stamps may ask of time."""

    def now(self) -> datetime:
        """Return the aware UTC wall time."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    async def sleep(self, span: timedelta) -> None:
        """Return after the span."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, span: timedelta) -> None:
        await asyncio.sleep(span.total_seconds())
