"""Requesting jobs over HTTP, and waiting for their results."""

import asyncio
import base64
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, Reply, house
from tests.support.queue import Claim
from tests.support.servers import Rabbit
from tests.support.waiting import eventually
from tidemill.chassis.database import Database
from tidemill.chassis.rabbit import RabbitBroker
from tidemill.shared.messages import JobAnswered, JobProgressed
from tidemill.shared.messages.jobs import Progress


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.person("op", operator=True)
        await it.script("u/ann/s")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.start_worker("python3", "bash")


async def claim_of(api: House, job_id: uuid.UUID, tag: str = "python3") -> Claim:
    claim = await api.queue.claimed(tag)
    assert claim.job_id == job_id
    return claim


async def answer_next(api: House, result: Any, outcome: str = "success", tag: str = "python3") -> Claim:
    """Be the worker of the next job: claim it, end it, and tell the replica that waits."""
    claim = await eventually(lambda: api.queue.claim(tag))
    assert claim is not None
    await api.queue.finish(claim, outcome, result)
    api.hint(JobAnswered(job_id=claim.job_id), replica=claim.row["reply_to"])
    return claim


async def test_a_job_is_requested_with_its_arguments_untouched(api: House) -> None:
    written = '{"b": 1.50, "a":  {"z": 12345678901234567890, "y": null}, "\\u00e9": "\\u0000"}'
    reply = await api.call(
        "ann", "POST", "jobs/run/p/u/ann/s", data=written.encode(), headers={"Content-Type": "application/json"}
    )
    assert (reply.status, reply.content_type) == (201, "text/plain")
    claim = await claim_of(api, uuid.UUID(reply.text))
    assert claim.row["args"] == written
    assert (claim.row["path"], claim.row["kind"], claim.row["language"]) == ("u/ann/s", "script", "python3")
    assert (claim.row["created_by"], claim.row["permissioned_as"]) == ("ann", "u/ann")


async def test_a_version_runs_by_its_hash_even_when_archived(api: House) -> None:
    version = await api.script("u/ann/versioned", content="1", envs=["A=b"], timeout=9)
    await api.script("u/ann/versioned", content="2", parent_hash=version)
    job_id = uuid.UUID((await api.post("ann", f"jobs/run/h/{version}", {}, status=201)).text)
    row = (await claim_of(api, job_id)).row
    assert (row["hash"], row["envs"], row["timeout_s"]) == (version, ["A=b"], 9)


@pytest.mark.parametrize("says", ["script", "run"])
async def test_the_same_run_again_is_answered_from_the_cache(api: House, says: str) -> None:
    path, ttl = f"u/ann/cached_by_{says}", 3600
    deployed: dict[str, Any] = {"cache_ttl": ttl} if says == "script" else {}
    query: dict[str, Any] = {"cache_ttl": ttl} if says == "run" else {}
    await api.script(path, **deployed)
    waiting = asyncio.create_task(api.post("ann", f"jobs/run_wait_result/p/{path}", {"a": 1, "b": [2.50]}, **query))
    first = await answer_next(api, {"answer": 42})
    assert (await waiting).json == {"answer": 42}
    again = await api.post("root", f"jobs/run_wait_result/p/{path}", {"b": [2.50], "a": 1}, **query)
    assert again.json == {"answer": 42}
    job_id = uuid.UUID((await api.post("ann", f"jobs/run/p/{path}", {"b": [2.50], "a": 1}, status=201, **query)).text)
    job = (await api.get("ann", f"jobs_u/get/{job_id}")).json
    assert (job["type"], job["success"], job["result"]) == ("CompletedJob", True, {"answer": 42})
    assert f"cached: the result is that of the job {first.job_id}" in job["logs"]
    assert await api.queue.claim() is None


async def test_other_arguments_failures_and_who_asks_for_it_run_anew(api: House) -> None:
    await api.script("u/ann/cached", cache_ttl=3600)
    asked: list[tuple[Any, dict[str, Any], str | None]] = [
        ({"a": 1}, {}, "failure"),
        ({"a": 1}, {}, "success"),
        ({"a": 2}, {}, "success"),
        ({"a": 1}, {"cache_ttl": 0}, "success"),
        ({"a": 1}, {"scheduled_in_secs": 3600}, None),
    ]
    for args, query, outcome in asked:
        job_id = await api.run("u/ann/cached", args, **query)
        if outcome is None:
            assert await api.queue.state_of(job_id) == "scheduled"
        else:
            await api.queue.finish(await claim_of(api, job_id), outcome, 1)
    assert await api.queue.state_of(await api.run("u/ann/cached", {"a": 1})) == "success"


async def test_a_result_that_is_to_be_erased_is_answered_before(api: House) -> None:
    await api.script("u/ann/erased", delete_after_secs=0)
    waiting = asyncio.create_task(api.post("ann", "jobs/run_wait_result/p/u/ann/erased", {"a": 1}))
    claim = await answer_next(api, 7)
    assert (await waiting).json == 7
    await api.queue.look.execute("UPDATE queue.erasure SET due_at = now()")
    await api.queue.tick()
    job = (await api.get("ann", f"jobs_u/get/{claim.job_id}")).json
    assert (job["args"], job["result"], job["deleted"], job["success"]) == ({}, None, True, True)


async def test_code_runs_without_being_deployed(api: House) -> None:
    body = {"content": "echo hi", "language": "bash", "args": {"a": [1, 2.50]}, "path": "u/ann/draft", "tag": "python3"}
    job_id = uuid.UUID((await api.post("ann", "jobs/run/preview", body, status=201)).text)
    row = (await claim_of(api, job_id)).row
    assert (row["kind"], row["code"], row["path"], row["language"]) == ("preview", "echo hi", "u/ann/draft", "bash")
    assert row["args"] == '{"a": [1, 2.5]}'


@pytest.mark.parametrize(
    ("content_type", "body", "args"),
    [
        (None, b"", {}),
        ("application/json", b"", {}),
        ("application/json", b"[1]", {"body": [1]}),
        ("text/plain", b"hello", {"raw_string": "hello"}),
        ("application/x-www-form-urlencoded", b"a=1&b=%20", {"a": "1", "b": " "}),
    ],
)
async def test_any_body_becomes_arguments(api: House, content_type: str | None, body: bytes, args: Any) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    reply = await api.call("ann", "POST", "jobs/run/p/u/ann/s", data=body, headers=headers, status=201)
    assert json.loads((await claim_of(api, uuid.UUID(reply.text))).row["args"]) == args


async def test_chosen_headers_and_parameters_become_arguments(api: House) -> None:
    reply = await api.call(
        "ann",
        "POST",
        "jobs/run/p/u/ann/s",
        {"n": 1},
        headers={"X-Event": "7", "X-Other": "8"},
        status=201,
        include_header="X-Event",
        include_query="q",
        q="9",
    )
    assert json.loads((await claim_of(api, uuid.UUID(reply.text))).row["args"]) == {"n": 1, "x_event": "7", "q": "9"}


async def test_bad_bodies_are_refused_and_leave_nothing_behind(api: House) -> None:
    for body, content_type, status in (
        (b"{", "application/json", 400),
        (b'{"a": NaN}', "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"x", "image/png", 415),
    ):
        await api.call(
            "ann", "POST", "jobs/run/p/u/ann/s", data=body, headers={"Content-Type": content_type}, status=status
        )
    assert await api.queue.claim("python3") is None


async def test_a_job_waits_for_its_time(api: House) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    at = await api.run("u/ann/s", scheduled_for=later.isoformat())
    after = await api.run("u/ann/s", scheduled_in_secs=3600)
    at_once = await api.run("u/ann/s", scheduled_for="2020-01-01T00:00:00Z")
    assert [await api.queue.state_of(each) for each in (at, after, at_once)] == ["scheduled", "scheduled", "queued"]
    assert datetime.fromisoformat((await api.get("ann", f"jobs_u/get/{at}")).json["scheduled_for"]) == later
    await api.post("ann", "jobs/run/p/u/ann/s", {}, status=400, scheduled_for=later.isoformat(), scheduled_in_secs=1)
    await api.post("ann", "jobs/run/p/u/ann/s", {}, status=400, scheduled_in_secs=-1)
    await api.post("ann", "jobs/run/p/u/ann/s", {}, status=400, scheduled_for="9999-12-31T23:59:59-10:00")


@pytest.mark.parametrize("chosen", [uuid.uuid4(), uuid.UUID(int=0), uuid.uuid1()])
async def test_the_caller_may_choose_the_id_once(api: House, chosen: uuid.UUID) -> None:
    assert await api.run("u/ann/s", job_id=chosen) == chosen
    reply = await api.post("ann", "jobs/run/p/u/ann/s", {}, status=400, job_id=chosen)
    assert "job_id" in reply.text
    assert (await api.get("ann", f"jobs_u/get/{chosen}")).json["id"] == str(chosen)


async def test_a_job_below_another_knows_its_root(api: House) -> None:
    parent = await api.run("u/ann/s")
    child = await api.run("u/ann/s", parent_job=parent, root_job=parent)
    grandchild = await api.run("u/ann/s", parent_job=child)
    root = await api.get("ann", f"jobs_u/get_root_job_id/{grandchild}")
    assert (root.json, root.content_type) == (str(parent), "application/json")
    assert (await api.get("ann", f"jobs_u/get_root_job_id/{parent}")).json == str(parent)
    nobody = uuid.uuid4()
    assert "parent_job" in (await api.post("ann", "jobs/run/p/u/ann/s", {}, status=400, parent_job=nobody)).text


async def test_a_script_is_limited_by_its_key(api: House) -> None:
    await api.script("u/ann/limited", concurrent_limit=1, concurrency_key="$workspace-$args[a]")
    first, second, other = [await api.run("u/ann/limited", {"a": a}) for a in (1, 1, 2)]
    assert [await api.queue.state_of(each) for each in (first, second, other)] == ["queued", "blocked", "queued"]
    assert (await api.queue.live(second))["limit_key"] == "w-1"


async def test_a_tag_leads_to_its_workers(api: House) -> None:
    job_id = await api.run("u/ann/s", tag="gpu")
    assert (await claim_of(api, job_id, "gpu")).row["tag"] == "gpu"
    assert "tag" in (await api.post("ann", "jobs/run/p/u/ann/s", {}, status=400, tag="a b")).text
    assert "only for flows" in (await api.post("ann", "jobs/run/p/u/ann/s", {}, status=400, tag="flow")).text


async def test_what_is_not_supported_is_refused_by_name(api: House) -> None:
    for name, value in {"retry": '{"constant":{"attempts":1}}', "skip_preprocessor": "true"}.items():
        assert name in (await api.post("ann", "jobs/run/p/u/ann/s", {}, status=422, **{name: value})).text
    preview = {"content": "x", "language": "bash", "args": {}}
    await api.post("ann", "jobs/run/preview", {**preview, "lock": "", "modules": None, "kind": "code"}, status=201)
    for kind in ("identity", "noop"):
        await api.post("ann", "jobs/run/preview", {**preview, "content": "", "kind": kind}, status=201)
        told = await api.post("ann", "jobs/run/preview", {**preview, "kind": kind}, status=400)
        assert "content must be empty" in told.text
    for name, some in {"lock": "a==1", "modules": {"a": {}}, "temp_script_refs": {"a": "b"}, "kind": "http"}.items():
        assert name in (await api.post("ann", "jobs/run/preview", {**preview, name: some}, status=422)).text
    assert (
        "postgresql"
        in (await api.post("ann", "jobs/run_inline/preview", {**preview, "language": "postgresql"}, status=422)).text
    )


async def test_who_may_run_what(api: House) -> None:
    await api.post("bob", "jobs/run/p/u/ann/s", {}, status=404)
    await api.post("root", "jobs/run/p/u/ann/s", {}, status=201)
    await api.post("op", "jobs/run/preview", {"content": "x", "language": "bash", "args": {}}, status=403)
    await api.post("ann", "jobs/run/p/u/ann/nowhere", {}, status=404)
    await api.post("ann", f"jobs/run/h/{'0' * 16}", {}, status=404)
    await api.post(None, "jobs/run/p/u/ann/s", {}, status=401)
    await api.get(None, f"jobs_u/get/{uuid.uuid4()}", status=401)


async def test_a_run_is_audited_with_its_id(api: House) -> None:
    run, preview = await api.run("u/ann/s"), await api.preview()
    said = [(each["operation"], each["action_kind"], each["resource"], each["span"]) for each in await api.audited()]
    assert said == [
        ("jobs.run.script", "Execute", "u/ann/s", str(run)),
        ("jobs.run.preview", "Execute", "preview", str(preview)),
    ]


@pytest.mark.parametrize("way", ["post", "get", "hash", "preview", "inline"])
async def test_a_result_is_waited_for_and_answered_as_it_is(api: House, way: str) -> None:
    version = (await api.get("ann", "scripts/get/p/u/ann/s")).json["hash"]
    preview = {"content": "x", "language": "python3", "args": {"a": 1}}
    payload = base64.urlsafe_b64encode(b'{"a": 1}').decode().rstrip("=")
    calls = {
        "post": lambda: api.post("ann", "jobs/run_wait_result/p/u/ann/s", {"a": 1}),
        "get": lambda: api.get("ann", "jobs/run_wait_result/p/u/ann/s", payload=payload),
        "hash": lambda: api.post("ann", f"jobs/run_wait_result/h/{version}", {"a": 1}),
        "preview": lambda: api.post("ann", "jobs/run_wait_result/preview", preview),
        "inline": lambda: api.post("ann", "jobs/run_inline/preview", preview),
    }
    reply, claim = await asyncio.gather(calls[way](), answer_next(api, {"deep": [1, {"x": None}]}))
    assert (reply.json, reply.content_type) == ({"deep": [1, {"x": None}]}, "application/json")
    assert json.loads(claim.row["args"]) == {"a": 1}


async def test_what_only_means_something_with_the_other_method_is_named_as_ignored(api: House) -> None:
    asked = await api.post("ann", "jobs/run/p/u/ann/s", {}, status=201, payload="e30")
    assert asked.headers["Tidemill-Ignored"] == "payload"
    await api.queue.empty()
    got, _ = await asyncio.gather(
        api.get("ann", "jobs/run_wait_result/p/u/ann/s", payload="e30", wrap_body="true", raw="true"),
        answer_next(api, 1),
    )
    assert got.headers["Tidemill-Ignored"] == "wrap_body, raw"


async def test_who_waits_for_a_job_that_is_deleted_hears_of_it(api: House) -> None:
    waiting = asyncio.create_task(api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}, status=404))
    async with asyncio.timeout(20):
        while not await api.queue.look.fetchval("SELECT count(*) FROM queue.live_job"):
            await api.waiters.look_at_all()
        await api.queue.empty()
        while not waiting.done():
            await api.waiters.look_at_all()
            await asyncio.wait([waiting], timeout=0.05)
    assert "was deleted" in (await waiting).text


async def test_a_failed_script_answers_200_with_its_error(api: House) -> None:
    error = {"error": {"name": "ValueError", "message": "no"}}
    reply, _ = await asyncio.gather(
        api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}), answer_next(api, error, "failure")
    )
    assert (reply.status, reply.json) == (200, error)


async def test_a_result_shapes_its_own_answer(api: House) -> None:
    result = {
        "windmill_status_code": 201,
        "windmill_content_type": "text/csv",
        "windmill_headers": {"X-Mine": "7"},
        "result": "a,b",
    }
    reply, _ = await asyncio.gather(
        api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}, status=201), answer_next(api, result)
    )
    assert (reply.content_type, reply.text, reply.headers["X-Mine"]) == ("text/csv", "a,b", "7")


async def test_attack_a_script_sets_no_cookie_and_splits_no_answer(api: House) -> None:
    for headers in ({"Set-Cookie": "token=x"}, {"X-A": "1\r\nSet-Cookie: token=x"}):
        reply, _ = await asyncio.gather(
            api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}, status=422),
            answer_next(api, {"windmill_headers": headers}),
        )
        assert "Set-Cookie" not in reply.headers


async def test_a_result_whose_message_was_lost_is_found_by_the_poll(own_database_urls: DatabaseUrls) -> None:
    async with house(own_database_urls, poll=timedelta(milliseconds=50)) as api:
        await api.person("ann")
        await api.script("u/ann/s")
        await api.queue.start_worker()

        async def work() -> None:
            claim = await eventually(lambda: api.queue.claim("python3"))
            assert claim is not None
            await api.queue.finish(claim, result=1)

        reply, _ = await asyncio.gather(api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}), work())
        assert reply.json == 1


async def test_a_hint_before_the_end_answers_nothing(api: House) -> None:
    waiting = asyncio.create_task(api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}))
    claim = await eventually(lambda: api.queue.claim("python3"))
    assert claim is not None
    api.hint(JobAnswered(job_id=claim.job_id), replica=claim.row["reply_to"])
    await api.queue.finish(claim, result=2)
    api.hint(JobAnswered(job_id=claim.job_id), replica=claim.row["reply_to"])
    assert (await waiting).json == 2


async def test_a_run_takes_four_round_trips(api: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for name in ("fetch", "fetchrow", "fetchval", "execute"):
        original = getattr(Database, name)

        async def noted(self: Database, query: str, *values: Any, _call: Any = original) -> Any:
            asked.append(query)
            return await _call(self, query, *values)

        monkeypatch.setattr(Database, name, noted)
    reply, _ = await asyncio.gather(api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}), answer_next(api, 3))
    assert reply.json == 3
    own = [each for each in asked if "bus.forget" not in each]
    assert ["platform.token" in own[0], "platform.script" in own[1], "request_job" in own[2], "unnest" in own[3]] == [
        True
    ] * 4
    assert len(own) == 4


async def test_a_caller_who_goes_away_takes_the_job_along(api: House) -> None:
    waiting = asyncio.create_task(api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}))
    job_id = await _newest(api)
    waiting.cancel()
    await eventually(lambda: _is(api, job_id, "canceled"))
    assert api.waiters.count == 0
    job = await api.queue.job(job_id)
    assert (job["canceled_by"], job["canceled_reason"]) == ("ann", "the caller that waited for its result has gone")


async def test_patience_ends_with_a_canceled_job(own_database_urls: DatabaseUrls) -> None:
    async with house(own_database_urls, wait_result_timeout=timedelta(milliseconds=200)) as api:
        await api.person("ann")
        await api.script("u/ann/s")
        reply = await api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}, status=504)
        job_id = await _newest(api)
        assert str(job_id) in reply.text
        assert await api.queue.state_of(job_id) == "canceled"
        assert api.waiters.count == 0


async def test_a_canceled_job_answers_who_waits_for_it_at_once(api: House) -> None:
    waiting = asyncio.create_task(api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}))
    job_id = await _newest(api)
    await api.post("root", f"jobs_u/queue/cancel/{job_id}", {"reason": "enough"})
    error = (await waiting).json["error"]
    assert (error["name"], error["canceler"], error["reason"]) == ("Canceled", "root", "enough")


async def test_a_long_line_turns_callers_away(api: House) -> None:
    for _ in range(3):
        await api.run("u/ann/s")
    await api.post("ann", "jobs/run/p/u/ann/s", {}, status=201, queue_limit=3)
    reply = await api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}, status=429, queue_limit=3)
    assert "queue_limit" in reply.text


async def test_many_wait_at_once(api: House) -> None:
    await api.queue.start_worker("python3", slots=50)

    async def one(n: int) -> Reply:
        return await api.post("ann", "jobs/run_wait_result/p/u/ann/s", {"n": n})

    waiting = asyncio.gather(*(one(n) for n in range(50)))
    for _ in range(50):
        claim = await eventually(lambda: api.queue.claim("python3"))
        assert claim is not None
        await api.queue.finish(claim, result=json.loads(claim.row["args"])["n"])
        api.hint(JobAnswered(job_id=claim.job_id), replica=claim.row["reply_to"])
    assert [reply.json for reply in await waiting] == list(range(50))
    assert api.waiters.count == 0


@pytest.mark.slow
async def test_answers_and_progress_come_by_rabbitmq(own_database_urls: DatabaseUrls, rabbit: Rabbit) -> None:
    async with RabbitBroker(rabbit.url, name="house") as broker, house(own_database_urls, broker=broker) as api:
        await api.person("ann")
        await api.script("u/ann/s")
        await api.queue.start_worker()
        assert await eventually(lambda: _bound(api))
        reply, claim = await asyncio.gather(
            api.post("ann", "jobs/run_wait_result/p/u/ann/s", {}), answer_next(api, {"by": "rabbit"})
        )
        assert reply.json == {"by": "rabbit"}
        job_id = await api.run("u/ann/s")
        following = asyncio.create_task(api.get("ann", f"jobs_u/getupdate/{job_id}"))
        claim = await api.queue.claimed("python3")

        async def woken() -> bool:
            api.hint(JobProgressed(job_id=claim.job_id, what=Progress.STARTED))
            return following.done()

        await eventually(woken, pause=0.05)
        assert (await following).json["running"]


async def _bound(api: House) -> bool:
    """Tell whether a message for this replica arrives, by saying one that a waiter hears."""
    job_id = await api.preview()
    await api.post("ann", f"jobs_u/queue/cancel/{job_id}", {})
    with api.waiters.expect(job_id) as answer:
        api.hint(JobAnswered(job_id=job_id), replica=api.waiters.replica)
        await asyncio.wait([answer], timeout=0.5)
        return answer.done()


async def _newest(api: House) -> uuid.UUID:
    async def look() -> uuid.UUID | None:
        found: uuid.UUID | None = await api.queue.look.fetchval("SELECT id FROM queue.job ORDER BY born DESC LIMIT 1")
        return found

    job_id = await eventually(look)
    assert job_id is not None
    return job_id


async def _is(api: House, job_id: uuid.UUID, state: str) -> bool:
    return await api.queue.state_of(job_id) == state


@pytest.mark.parametrize("path", ["run/p/u/ann/s", "run_wait_result/p/u/ann/s"])
async def test_attack_an_upload_is_refused_and_nothing_runs(api: House, path: str) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="doc"; filename="x"\r\n\r\nx\r\n--b--\r\n'
    for declared, status in (
        ("multipart/form-data; boundary=b", 400),
        ("multipart/form-data", 400),
        ("multipart/mixed", 415),
    ):
        reply = await api.call(
            "ann", "POST", f"jobs/{path}", data=body, headers={"Content-Type": declared}, status=status
        )
        assert reply.content_type == "text/plain"
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 0


async def test_a_form_of_parts_becomes_arguments(api: House) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    job_id = (await api.call("ann", "POST", "jobs/run/p/u/ann/s", data=body, headers=headers, status=201)).text
    assert (await api.get("ann", f"jobs_u/get/{job_id}")).json["args"] == {"a": "1"}
