"""Whatever somebody does to the log who owns the database, verifying names the first row it was done to."""

import asyncio
import uuid
from datetime import timedelta

import asyncpg
import pytest

from tests.integration.audit.conftest import Log, an_event
from tidemill.audit.chain import Wrong, digest
from tidemill.audit.store import entries
from tidemill.audit.store.entries import Event
from tidemill.chassis.errors import StartRefused

INSERT = """
    INSERT INTO audit.entry
    SELECT nextval('audit.entry_id'), workspace_id, {seq}, gen_random_uuid(), recorded_at, at, 'bob', email, operation,
           action_kind, resource, parameters, span, previous_hash, hash
    FROM audit.entry WHERE workspace_id = 'w' AND seq = 4
"""


async def test_a_log_as_it_was_written_is_whole(log: Log) -> None:
    assert await log.findings() == []
    await log.append(5, "w")
    await log.append(2, "")
    assert await log.findings() == []
    assert (await log.anchor()).counts == {"made": 2, "broken": 0}
    await log.append(3, "w")
    assert await log.findings() == []
    assert await log.findings(only="w") == []


async def test_both_languages_compute_the_same_hashes(log: Log) -> None:
    await log.append(3)
    rows = await entries.next_entries(log.database, "w", entries.BEFORE_ALL, 10)
    assert [row.seq for row in rows] == [1, 2, 3]
    assert [row.hash for row in rows] == [digest(row) for row in rows]


async def test_there_is_nothing_to_verify_of_a_workspace_that_never_was(log: Log) -> None:
    with pytest.raises(StartRefused, match="nothing was ever written down for the workspace 'x'"):
        await log.findings(only="x")


@pytest.mark.parametrize(
    "change",
    [
        "username = 'bob'",
        "parameters = '{}'",
        "span = ''",
        "at = at + interval '1 microsecond'",
        "hash = previous_hash",
    ],
)
async def test_an_altered_row_is_named(log: Log, change: str) -> None:
    await log.append(7)
    await log.append(3, "other")
    await log.forger.execute(f"UPDATE audit.entry SET {change} WHERE workspace_id = 'w' AND seq = 4")
    assert await log.wrong() == [("w", 4, Wrong.ALTERED)]
    assert await log.findings(only="other") == []


async def test_a_row_that_is_gone_from_the_middle_is_named(log: Log) -> None:
    await log.append(7)
    await log.forger.execute("DELETE FROM audit.entry WHERE seq IN (4, 5)")
    assert await log.wrong() == [("w", 4, Wrong.MISSING)]


async def test_last_rows_that_are_gone_are_known_to_the_head(log: Log) -> None:
    await log.append(7)
    await log.forger.execute("DELETE FROM audit.entry WHERE seq > 5")
    assert await log.wrong() == [("w", 6, Wrong.MISSING)]


async def test_last_rows_that_are_gone_are_known_to_the_anchor_when_the_head_was_set_back(log: Log) -> None:
    await log.append(7)
    await log.anchor()
    await log.forger.execute("DELETE FROM audit.entry WHERE seq > 5")
    await log.rewrite()
    assert await log.wrong() == [("w", 6, Wrong.MISSING)]


async def test_a_chain_that_is_gone_altogether_is_known_to_its_anchor(log: Log) -> None:
    await log.append(7)
    await log.anchor()
    await log.forger.execute("TRUNCATE audit.entry, audit.chain")
    assert await log.wrong() == [("w", 1, Wrong.MISSING)]


@pytest.mark.parametrize(("seq", "named"), [("4", 4), ("0", 0), ("seq - 10", -6)])
async def test_an_inserted_row_is_named(log: Log, seq: str, named: int) -> None:
    await log.append(7)
    await log.forger.execute(INSERT.format(seq=seq))
    ((workspace, row, wrong),) = await log.wrong()
    assert (workspace, row) == ("w", named)
    assert wrong in (Wrong.INSERTED, Wrong.ALTERED)


async def test_a_row_added_behind_the_last_is_found(log: Log) -> None:
    await log.append(7)
    await log.forger.execute(INSERT.format(seq="8"))
    assert await log.wrong() == [("w", 8, Wrong.ALTERED)]


async def test_rows_in_another_order_are_found(log: Log) -> None:
    await log.append(7)
    await log.forger.execute("UPDATE audit.entry SET seq = 9 - seq WHERE seq IN (4, 5)")
    assert await log.wrong() == [("w", 4, Wrong.ALTERED)]


async def test_a_chain_made_anew_contradicts_its_anchor(log: Log) -> None:
    await log.append(3)
    await log.anchor()
    await log.append(4)
    await log.anchor()
    await log.forger.execute("UPDATE audit.entry SET username = 'bob' WHERE seq = 4")
    await log.rewrite()
    assert await log.wrong() == [("w", 4, Wrong.ALTERED)]


async def test_anchors_of_somebody_without_the_key_count_for_nothing(log: Log) -> None:
    await log.append(3)
    await log.anchor()
    assert [each.seq for each in await log.findings(key=b"x" * 32)] == [3]
    await log.forger.execute("UPDATE audit.entry SET username = 'bob' WHERE seq = 2")
    await log.rewrite()
    await log.forger.execute("UPDATE audit.anchor a SET hash = c.hash FROM audit.chain c")
    ((_, row, wrong),) = await log.wrong()
    assert (row, wrong) == (3, Wrong.ALTERED)


async def test_anchors_that_are_gone_leave_old_rows_unproven(log: Log) -> None:
    await log.append(3)
    await log.anchor()
    await log.forger.execute("UPDATE audit.entry SET username = 'bob' WHERE seq = 2")
    await log.rewrite()
    await log.forger.execute("TRUNCATE audit.anchor")
    assert await log.wrong(patience=timedelta(0)) == [("w", 1, Wrong.UNPROVEN)]


async def test_a_chain_that_was_tampered_with_is_not_signed_again(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    await log.append(3)
    await log.anchor()
    await log.append(3)
    await log.forger.execute("UPDATE audit.entry SET username = 'bob' WHERE seq = 5")
    assert (await log.anchor()).counts == {"made": 0, "broken": 1}
    assert "tampered" in caplog.text


async def test_nothing_is_signed_twice(log: Log) -> None:
    await log.append(3)
    await log.anchor()
    assert (await log.anchor()).counts == {"made": 0, "broken": 0}


async def test_a_repeated_event_changes_nothing_and_takes_no_number(log: Log) -> None:
    event_id = uuid.uuid4()
    for _ in range(3):
        await entries.append(log.database, [Event(event_id, an_event())])
    # Not even for another workspace: an event is one thing that happened.
    await entries.append(log.database, [Event(event_id, an_event("other"))])
    await log.append()
    rows = await entries.next_entries(log.database, "w", entries.BEFORE_ALL, 10)
    assert [(row.seq, row.id) for row in rows] == [(1, 1), (2, 2)]
    assert await log.findings(only="w") == []


async def test_several_who_append_at_once_keep_one_chain_each(log: Log) -> None:
    events = [Event(uuid.uuid4(), an_event(f"w{number % 3}")) for number in range(120)]
    batches = [events[start : start + 10] for start in range(0, len(events), 10)]
    # Everything twice, as a broker may do after an outage, and each batch with its workspaces in another order.
    again = [list(reversed(batch)) for batch in batches]
    await asyncio.gather(*(entries.append(log.database, batch) for batch in [*batches, *again]))
    assert await log.findings() == []
    for workspace in ("w0", "w1", "w2"):
        rows = await entries.next_entries(log.database, workspace, entries.BEFORE_ALL, 1000)
        assert [row.seq for row in rows] == list(range(1, 41))
        assert [row.id for row in rows] == sorted(row.id for row in rows)


async def test_an_event_that_can_not_be_written_down_takes_no_number(log: Log) -> None:
    await log.append()
    async with log.database.transaction() as tx:
        await entries.append(tx, [Event(uuid.uuid4(), an_event())])
        await tx.execute("SAVEPOINT half")
        await entries.append(tx, [Event(uuid.uuid4(), an_event())])
        await tx.execute("ROLLBACK TO half")
    await log.append()
    rows = await entries.next_entries(log.database, "w", entries.BEFORE_ALL, 10)
    assert [row.seq for row in rows] == [1, 2, 3]
    assert await log.findings() == []


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit.entry (seq) VALUES (1)",
        "INSERT INTO audit.entry (recorded_at) VALUES ('2020-01-01')",
        "INSERT INTO audit.entry (hash) VALUES ('')",
        "UPDATE audit.chain SET seq = 0",
        "INSERT INTO audit.chain VALUES ('w', 0, '', now())",
        "UPDATE audit.anchor SET hash = ''",
        "DELETE FROM audit.anchor",
        "DELETE FROM audit.heard",
        "SELECT audit.make_day(current_date + 9)",
        "SELECT audit.remove_day(current_date)",
        "SET session_replication_role = replica",
    ],
)
async def test_the_login_that_appends_can_do_nothing_but_append(log: Log, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await log.database.execute(statement)


async def test_a_chain_is_verified_over_many_pages(log: Log) -> None:
    await entries.append(log.database, [Event(uuid.uuid4(), an_event(resource=str(number))) for number in range(2500)])
    assert await log.findings() == []
