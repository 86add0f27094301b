"""What the api's handlers ask of those who wait for jobs."""

import asyncio
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import msgspec

from tidemill.shared.ids import ReplicaId
from tidemill.shared.script import Outcome


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended: its result as JSON text."""

    outcome: Outcome
    result: str
    early: str | None = None
    """Of a flow: what it has answered before its end."""


class Early(msgspec.Struct, frozen=True):
    """What a flow that goes on has answered already, as JSON text."""

    early: str


class Following(Protocol):
    """One who looks at a job while it goes on."""

    async def wait(self, longest: timedelta) -> bool:
        """Return True when there may be something new since the last call, and False after `longest`."""
        ...


class Waiters(Protocol):
    """Those who wait for jobs at this replica."""

    @property
    def replica(self) -> ReplicaId:
        """The address of this replica: what a job's `reply_to` has to be."""

    def expect(
        self, job_id: UUID, *, known: bool = False, early: bool = False
    ) -> AbstractContextManager[asyncio.Future[Ended | Early]]:
        """Wait for a job from now on, before it is requested; the future resolves when it has ended.

        One that is `known` was requested before and is looked at once now. What a flow answers `early` is enough.
        """

    def requested(self, job_id: UUID, *, at_once: bool = False) -> None:
        """Note that a job that is expected is there: if it is so no more, the future raises NotFound.

        One that may have ended `at_once`, of which nobody says so, is looked at now.
        """

    def follow(self, job_id: UUID) -> AbstractAsyncContextManager[Following]:
        """Hear of a job's progress for as long as the context lasts."""

    def stream(self, who: str) -> AbstractContextManager[None]:
        """Count one more open stream of somebody; raises TooManyRequests when they have their share."""
