"""Days come and go: partitions are made ahead, and what must stay moves on before its day is dropped."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta

import pytest

from tests.support.database import DatabaseUrls
from tests.support.queue import AT_ONCE, Queue, Request, a_job, queue_of

OLD = datetime.now(UTC) - timedelta(days=40)
KEPT = datetime.now(UTC) - timedelta(days=30)
"""Whatever finished before this instant may go."""
CHANGES: Mapping[str, Request] = {
    "scheduled": {"due_in_ms": 3_600_000},
    "blocked": {"limit_key": "k", "limit_ceiling": 1},
}
"""What a request has to say for its job to begin in another state than `queued`."""


@pytest.fixture
async def queue(own_database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    """A queue of this test's own: partitions are made and dropped."""
    async with queue_of(own_database_urls) as queue:
        await queue.start_worker()
        yield queue


def born(at: datetime) -> uuid.UUID:
    """Return a UUIDv7 as it would have been minted then."""
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80 | 0x7 << 76 | 0x2 << 62 | uuid.uuid4().int >> 66)


async def drop(queue: Queue, day: date) -> None:
    """Drop the day as the scheduler does, in one go."""
    for table in ("log_chunk", "finished_job", "job"):
        await queue.look.execute(f"DROP TABLE queue.{table}_p{day:%Y%m%d}")


async def finished_long_ago(queue: Queue, *jobs: uuid.UUID) -> None:
    await queue.look.execute("UPDATE queue.finished_job SET finished_at = $1 WHERE id = ANY ($2)", OLD, jobs)


async def test_days_are_prepared_ahead_and_repeating_it_is_harmless(queue: Queue) -> None:
    count = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'queue.job'::regclass"
    assert await queue.look.fetchval(count) == 15
    assert await asyncio.gather(*(queue.prepare_days(20) for _ in range(4))) == [21] * 4
    assert await queue.look.fetchval(count) == 21
    for day in range(21):
        assert await queue.state_of(await queue.request(a_job(id=born(datetime.now(UTC) + timedelta(days=day)))))


async def test_days_before_an_instant_are_named_oldest_first(queue: Queue) -> None:
    for days in (40, 38, 39):
        await queue.request(a_job(id=born(datetime.now(UTC) - timedelta(days=days))))
    today = datetime.now(UTC).date()
    assert await queue.days_before(KEPT) == [today - timedelta(days=days) for days in (40, 39, 38)]
    assert await queue.days_before(OLD) == []


async def test_what_finished_within_the_retention_is_dropped_and_nothing_is_left_of_it(queue: Queue) -> None:
    claim = await queue.a_claim(id=born(OLD))
    await queue.append_log(claim, 0, "x")
    await queue.finish(claim)
    await finished_long_ago(queue, claim.job_id)
    assert await queue.move_on(OLD.date(), KEPT) == 0
    await drop(queue, OLD.date())
    assert await queue.state_of(claim.job_id) is None
    assert await queue.finish(claim) == "unknown"


async def test_a_job_that_finished_late_stays_with_its_log_and_result(queue: Queue) -> None:
    claim = await queue.a_claim(id=born(OLD))
    await queue.append_log(claim, 0, "printed")
    await queue.finish(claim, result="kept")
    assert await queue.move_on(OLD.date(), KEPT) == 1
    assert await queue.move_on(OLD.date(), KEPT) == 0
    await drop(queue, OLD.date())
    row = await queue.job(claim.job_id)
    assert (row["state"], row["result"]) == ("success", '"kept"')
    log = await queue.api.fetch(
        "SELECT text FROM queue.job_log WHERE job_id = $1 AND born = (SELECT queue.locate($1))", claim.job_id
    )
    assert [row["text"] for row in log] == ["printed"]
    assert await queue.finish(claim) == "already_done"
    assert (await queue.cancel(claim.job_id)).answer == "finished"


@pytest.mark.parametrize("state", ["queued", "scheduled", "blocked", "running"])
async def test_an_unfinished_job_goes_on_as_if_nothing_had_happened(queue: Queue, state: str) -> None:
    if state == "blocked":
        holder = await queue.a_claim(limit_key="k", limit_ceiling=1)
    job = await queue.request(a_job(id=born(OLD)) | CHANGES.get(state, {}))
    claim = await queue.claimed() if state == "running" else None
    assert await queue.state_of(job) == state
    assert await queue.move_on(OLD.date(), KEPT) == 1
    await drop(queue, OLD.date())
    if state == "scheduled":
        await queue.look.execute("UPDATE queue.live_job SET due_at = now()")
        await queue.tick()
    if state == "blocked":
        await queue.finish(holder)
    claim = claim or await queue.claimed()
    assert await queue.append_log(claim, 0, "x")
    assert await queue.verify(claim.row["token"]) is not None
    assert await queue.finish(claim) == "done"
    assert await queue.state_of(job) == "success"


async def test_a_finished_job_stays_while_the_root_above_it_is_unfinished(queue: Queue) -> None:
    root = await queue.request(a_job(due_in_ms=3_600_000))
    claim = await queue.a_claim(id=born(OLD), parent_job=root)
    await queue.finish(claim)
    await finished_long_ago(queue, claim.job_id)
    assert await queue.move_on(OLD.date(), KEPT) == 1
    await drop(queue, OLD.date())
    assert await queue.state_of(claim.job_id) == "success"


async def test_a_job_can_be_moved_on_again_and_is_forgotten_with_its_last_day(queue: Queue) -> None:
    claim = await queue.a_claim(id=born(OLD))
    await queue.finish(claim)
    await queue.move_on(OLD.date(), KEPT)
    await drop(queue, OLD.date())
    await queue.prepare_days(1)
    today = datetime.now(UTC).date()
    assert await queue.move_on(today, KEPT) == 1
    await finished_long_ago(queue, claim.job_id)
    assert await queue.move_on(today, KEPT) == 0
    await drop(queue, today)
    assert await queue.state_of(claim.job_id) is None
    assert await queue.look.fetchval("SELECT count(*) FROM queue.displaced_job") == 0


async def test_moving_on_goes_in_small_steps(queue: Queue) -> None:
    for _ in range(5):
        await queue.request(a_job(id=born(OLD)))
    assert [await queue.move_on(OLD.date(), KEPT, limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_jobs_may_be_claimed_finished_and_lost_while_they_are_moved_on(queue: Queue) -> None:
    jobs = [await queue.request(a_job(id=born(OLD))) for _ in range(60)]

    async def work() -> None:
        while claim := await queue.claim():
            await queue.append_log(claim, 0, "x")
            assert await queue.finish(claim) in ("done", "stale")

    async def move() -> None:
        while await queue.move_on(OLD.date(), KEPT, limit=7):
            await queue.tick(lease=AT_ONCE)

    await asyncio.gather(work(), move(), work(), work())
    await work()
    while await queue.move_on(OLD.date(), KEPT):
        pass
    await drop(queue, OLD.date())
    # A job that was lost three times has failed, which is an end as well.
    assert {await queue.state_of(job) for job in jobs} <= {"success", "failure"}


async def test_code_inside_flows_is_forgotten_when_nothing_kept_was_made_of_it(queue: Queue) -> None:
    made = born(datetime.now(UTC) - timedelta(days=40))
    await queue.request(a_job(id=made, kind="flowscript", code_hash="used"))
    await queue.look.execute(
        "INSERT INTO queue.inline_code (hash, code, last_used) VALUES ('old', 'x', current_date - 40),"
        " ('used', 'x', current_date - 40), ('new', 'x', current_date)"
    )
    assert await queue.scheduler.fetchval("SELECT queue.forget_code(current_date - 31)") == 1
    left = await queue.look.fetch("SELECT hash FROM queue.inline_code ORDER BY hash")
    assert [row["hash"] for row in left] == ["new", "used"]
