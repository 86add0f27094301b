"""The steps that a workflow written as code runs inside its round: each is kept before the next one begins.

the child says what a step has come to ─▶ keep() ─▶ queue.keep_claimed_step ─▶ None, and the child goes on
                                            └ too many, too large, a claim that is over ─▶ the end of the run
"""

from collections.abc import Awaitable, Callable

import msgspec

from tidemill.worker.rounds import Step
from tidemill.worker.sandbox.answers import canceled, failed, storable
from tidemill.worker.sandbox.execution import Ending
from tidemill.worker.store.workflows import Kept

MOST_STEPS = 10_000


Store = Callable[[Step], Awaitable[Kept]]

_steps = msgspec.json.Decoder(Step)


class Steps:
    """The steps of one job, of which some may have been kept in earlier rounds."""

    def __init__(self, store: Store, drop: Callable[[], None], most_bytes: int, count: int = 0, size: int = 0) -> None:
        self._store = store
        self._drop = drop
        self._most_bytes = most_bytes
        self._count = count
        self._size = size

    async def keep(self, said: bytes) -> Ending | None:
        """Keep what the job's process says of a step; return the job's end when it may not go on."""
        try:
            step = _steps.decode(said)
            result = storable(bytes(step.result))
        except (ValueError, RecursionError) as wrong:
            return _failed(f"What a step has come to cannot be kept: {wrong}")
        self._count += 1
        self._size += len(result)
        if self._count > MOST_STEPS:
            return _failed(f"A workflow may run {MOST_STEPS} steps inside its own job, and this is one more.")
        if self._size > self._most_bytes:
            return _failed(f"The steps inside a workflow's own job may come to {self._most_bytes} bytes together.")
        match await self._store(msgspec.structs.replace(step, result=msgspec.Raw(result))):
            case Kept.KEPT:
                return None
            case Kept.TAKEN:
                return _failed(f"The key {step.key!r} is that of another kind of step.")
            case Kept.OVER:
                self._drop()
                return canceled()


def _failed(message: str) -> Ending:
    return failed("refused", "WorkflowError", message)
