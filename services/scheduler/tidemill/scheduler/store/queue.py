"""What the scheduler asks of its own schema."""

from datetime import date, datetime, timedelta
from uuid import UUID

import msgspec

from tidemill.chassis.database import Database
from tidemill.chassis.sql import load

QUERIES = load(__package__, "queue.sql")


class Ended(msgspec.Struct, frozen=True):
    """A job that the tick itself has ended, and the api replica that waits for it."""

    job_id: UUID
    reply_to: str | None = None


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What one tick did and found."""

    said: str
    stranded: str
    ended: list[Ended]
    dispatched: int
    requeued: int
    failed: int
    stale_tags: list[str]
    next_due_in: timedelta | None


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for one tag."""

    tag: str
    waiting: int
    oldest: timedelta


_ended = msgspec.json.Decoder(list[Ended])


async def tick(database: Database, connected_for: timedelta, lease: timedelta, beat: timedelta, limit: int) -> Tick:
    """Do all that is due now, and return what has to be published and when to look again."""
    row = await database.fetchrow(QUERIES.tick, connected_for, lease, beat, limit)
    assert row is not None
    return Tick(
        said=row["said"],
        stranded=row["stranded"],
        ended=_ended.decode(row["ended"]),
        dispatched=row["dispatched"],
        requeued=row["requeued"],
        failed=row["failed"],
        stale_tags=row["stale_tags"],
        next_due_in=row["next_due_in"],
    )


async def rehint(database: Database, tag: str, ready: int, limit: int) -> str:
    """Write new tickets for queued rows of a tag of which the broker holds only `ready`; return them as said."""
    said: str = await database.fetchval(QUERIES.rehint, tag, ready, limit)
    return said


async def prepare_days(database: Database, ahead: int) -> int:
    """Make missing partitions and signing keys; return how many days are ready from today on."""
    days: int = await database.fetchval(QUERIES.prepare_days, ahead)
    return days


async def days_before(database: Database, before: datetime) -> list[date]:
    """Return the days whose partitions are older, oldest first."""
    return [row["day"] for row in await database.fetch(QUERIES.days_before, before)]


async def forget_code(database: Database, unused_since: date) -> int:
    """Forget code inside flows that no kept job was made of; return how much was forgotten."""
    forgotten: int = await database.fetchval(QUERIES.forget_code, unused_since)
    return forgotten


async def move_on(database: Database, day: date, finished_before: datetime, limit: int) -> int:
    """Move what has to outlive its day's partitions; return how many jobs were moved."""
    moved: int = await database.fetchval(QUERIES.move_on, day, finished_before, limit)
    return moved


async def backlog(database: Database) -> list[Backlog]:
    """Return what waits, by tag."""
    return [Backlog(**row) for row in await database.fetch(QUERIES.backlog)]
