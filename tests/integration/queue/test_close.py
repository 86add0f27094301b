"""Closing a workspace: what is unfinished ends, and nothing comes in any more, not even at that very moment."""

import asyncio
import json

import pytest
from asyncpg import PostgresError

from tests.support.queue import Queue, a_job
from tidemill.chassis.database import sqlstate


async def close(queue: Queue, workspace: str = "w") -> list[tuple[str, str | None]]:
    rows = await queue.api.fetch("SELECT * FROM queue.close_workspace($1, 'ann', 'because')", workspace)
    return [(str(row["id"]), row["said"]) for row in rows]


async def test_every_unfinished_job_of_the_workspace_ends(queue: Queue) -> None:
    await queue.start_worker()
    claim = await queue.a_claim()
    limited = {"limit_key": "k", "limit_ceiling": 1}
    jobs = [
        await queue.request(a_job(**changes))
        for changes in (limited, limited, {"due_in_ms": 60_000}, {"reply_to": "replica"})
    ]
    other = await queue.request(a_job(workspace_id="other", tag="bash"))
    *heard, (_, said) = await close(queue)
    assert {job_id for job_id, _ in heard} == {str(claim.job_id), str(jobs[-1])}
    assert [await queue.state_of(each) for each in (*jobs, claim.job_id)] == ["canceled"] * 5
    assert await queue.state_of(other) == "queued"
    assert json.loads(said or "") == []
    assert await queue.finish(claim) == "stale"
    ended = await queue.job(jobs[0])
    assert (ended["canceled_by"], ended["canceled_reason"]) == ("ann", "because")
    assert json.loads(ended["result"])["error"]["name"] == "Canceled"


async def test_what_was_held_of_a_limit_goes_to_other_workspaces(queue: Queue) -> None:
    limited = {"limit_key": "k", "limit_ceiling": 1}
    await queue.request(a_job(**limited))
    waits = await queue.request(a_job(workspace_id="other", **limited))
    assert await queue.state_of(waits) == "blocked"
    ((_, said),) = await close(queue)
    assert await queue.state_of(waits) == "queued"
    assert [json.loads(each["body"])["data"]["job_id"] for each in json.loads(said or "")] == [str(waits)]


async def test_a_closed_workspace_takes_no_job_until_it_is_opened(queue: Queue) -> None:
    await close(queue)
    with pytest.raises(PostgresError) as refused:
        await queue.request(a_job())
    assert sqlstate(refused.value) == "TM008"
    await queue.request(a_job(workspace_id="other"))
    await queue.api.execute("SELECT queue.open_workspace('w')")
    await queue.request(a_job())


async def test_a_job_that_is_requested_while_the_workspace_closes_is_not_missed(queue: Queue) -> None:
    asked = a_job()
    async with queue.api.acquire() as requesting:
        transaction = requesting.transaction()
        await transaction.start()
        await requesting.fetch("SELECT * FROM queue.request_job($1, '{}', NULL)", json.dumps(asked, default=str))
        closing = asyncio.create_task(close(queue))
        await asyncio.wait_for(queue.until_somebody_waits(), 20)
        await transaction.commit()
    await asyncio.wait_for(closing, 20)
    assert await queue.state_of(asked["id"]) == "canceled"


async def test_a_request_that_waits_for_the_end_of_the_closing_is_refused(queue: Queue) -> None:
    async with queue.api.acquire() as closing:
        transaction = closing.transaction()
        await transaction.start()
        await closing.fetch("SELECT * FROM queue.close_workspace('w', 'ann', NULL)")
        requesting = asyncio.create_task(queue.request(a_job()))
        await asyncio.wait_for(queue.until_somebody_waits(), 20)
        await transaction.commit()
    with pytest.raises(PostgresError, match="closed"):
        await asyncio.wait_for(requesting, 20)


async def test_a_long_line_ends_in_one_statement(queue: Queue) -> None:
    await queue.look.execute(
        "INSERT INTO queue.live_job (id, born, workspace_id, state, tag, urgency, rank, due_at)"
        " SELECT gen_random_uuid(), now(), 'w', 'queued', 'python3', 0, n, now() FROM generate_series(1, 50000) n"
    )
    await close(queue)
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0
    assert await queue.look.fetchval("SELECT count(*) FROM queue.finished_job WHERE outcome = 'canceled'") == 50_000
