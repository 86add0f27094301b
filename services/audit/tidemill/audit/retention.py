"""Days ahead get their partitions; days beyond the retention lose theirs, as whole days.

Before a day goes, a signed floor remembers for every chain where the rest begins. A day that can't be verified any more
stays: it is the proof of what was done to it.
"""

import logging
from datetime import UTC, date, timedelta

from tidemill.audit.chain import Finding, Walk, start_of
from tidemill.audit.store import anchors, entries
from tidemill.audit.verify import follow, refuse_unsigned, signed
from tidemill.chassis.clock import Clock
from tidemill.chassis.database import Database, Transaction
from tidemill.chassis.loops import Turn

log = logging.getLogger(__name__)

AHEAD = 3


async def run_once(database: Database, key: bytes, clock: Clock, retention: timedelta) -> Turn:
    """Make the partitions of the next days and drop the days that are beyond the retention, oldest first."""
    await entries.prepare_days(database, AHEAD)
    dropped = 0
    for day in await entries.days_before(database, (clock.now() - retention).astimezone(UTC).date()):
        async with database.transaction() as tx:
            finding = await raise_floors(tx, day, key, clock)
            if finding is None:
                await entries.drop_day(tx, day)
        if finding is not None:
            log.error("the audit log was tampered with; its old days stay", extra={"finding": str(finding)})
            break
        dropped += 1
        log.info("day dropped", extra={"day": day.isoformat()})
    return Turn(counts={"dropped": dropped})


async def raise_floors(tx: Transaction, day: date, key: bytes, clock: Clock) -> Finding | None:
    """Let every chain begin behind its last entry of the day; or let none, and return what is wrong before that."""
    floors = []
    for workspace, last in await entries.last_of_day(tx, day):
        known = await anchors.of_workspace(tx, workspace)
        walk = Walk(workspace, start_of(workspace, known), known)
        finding = refuse_unsigned(known, key) or await follow(tx, workspace, walk, entries.BEFORE_ALL, until=last.seq)
        if finding is not None:
            return finding
        floors.append(signed(key, workspace, walk.last, clock.now(), is_floor=True))
    for floor in floors:
        await anchors.add(tx, floor)
    return None
