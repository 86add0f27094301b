"""Results that are kept answer the same request again."""

import json
from typing import Any

from tests.support.queue import Queue, Request, a_job
from tests.support.steps import a_flow, a_step, end, start

KEPT: dict[str, Any] = {"cache_key": "key", "cache_ttl_s": 3600}


def kept_job(**changes: Any) -> Request:
    return a_job(**{**KEPT, **changes})


async def ran(queue: Queue, outcome: str = "success", result: Any = 42, **changes: Any) -> None:
    await queue.request(kept_job(**changes))
    assert await queue.finish(await queue.claimed(), outcome, result) == "done"


async def cached(queue: Queue) -> Any:
    kept = await queue.scheduler.fetchval("SELECT queue.cached('key')")
    return None if kept is None else json.loads(kept)


async def test_a_hit_ends_at_once_without_a_worker_and_says_so(queue: Queue) -> None:
    await ran(queue)
    state, said = await queue.ask(again := kept_job(limit_key="limit", limit_ceiling=0))
    assert (state, said) == ("success", [])
    row = await queue.job(again["id"])
    assert (row["outcome"], row["result"], row["worker"]) == ("success", "42", None)
    log = await queue.api.fetchval("SELECT text FROM queue.job_log WHERE job_id = $1", again["id"])
    assert "[cached: the result is that of the job " in log
    assert await queue.claim() is None


async def test_only_success_is_kept_and_only_so_long(queue: Queue) -> None:
    await ran(queue, "failure")
    assert (await cached(queue)) is None
    await ran(queue)
    await queue.look.execute("UPDATE queue.cached_result SET expires_at = now()")
    assert (await cached(queue)) is None
    assert (await queue.ask(kept_job()))[0] == "queued"
    await queue.tick()
    assert await queue.look.fetchval("SELECT count(*) FROM queue.cached_result") == 0


async def test_a_hit_does_not_make_the_result_last_longer(queue: Queue) -> None:
    await ran(queue)
    expiry = "SELECT expires_at FROM queue.cached_result"
    expires_at = await queue.look.fetchval(expiry)
    assert (await queue.ask(kept_job(erase_after_s=0)))[0] == "success"
    assert await queue.look.fetchval(expiry) == expires_at


async def test_a_later_result_takes_the_place_of_an_earlier_one(queue: Queue) -> None:
    first, second = [await queue.request(kept_job()) for _ in range(2)]
    for result in (1, 2):
        await queue.finish(await queue.claimed(), result=result)
    assert first != second
    assert await cached(queue) == 2


async def test_a_large_result_is_not_kept(queue: Queue) -> None:
    await ran(queue, result="x" * (1 << 20))
    assert (await cached(queue)) is None
    await ran(queue, result="x" * ((1 << 20) - 2))
    assert (await cached(queue)) is not None


async def test_a_job_for_later_runs_anew(queue: Queue) -> None:
    await ran(queue)
    assert (await queue.ask(kept_job(due_in_ms=1000)))[0] == "scheduled"


async def test_steps_and_flows_keep_and_use_results_as_well(queue: Queue) -> None:
    flow = await a_flow(queue, cache_key="flow", cache_ttl_s=60)
    await start(queue, flow, a_step(**KEPT))
    await queue.finish(await queue.claimed(), result=[None])
    assert await cached(queue) == [None]
    again = await start(queue, flow, a_step(**KEPT, answered=True, result=[None], step_no=1, step_id="b"))
    log = await queue.api.fetchval("SELECT text FROM queue.job_log WHERE job_id = $1", again)
    assert "[cached: the result is that of the job " in log
    await end(queue, flow, result={"all": 1})
    state, _ = await queue.ask(a_job(kind="flow", tag="flow", cache_key="flow", cache_ttl_s=60))
    assert state == "success"
