"""When each token was last used: noted in memory, written in batches, because a write a request would cost too much."""

from datetime import datetime

from tidemill.api.tokens import store
from tidemill.chassis.clock import Clock
from tidemill.chassis.database import Database
from tidemill.chassis.loops import Turn


class TokenUsage:
    """The tokens used since the last turn."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._used: dict[bytes, datetime] = {}

    def note(self, token_hash: bytes) -> None:
        """Remember that this token was used now."""
        self._used[token_hash] = self._clock.now()

    async def turn(self) -> Turn:
        """Write down what was noted, and forget tokens that expired long ago."""
        used, self._used = self._used, {}
        try:
            await store.mark_used(self._database, used)
        except BaseException:
            self._used = used | self._used
            raise
        return Turn(counts={"used": len(used), "forgotten": await store.forget_expired(self._database)})
