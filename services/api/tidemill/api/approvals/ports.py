"""What approvals ask of others."""

from collections.abc import Sequence
from typing import Protocol

from tidemill.chassis.database import Executor


class Groups(Protocol):
    """Which groups people are in."""

    async def of(self, db: Executor, workspace: str, username: str, /) -> Sequence[str]:
        """Return the groups of a member; `all` is always among them."""
        ...


class OnlyAll:
    """No groups but the one that every member is in."""

    async def of(self, _db: Executor, _workspace: str, _username: str, /) -> Sequence[str]:
        """Return `all`."""
        return ("all",)
