"""Signs the ends of the chains, and never one that is not whole since the anchor before."""

import logging
from datetime import UTC, datetime, time, timedelta

from tidemill.audit.chain import Finding
from tidemill.audit.store import anchors, entries
from tidemill.audit.verify import signed, verify_end
from tidemill.chassis.clock import Clock
from tidemill.chassis.database import Database
from tidemill.chassis.loops import Turn

log = logging.getLogger(__name__)


async def run_once(database: Database, key: bytes, clock: Clock) -> Turn:
    """Sign every chain that has grown, and come back at the end of the day at the latest."""
    made = broken = 0
    for workspace in await anchors.unanchored(database):
        async with database.transaction() as tx:
            await entries.see_one_moment(tx)
            end = await verify_end(tx, workspace, key)
        if isinstance(end, Finding):
            broken += 1
            log.error("the audit log was tampered with; its end is not signed", extra={"finding": str(end)})
        else:
            await anchors.add(database, signed(key, workspace, end, clock.now()))
            made += 1
    return Turn(counts={"made": made, "broken": broken}, next_in=until_midnight(clock.now()))


def until_midnight(now: datetime) -> timedelta:
    """Return how long the day still lasts."""
    return datetime.combine(now.astimezone(UTC).date() + timedelta(days=1), time(), UTC) - now
