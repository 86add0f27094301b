"""The log itself."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import NamedTuple
from uuid import UUID

import msgspec

from tidemill.audit.chain import Entry, Link
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load
from tidemill.shared.messages import AuditRecorded

QUERIES = load(__package__, "entries.sql")

BEFORE_ALL = (-(2**63), 0)
"""Before the first row, also before one that somebody has put where none belongs."""


class Event(NamedTuple):
    """Something to be written down, once however often its id comes."""

    id: UUID
    said: AuditRecorded


async def append(db: Executor, events: Sequence[Event]) -> None:
    """Write events down as the next links of their workspaces' chains, all of them or none."""
    said = [event.said for event in events]
    await db.execute(
        QUERIES.append,
        [event.id for event in events],
        [each.workspace_id for each in said],
        [each.at for each in said],
        [each.username for each in said],
        [each.email for each in said],
        [each.operation for each in said],
        [each.action_kind for each in said],
        [each.resource for each in said],
        [msgspec.json.encode(each.parameters).decode() for each in said],
        [each.span for each in said],
    )


async def prepare_days(db: Executor, ahead: int) -> None:
    """Make the partitions of today and of the days ahead."""
    await db.execute(QUERIES.prepare_days, ahead)


async def drop_day(db: Executor, day: date) -> None:
    """Drop a day of which every chain's end has a floor."""
    await db.execute(QUERIES.drop_day, day)


async def days_before(db: Executor, day: date) -> Sequence[date]:
    """Return the days that are kept and older, oldest first."""
    return [row["day"] for row in await db.fetch(QUERIES.days_before, day)]


async def last_of_day(db: Executor, day: date) -> Sequence[tuple[str, Link]]:
    """Return the place of each workspace's last entry of a day."""
    rows = await db.fetch(QUERIES.last_of_day, datetime.combine(day, time(), UTC))
    return [(row["workspace_id"], Link(seq=row["seq"], hash=row["hash"])) for row in rows]


async def next_entries(db: Executor, workspace_id: str, after: tuple[int, int], limit: int) -> Sequence[Entry]:
    """Return the next entries of a chain, after a `seq` and an `id`."""
    return [Entry(**row) for row in await db.fetch(QUERIES.next_entries, workspace_id, *after, limit)]


async def workspaces(db: Executor) -> Sequence[str]:
    """Return every workspace that has a chain, or ever had one that was signed."""
    return [row["workspace_id"] for row in await db.fetch(QUERIES.workspaces)]


async def head(db: Executor, workspace_id: str) -> Link | None:
    """Return the place behind which the next entry is added."""
    row = await db.fetchrow(QUERIES.head, workspace_id)
    return None if row is None else Link(seq=row["seq"], hash=row["hash"])


async def now(db: Executor) -> datetime:
    """Return the database's time, by which entries are recorded."""
    moment: datetime = await db.fetchval(QUERIES.now)
    return moment


async def see_one_moment(tx: Executor) -> None:
    """Let a transaction that has read nothing yet see one moment from its first statement to its last."""
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
