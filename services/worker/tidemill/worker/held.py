"""What this worker holds: every claim from before it is asked for until its end has been reported.

A claim is entered before the call that makes it, so that a beat in between does not give it back.
"""

import asyncio
from collections.abc import Iterator
from enum import StrEnum
from uuid import UUID, uuid4

from tidemill.worker.store.queue import Claim, Verdict


class Halt(StrEnum):
    """Why a run has to stop before its own end."""

    CANCELED = "canceled"
    """Somebody cancelled the job: report that."""
    DROPPED = "dropped"
    """The claim is over: report nothing."""
    DRAINED = "drained"
    """This worker is going: give the job back."""


class Holding:
    """One claim and the wish to end its run."""

    def __init__(self) -> None:
        self.key = uuid4()
        self.claim: Claim | None = None
        self.halt: Halt | None = None
        self.stop = asyncio.Event()

    def end(self, why: Halt) -> None:
        """Ask the run to stop; the first reason stands, except that a dropped claim has nothing left to report."""
        if self.halt is None or why is Halt.DROPPED:
            self.halt = why
        self.stop.set()


class Held:
    """All claims of this process."""

    def __init__(self) -> None:
        self._holdings: dict[UUID, Holding] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.executed = 0

    def open(self) -> Holding:
        """Enter a claim that is about to be asked for."""
        holding = Holding()
        self._holdings[holding.key] = holding
        self._empty.clear()
        return holding

    def close(self, holding: Holding) -> None:
        """Leave a claim that is over or was never given."""
        self.executed += holding.claim is not None
        self._holdings.pop(holding.key, None)
        if not self._holdings:
            self._empty.set()

    def keys(self) -> list[UUID]:
        """Return the keys that a beat has to name."""
        return list(self._holdings)

    def claimed(self) -> frozenset[UUID]:
        """Return the keys whose claims have been answered: only of those can a beat that begins now know."""
        return frozenset(key for key, holding in self._holdings.items() if holding.claim is not None)

    def judge(self, verdicts: dict[UUID, Verdict], claimed: frozenset[UUID]) -> None:
        """End the runs that a beat has ended, of those that were claimed when it began."""
        for key, verdict in verdicts.items():
            holding = self._holdings.get(key)
            if holding is None or key not in claimed:
                continue
            if verdict is Verdict.DROP:
                holding.end(Halt.DROPPED)
            elif verdict is Verdict.CANCEL:
                holding.end(Halt.CANCELED)

    def of_job(self, job_id: UUID) -> Iterator[Holding]:
        """Yield the claims on a job."""
        yield from [each for each in self._holdings.values() if each.claim is not None and each.claim.id == job_id]

    def end_all(self, why: Halt) -> None:
        """Ask all runs to stop."""
        for holding in list(self._holdings.values()):
            holding.end(why)

    async def wait_until_empty(self) -> None:
        """Return when nothing is held."""
        await self._empty.wait()
