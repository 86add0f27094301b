"""Days ahead get their partitions; days beyond the retention lose theirs.

Retention counts from completion: before a day goes, what finished late, what is unfinished and the trees of unfinished
roots move on into today's partition. Then its partitions are detached without blocking anybody, and dropped.
"""

import logging
from datetime import UTC, date, datetime, timedelta

import asyncpg

from tidemill.chassis.loops import Turn
from tidemill.scheduler.context import Context
from tidemill.scheduler.store import queue
from tidemill.shared.catalog import Service

log = logging.getLogger(__name__)

_AHEAD = 14
_MOVED_AT_ONCE = 500


async def run_once(ctx: Context) -> Turn:
    """Make the partitions of the next two weeks and drop the days that are beyond the retention."""
    await queue.prepare_days(ctx.database, _AHEAD)
    before = datetime.now(UTC) - ctx.settings.retention
    dropped = moved = 0
    for day in await queue.days_before(ctx.database, before):
        while count := await queue.move_on(ctx.database, day, before, _MOVED_AT_ONCE):
            moved += count
        await _drop(ctx, day)
        dropped += 1
        log.info("day dropped", extra={"day": day.isoformat(), "moved": moved})
    # A day later than the jobs, whose days are cut off at midnight.
    forgotten = await queue.forget_code(ctx.database, (before - timedelta(days=1)).date())
    return Turn(counts={"dropped": dropped, "moved": moved, "forgotten": forgotten})


async def _drop(ctx: Context, day: date) -> None:
    # An own connection: DETACH CONCURRENTLY can't run inside a transaction, and waits for every reader of the table.
    url = ctx.chassis.database_url_of(Service.SCHEDULER)
    connection = await asyncpg.connect(url, timeout=5, command_timeout=timedelta(minutes=10).total_seconds())
    try:
        await connection.execute("SET ROLE tidemill_queue_owner")
        await connection.execute("SET lock_timeout = '5s'")
        for parent in await connection.fetchval("SELECT queue.day_tables()"):
            partition = f"queue.{parent}_p{day:%Y%m%d}"
            if await connection.fetchval("SELECT to_regclass($1) IS NULL", partition):
                continue
            if await connection.fetchval(
                "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = $1::text::regclass", partition
            ):
                # A detach that was interrupted has to be finished before anything else can be done.
                await connection.execute(f"ALTER TABLE queue.{parent} DETACH PARTITION {partition} FINALIZE")
            elif await connection.fetchval(
                "SELECT relispartition FROM pg_class WHERE oid = $1::text::regclass", partition
            ):
                await connection.execute(f"ALTER TABLE queue.{parent} DETACH PARTITION {partition} CONCURRENTLY")
            await connection.execute(f"DROP TABLE {partition}")
    finally:
        await connection.close()
