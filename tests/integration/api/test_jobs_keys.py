"""Requests that name a key of their own: the same one again is the same job."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, Reply, house
from tests.support.queue import Claim
from tests.support.waiting import eventually
from tidemill.shared.messages import JobAnswered


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("ann")
        await it.person("root", is_admin=True)
        await it.script("u/ann/s")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.look.execute("DELETE FROM queue.request_key")
    await api.queue.start_worker("python3", "bash")


async def ask(
    api: House, key: str, args: Any = None, *, who: str = "ann", path: str = "jobs/run/p/u/ann/s", **query: Any
) -> Reply:
    return await api.call(who, "POST", path, args or {"a": 1}, headers={"Idempotency-Key": key}, **query)


async def count(api: House) -> int:
    jobs: int = await api.queue.look.fetchval("SELECT count(*) FROM queue.job")
    return jobs


async def test_the_same_request_again_is_the_same_job_and_is_audited_once(api: House) -> None:
    first, again = await ask(api, "k"), await ask(api, "k")
    assert (first.status, again.status, again.text) == (201, 201, first.text)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await count(api) == 1
    assert len(await api.audited()) == 1


async def test_of_many_at_once_one_makes_the_job(api: House) -> None:
    replies = await asyncio.gather(*(ask(api, "k") for _ in range(8)))
    assert {each.status for each in replies} == {201}
    assert len({each.text for each in replies}) == 1
    assert await count(api) == 1


async def test_the_same_key_for_something_else_is_refused(api: House) -> None:
    await ask(api, "k")
    for reply in (await ask(api, "k", {"a": 2}), await ask(api, "k", tag="bash")):
        assert (reply.status, "Idempotency-Key" in reply.text) == (422, True)
    assert await count(api) == 1


async def test_a_key_belongs_to_its_caller(api: House) -> None:
    assert (await ask(api, "k")).text != (await ask(api, "k", who="root")).text


async def test_a_key_is_forgotten_after_a_day(api: House) -> None:
    first = await ask(api, "k")
    left = await api.queue.look.fetchval("SELECT expires_at - now() FROM queue.request_key")
    assert 23 * 3600 < left.total_seconds() < 25 * 3600
    await api.queue.look.execute("UPDATE queue.request_key SET expires_at = now()")
    second = await ask(api, "k", {"a": 2})
    assert (second.status, second.text == first.text) == (201, False)
    await api.queue.look.execute("UPDATE queue.request_key SET expires_at = now()")
    await api.queue.scheduler.fetchval("SELECT queue.prepare_days(1)")
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.request_key") == 0


async def test_a_request_that_failed_may_be_repeated_under_its_key(api: House) -> None:
    assert (await ask(api, "k", parent_job=uuid.uuid4())).status == 400
    assert (await ask(api, "k")).status == 201


async def test_a_key_goes_with_an_id_that_the_caller_chose(api: House) -> None:
    chosen = uuid.uuid4()
    assert [(await ask(api, "k", job_id=chosen)).text for _ in range(2)] == [str(chosen)] * 2


@pytest.mark.parametrize("key", ["", "k" * 256, "schlüssel"])
async def test_what_is_no_key_is_refused(api: House, key: str) -> None:
    assert (await ask(api, key)).status == 400
    assert await count(api) == 0


async def test_a_result_may_be_waited_for_again(api: House) -> None:
    path = "jobs/run_wait_result/p/u/ann/s"
    first = asyncio.create_task(ask(api, "k", path=path))
    claim: Claim | None = await eventually(lambda: api.queue.claim("python3"))
    assert claim is not None
    second = asyncio.create_task(ask(api, "k", path=path))
    await eventually(lambda: _waits(api, claim, 2))
    await api.queue.finish(claim, result=7)
    api.hint(JobAnswered(job_id=claim.job_id), replica=claim.row["reply_to"])
    assert [(await each).json for each in (first, second)] == [7, 7]
    third = await ask(api, "k", path=path)
    assert (third.json, third.headers["Idempotency-Replayed"]) == (7, "true")
    assert await count(api) == 1


async def test_who_asks_again_and_goes_leaves_the_job_alone(api: House) -> None:
    path = "jobs/run_wait_result/p/u/ann/s"
    first = asyncio.create_task(ask(api, "k", path=path))
    claim: Claim | None = await eventually(lambda: api.queue.claim("python3"))
    assert claim is not None
    second = asyncio.create_task(ask(api, "k", path=path))
    await eventually(lambda: _waits(api, claim, 2))
    second.cancel()
    await eventually(lambda: _waits(api, claim, 1))
    await api.queue.finish(claim, result=7)
    api.hint(JobAnswered(job_id=claim.job_id), replica=claim.row["reply_to"])
    assert (await first).json == 7


async def _waits(api: House, claim: Claim, often: int) -> bool:
    return api.waiters.waiting_for(claim.job_id) == often
