"""A27: a worker does to no job what it holds no claim of, and sees none."""

import uuid

import asyncpg
import pytest

from tests.support.queue import AT_ONCE, NEVER, Claim, Queue, a_job


async def two_workers(queue: Queue) -> tuple[Claim, Claim]:
    """Return a claim of one worker and a claim of another."""
    ours = await queue.a_claim()
    other = await queue.start_worker("bash", run=uuid.uuid4())
    await queue.request(a_job(tag="bash"))
    return ours, await queue.claimed("bash", run=other)


def forged(ours: Claim, theirs: Claim) -> tuple[Claim, ...]:
    """Return what a worker may try with what it knows: another's job under its own key, and under a guessed one."""
    return (
        Claim(theirs.job_id, ours.key, ours.run, ours.row),
        Claim(theirs.job_id, uuid.uuid4(), ours.run, ours.row),
        Claim(theirs.job_id, uuid.UUID(int=0), theirs.run, ours.row),
        Claim(theirs.job_id, theirs.job_id, theirs.run, ours.row),
    )


async def test_a27_a_worker_finishes_no_job_of_another(queue: Queue) -> None:
    """A27: a claim's key is its only proof, and it proves one job."""
    ours, theirs = await two_workers(queue)
    for attempt in forged(ours, theirs):
        assert await queue.finish(attempt, result="forged") in ("stale", "unknown")
        assert await queue.state_of(theirs.job_id) == "running"
    assert await queue.finish(theirs, result="right") == "done"
    for attempt in forged(ours, theirs):
        assert await queue.finish(attempt, result="forged") in ("stale", "unknown")
    assert (await queue.job(theirs.job_id))["result"] == '"right"'
    assert await queue.finish(ours) == "done"


async def test_a27_a_worker_writes_into_no_log_of_another(queue: Queue) -> None:
    """A27: neither into the log nor into what is streamed."""
    ours, theirs = await two_workers(queue)
    for attempt in forged(ours, theirs):
        assert await queue.append_log(attempt, 1, "forged") is False
        streamed = await queue.worker.fetchval(
            "SELECT queue.append_stream($1, $2, $3, $4, $5)", attempt.job_id, attempt.key, 1, "forged", 6
        )
        assert streamed is False
    assert await queue.look.fetchval("SELECT count(*) FROM queue.log_chunk WHERE job_id = $1", theirs.job_id) == 0


async def test_a27_a_worker_gives_no_job_of_another_back(queue: Queue) -> None:
    """A27: the job stays where it is."""
    ours, theirs = await two_workers(queue)
    for attempt in forged(ours, theirs):
        assert await queue.release(attempt) == []
    assert (await queue.live(theirs.job_id))["state"] == "running"
    assert await queue.finish(theirs) == "done"


async def test_a27_a_worker_keeps_no_claim_of_another_alive(queue: Queue) -> None:
    """A27: a beat counts for the worker that says it; another's claims are dropped, whoever names their keys."""
    ours, theirs = await two_workers(queue)
    assert await queue.renew(ours, theirs, beat=NEVER) == {ours.key: "keep", theirs.key: "drop"}
    assert (await queue.live(theirs.job_id))["state"] == "running"
    guessed = Claim(theirs.job_id, uuid.uuid4(), ours.run, ours.row)
    assert await queue.renew(guessed, beat=NEVER) == {guessed.key: "drop"}
    await queue.renew(ours, beat=NEVER)
    assert await queue.finish(theirs) == "done"


async def test_a27_what_another_run_held_before_is_of_no_use(queue: Queue) -> None:
    """A27: the key of a lost run neither finishes nor writes, and its token speaks for nobody."""
    lost = await queue.a_claim()
    await queue.tick(lease=AT_ONCE)
    current = await queue.claimed()
    assert current.job_id == lost.job_id
    assert await queue.finish(lost) == "stale"
    assert await queue.append_log(lost, 1, "late") is False
    assert await queue.verify(lost.row["token"]) is None
    assert await queue.verify(current.row["token"]) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM queue.job",
        "SELECT * FROM queue.live_job",
        "SELECT * FROM queue.any_job",
        "SELECT * FROM queue.finished_job",
        "SELECT * FROM queue.log_chunk",
        "SELECT * FROM queue.token_key",
        "SELECT * FROM platform.token",
        "SELECT * FROM bus.outbox",
        "UPDATE queue.live_job SET claim_key = gen_random_uuid()",
        "DELETE FROM queue.live_job",
        "SELECT queue.verify_job_token('x')",
        "SELECT queue.cancel_job('w', gen_random_uuid(), 'x', 'x', true, null)",
        "SELECT queue.tick('1 s', '1 s', '1 s', 1)",
    ],
)
async def test_a27_a_worker_reads_and_changes_no_job_but_by_its_claims(queue: Queue, statement: str) -> None:
    """A27: the login of a worker may call the functions of a worker, and nothing else."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await queue.worker.execute(statement)
