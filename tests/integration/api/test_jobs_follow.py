"""Following a job as a stream of events over HTTP."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.queue import Claim
from tests.support.waiting import eventually
from tidemill.api.jobs import follow, waiting
from tidemill.api.jobs.follow import Pace
from tidemill.shared.messages import JobProgressed
from tidemill.shared.messages.jobs import Progress


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.script("u/ann/s")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.start_worker("python3", "bash")


class Events:
    """The events of one open stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def next(self) -> Any:
        """Return the next event; None at the end of the stream."""
        line = (await asyncio.wait_for(self.answer.content.readline(), 10)).decode()
        if not line:
            return None
        assert line.startswith("data: ")
        assert await self.answer.content.readline() == b"\n"
        return json.loads(line.removeprefix("data: "))


@asynccontextmanager
async def followed(api: House, job_id: Any, who: str = "ann", **query: Any) -> AsyncIterator[Events]:
    async with api.session.get(
        f"{api.url}/api/w/w/jobs_u/getupdate_sse/{job_id}",
        params=query,
        headers={"Authorization": f"Bearer {api.tokens[who]}"},
    ) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Events(answer)


async def started(api: House) -> Claim:
    await api.run("u/ann/s")
    return await api.queue.claimed("python3")


def say(api: House, claim: Claim, what: Progress) -> None:
    api.hint(JobProgressed(job_id=claim.job_id, what=what))


async def test_what_happens_is_pushed_until_the_end(api: House) -> None:
    job_id = await api.run("u/ann/s")
    async with followed(api, job_id) as events:
        assert await events.next() == {"type": "update", "running": False, "completed": False, "log_offset": 0}
        claim = await api.queue.claimed("python3")
        say(api, claim, Progress.STARTED)
        assert (await events.next())["running"]
        await api.queue.append_log(claim, 0, "one\n")
        say(api, claim, Progress.LOGGED)
        news = await events.next()
        assert (news["new_logs"], news["log_offset"]) == ("one\n", 4)
        await api.queue.finish(claim, result=7, log_seq=1, log_text="two\n", log_units=4)
        say(api, claim, Progress.ENDED)
        last = await events.next()
        assert (last["completed"], last["new_logs"], last["log_offset"]) == (True, "two\n", 8)
        assert "only_result" not in last
        assert await events.next() is None


async def test_only_the_result_comes_when_only_that_is_wanted(api: House) -> None:
    claim = await started(api)
    await api.queue.append_log(claim, 0, "noise")
    async with followed(api, claim.job_id, only_result="true", fast="true") as events:
        assert "new_logs" not in await events.next()
        await api.queue.finish(claim, result={"deep": [1]})
        say(api, claim, Progress.ENDED)
        last = await events.next()
        assert last == {"type": "update", "running": False, "completed": True, "only_result": {"deep": [1]}}


async def test_a_job_that_has_ended_answers_at_once_from_where_one_was(api: House) -> None:
    claim = await started(api)
    await api.queue.append_log(claim, 0, "abc")
    await api.queue.finish(claim)
    async with followed(api, claim.job_id, log_offset="1") as events:
        assert (await events.next())["new_logs"] == "bc"
        assert await events.next() is None
    async with followed(api, claim.job_id, no_logs="true") as events:
        assert "new_logs" not in await events.next()


@pytest.mark.parametrize("which", ["hidden", "absent", "nonsense"])
async def test_attack_a_stream_of_what_one_may_not_see_is_that_of_nothing(api: House, which: str) -> None:
    job_id: Any = {"hidden": await api.run("u/ann/s"), "absent": uuid.uuid4(), "nonsense": "x"}[which]
    async with followed(api, job_id, who="bob") as events:
        assert await events.next() == {"type": "not_found"}
        assert await events.next() is None


async def test_a_quiet_stream_shows_life_and_ends_in_time(api: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(lasts=timedelta(milliseconds=400), ping_every=timedelta(milliseconds=150))
    monkeypatch.setattr(follow, "Pace", lambda: pace)
    async with followed(api, await api.run("u/ann/s")) as events:
        kinds = []
        while (event := await events.next()) is not None:
            kinds.append(event["type"])
    assert kinds[0] == "update"
    assert kinds[-1] == "timeout"
    assert set(kinds[1:-1]) == {"ping"}


async def test_a_lost_message_costs_a_ping(api: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(ping_every=timedelta(milliseconds=50))
    monkeypatch.setattr(follow, "Pace", lambda: pace)
    claim = await started(api)
    async with followed(api, claim.job_id) as events:
        await events.next()
        await api.queue.finish(claim)
        while (event := await events.next())["type"] == "ping":
            pass
        assert event["completed"]


async def test_attack_nobody_holds_more_streams_than_their_share(api: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_STREAMS", 2)
    job_id = await api.run("u/ann/s")
    async with followed(api, job_id) as one:
        await one.next()
        async with followed(api, job_id) as two:
            await two.next()
            await api.get("ann", f"jobs_u/getupdate_sse/{job_id}", status=429)
            async with followed(api, job_id, who="root") as theirs:
                assert (await theirs.next())["type"] == "update"

        async def free() -> bool:
            async with api.session.get(
                f"{api.url}/api/w/w/jobs_u/getupdate_sse/{job_id}",
                headers={"Authorization": f"Bearer {api.tokens['ann']}"},
            ) as answer:
                return answer.status == 200

        assert await eventually(free)


async def test_who_leaves_is_forgotten(api: House) -> None:
    job_id = await api.run("u/ann/s")
    async with followed(api, job_id) as events:
        await events.next()
        assert api.waiters.streams == 1

    async def none_left() -> bool:
        return api.waiters.streams == 0

    assert await eventually(none_left)


async def stream(api: House, claim: Claim, seq: int, text: str) -> None:
    assert await api.queue.worker.fetchval(
        "SELECT queue.append_stream($1, $2, $3, $4, $5)", claim.job_id, claim.key, seq, text, len(text)
    )


async def test_a_result_is_streamed_before_it_is_there(api: House) -> None:
    claim = await started(api)
    await api.queue.append_log(claim, 0, "log")
    async with followed(api, claim.job_id, only_result="true") as events:
        await events.next()
        for seq, (text, ends) in enumerate((("one ", 4), ("two", 7))):
            await stream(api, claim, seq, text)
            say(api, claim, Progress.LOGGED)
            news = await events.next()
            assert (news["new_result_stream"], news["stream_offset"]) == (text, ends)
        await stream(api, claim, 1, "two")
        await api.queue.finish(claim, result="one two")
        say(api, claim, Progress.ENDED)
        last = await events.next()
        assert (last["only_result"], "new_result_stream" in last) == ("one two", False)
    seen = (await api.get("ann", f"jobs_u/getupdate/{claim.job_id}", stream_offset=2)).json
    assert (seen["new_result_stream"], seen["stream_offset"], seen["new_logs"]) == ("e two", 7, "log")
    assert (await api.get("ann", f"jobs_u/get_logs/{claim.job_id}")).text == "log"


async def test_nothing_is_streamed_by_a_run_that_is_over(api: House) -> None:
    claim = await started(api)
    await api.queue.release(claim)
    assert not await api.queue.worker.fetchval(
        "SELECT queue.append_stream($1, $2, 0, 'late', 4)", claim.job_id, claim.key
    )
