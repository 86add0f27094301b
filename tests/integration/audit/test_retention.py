"""Whole days go and the chain stays verifiable from the oldest kept row on."""

from datetime import UTC, date, datetime, timedelta

import asyncpg
import pytest

from tests.integration.audit.conftest import Log
from tidemill.audit import retention
from tidemill.audit.chain import Wrong
from tidemill.audit.store import anchors, entries

KEPT = timedelta(days=3)


class Later:
    """A clock that is ahead of the real one."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def monotonic(self) -> float:
        raise AssertionError("nobody waits here")

    async def sleep(self, span: timedelta) -> None:
        raise AssertionError("nobody waits here")


async def a_week(log: Log) -> list[date]:
    """Write two entries a day and workspace, as if it were done on each of the last seven days."""
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=ago) for ago in range(6, -1, -1)]
    await log.forger.execute("SET session_replication_role = origin")
    for day in days:
        await log.forger.execute("SELECT audit.make_day($1)", day)
        for workspace in ("w", "v", "w", "v"):
            await log.forger.execute(
                "INSERT INTO audit.entry (event_id, workspace_id, recorded_at, at, username, email, operation,"
                " action_kind, resource, parameters)"
                " VALUES (gen_random_uuid(), $1, $2, now(), 'ann', 'a@b.c', 'o', 'Created', '', '{}')",
                workspace,
                datetime(day.year, day.month, day.day, tzinfo=UTC),
            )
    await log.forger.execute("SET session_replication_role = replica")
    return days


async def kept_days(log: Log) -> list[date]:
    return [
        row[0]
        for row in await log.forger.fetch(
            "SELECT DISTINCT (recorded_at AT TIME ZONE 'UTC')::date FROM audit.entry ORDER BY 1"
        )
    ]


async def test_days_beyond_the_retention_go_and_the_rest_is_whole(log: Log) -> None:
    days = await a_week(log)
    await log.anchor()
    turn = await retention.run_once(log.database, log.key, Later(timedelta(0)), KEPT)
    assert turn.counts == {"dropped": 3}
    assert await kept_days(log) == days[3:]
    assert await log.findings() == []
    # The next day one more goes, and of what is dropped nothing stays but the newest floor.
    assert (await retention.run_once(log.database, log.key, Later(timedelta(days=1)), KEPT)).counts == {"dropped": 1}
    assert [(each.link.seq, each.is_floor) for each in await anchors.of_workspace(log.database, "w")] == [
        (8, True),
        (14, False),
    ]
    await log.append(2)
    assert await log.findings() == []


async def test_what_is_done_to_the_rest_is_still_found(log: Log) -> None:
    await a_week(log)
    await log.anchor()
    await retention.run_once(log.database, log.key, Later(timedelta(0)), KEPT)
    await log.forger.execute("DELETE FROM audit.entry WHERE workspace_id = 'w' AND seq = 7")
    assert await log.wrong() == [("w", 7, Wrong.MISSING)]


async def test_a_floor_that_nobody_signed_hides_nothing(log: Log) -> None:
    await a_week(log)
    await log.anchor()
    await log.forger.execute(
        "INSERT INTO audit.anchor SELECT workspace_id, seq, true, hash, now(), '\\x00' FROM audit.entry"
        " WHERE workspace_id = 'w' AND seq = 4"
    )
    await log.forger.execute("DELETE FROM audit.entry WHERE workspace_id = 'w' AND seq <= 4")
    assert await log.wrong() == [("w", 4, Wrong.ALTERED)]


async def test_days_that_can_not_be_verified_stay(log: Log) -> None:
    days = await a_week(log)
    await log.anchor()
    await log.forger.execute("UPDATE audit.entry SET username = 'bob' WHERE workspace_id = 'w' AND seq = 3")
    assert (await retention.run_once(log.database, log.key, Later(timedelta(0)), KEPT)).counts == {"dropped": 1}
    assert await kept_days(log) == days[1:]
    assert await log.wrong() == [("w", 3, Wrong.ALTERED)]


async def test_no_day_is_dropped_without_floors_and_none_that_is_not_over(log: Log) -> None:
    days = await a_week(log)
    for day, why in ((days[0], "have no floor"), (days[-1], "is not over")):
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match=why):
            await entries.drop_day(log.database, day)
    assert await kept_days(log) == days


async def test_a_repeated_event_of_a_kept_day_is_known_after_days_were_dropped(log: Log) -> None:
    await a_week(log)
    await retention.run_once(log.database, log.key, Later(timedelta(0)), KEPT)
    counted = "SELECT (SELECT count(*) FROM audit.heard) = (SELECT count(*) FROM audit.entry)"
    assert await log.forger.fetchval(counted)


async def test_a_chain_never_goes_back_to_an_earlier_day(log: Log) -> None:
    await log.append()
    await log.forger.execute("UPDATE audit.chain SET recorded_at = now() + interval '1 day'")
    with pytest.raises(asyncpg.SerializationError):
        await log.append()
    assert await log.findings() == []
