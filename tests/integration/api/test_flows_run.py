"""Running flows over HTTP: what job is asked for. Who walks it through its modules is not here."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, Reply, house
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
async def open_house(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.person("op", operator=True)
        yield it


@pytest.fixture
async def api(open_house: House) -> House:
    await open_house.queue.empty()
    await open_house.queue.look.execute("DELETE FROM platform.flow")
    return open_house


CODE = {"id": "a", "value": {"type": "rawscript", "language": "bash", "content": "echo", "input_transforms": {}}}
VALUE = {"modules": [CODE], "notes": [{"x": 1.50}]}


async def asked(api: House, reply: Reply) -> Mapping[str, Any]:
    """Return the row of the job that was asked for, with where it waits."""
    row = await api.queue.look.fetchrow(
        "SELECT j.*, l.state, l.limit_key AS waits_for FROM queue.job j JOIN queue.live_job l USING (id)"
        " WHERE j.id = $1::text::uuid",
        reply.text,
    )
    assert row is not None
    return dict(row)


async def test_a_flow_runs_by_its_path_and_by_its_version(api: House) -> None:
    first = await api.flow("u/ann/f", [CODE], timeout=9, priority=4)
    await api.post("ann", "flows/update/u/ann/f", {"summary": "", "value": VALUE})
    newest = (await api.get("ann", "flows/get_latest_version/u/ann/f")).json["id"]
    by_path = await asked(api, await api.post("ann", "jobs/run/f/u/ann/f", {"x": 1}, status=201))
    assert {name: by_path[name] for name in ("kind", "path", "hash", "language", "code", "tag", "state")} == {
        "kind": "flow",
        "path": "u/ann/f",
        "hash": str(newest),
        "language": "",
        "code": None,
        "tag": "flow",
        "state": "queued",
    }
    assert (json.loads(by_path["args"]), by_path["trigger_kind"]) == ({"x": 1}, "webhook")
    assert (by_path["permissioned_as"], by_path["timeout_s"], by_path["priority"]) == ("u/ann", None, 0)
    by_version = await asked(api, await api.post("ann", f"jobs/run/fv/{first}", {}, status=201))
    assert (by_version["hash"], by_version["timeout_s"], by_version["priority"]) == (str(first), 9, 4)
    await api.post("ann", "flows/archive/u/ann/f")
    await api.post("ann", "jobs/run/f/u/ann/f", {}, status=404)
    await api.post("ann", f"jobs/run/fv/{first}", {}, status=201)
    await api.call("ann", "DELETE", "flows/delete/u/ann/f", status=200)
    for path in (f"fv/{first}", "fv/x", "fv/99999999999999999999"):
        await api.post("ann", f"jobs/run/{path}", {}, status=404)


async def test_a_flow_runs_without_being_deployed(api: House) -> None:
    text = json.dumps(VALUE)
    body = f'{{"value": {text}, "args": {{"x": 1}}, "path": "u/ann/tried", "restarted_from": null}}'
    reply = await api.call("ann", "POST", "jobs/run/preview_flow", data=body.encode(), status=201)
    job = await asked(api, reply)
    assert {name: job[name] for name in ("kind", "path", "hash", "language", "code", "tag", "state")} == {
        "kind": "flowpreview",
        "path": "u/ann/tried",
        "hash": None,
        "language": "",
        "code": text,
        "tag": "flow",
        "state": "queued",
    }
    assert (json.loads(job["args"]), job["trigger_kind"]) == ({"x": 1}, None)
    await api.post("op", "jobs/run/preview_flow", {"value": VALUE, "args": {}}, status=403)


async def test_the_tag_of_the_request_goes_before_that_of_the_flow(api: House) -> None:
    await api.flow("u/ann/f", tag="gpu-$args[size]")
    for query, tag in (({}, "gpu-xl"), ({"tag": "cpu"}, "cpu")):
        reply = await api.post("ann", "jobs/run/f/u/ann/f", {"size": "xl"}, status=201, **query)
        assert (await asked(api, reply))["tag"] == tag


@pytest.mark.parametrize(("key", "counted"), [(None, "w/flow/u/ann/f"), ("k-$args[x]", "k-1")])
async def test_a_flow_is_limited_by_its_key(api: House, key: str | None, counted: str) -> None:
    value = {"modules": [], "concurrent_limit": 1, "concurrency_key": key}
    await api.flow("u/ann/f", value=value)
    states = [
        (job["state"], job["waits_for"])
        for job in [await asked(api, await api.post("ann", "jobs/run/f/u/ann/f", {"x": 1}, status=201)) for _ in "12"]
    ]
    assert states == [("queued", counted), ("blocked", counted)]
    preview = await api.post("ann", "jobs/run/preview_flow", {"value": value, "args": {"x": 1}}, status=201)
    assert (await asked(api, preview))["waits_for"] == (None if key is None else counted)


async def test_a_flow_begins_with_its_preprocessor_unless_that_is_left_out(api: House) -> None:
    version = await api.flow("u/ann/f", value={**VALUE, "preprocessor_module": {**CODE, "id": "preprocessor"}})
    for path in ("f/u/ann/f", f"fv/{version}"):
        for query, entrypoint in (({}, "preprocessor"), ({"skip_preprocessor": "true"}, None)):
            reply = await api.post("ann", f"jobs/run/{path}", {}, status=201, **query)
            assert (await asked(api, reply))["entrypoint"] == entrypoint
    await api.flow("u/ann/g")
    assert (await asked(api, await api.post("ann", "jobs/run/f/u/ann/g", {}, status=201)))["entrypoint"] is None


async def test_a_preprocessor_gets_the_request_as_an_event(api: House) -> None:
    await api.flow("u/ann/f", value={**VALUE, "preprocessor_module": {**CODE, "id": "preprocessor"}})
    reply = await api.call(
        "ann",
        "POST",
        "jobs/run/f/u/ann/f",
        data=b'{"x": 1}',
        headers={"Content-Type": "application/json", "X-Event": "push", "Cookie": "a=b"},
        status=201,
        y="2",
        raw="true",
    )
    event = json.loads((await asked(api, reply))["args"])["event"]
    headers = event.pop("headers")
    assert event == {
        "kind": "webhook",
        "trigger_path": None,
        "body": {"x": 1},
        "raw_string": '{"x": 1}',
        "query": {"y": "2", "raw": "true"},
    }
    assert headers["x-event"] == "push"
    assert not {"authorization", "cookie"} & set(headers)
    skipped = await api.post("ann", "jobs/run/f/u/ann/f", {"x": 1}, status=201, skip_preprocessor="true")
    assert json.loads((await asked(api, skipped))["args"]) == {"x": 1}


async def test_a_flow_says_how_long_its_results_serve_again_and_when_its_runs_are_erased(api: House) -> None:
    before = {**CODE, "id": "preprocessor"}
    value = {"modules": [], "cache_ttl": 60, "delete_after_secs": 0, "preprocessor_module": before}
    await api.flow("u/ann/f", value=value)

    async def row(args: Any = None, **query: Any) -> Mapping[str, Any]:
        return await asked(api, await api.post("ann", "jobs/run/f/u/ann/f", args or {}, status=201, **query))

    first, again = await row(), await row()
    assert (first["cache_ttl_s"], first["erase_after_s"]) == (60, 0)
    assert first["cache_key"] == again["cache_key"]
    assert len({each["cache_key"] for each in (first, await row({"x": 1}), await row(skip_preprocessor="true"))}) == 3
    assert (await row(cache_ttl="7"))["cache_ttl_s"] == 7
    assert (await row(cache_ttl="0"))["cache_key"] is None
    body = {"value": {"modules": [], "cache_ttl": 60, "delete_after_secs": 5}, "args": {}}
    preview = await asked(api, await api.post("ann", "jobs/run/preview_flow", body, status=201))
    assert (preview["cache_key"], preview["erase_after_s"]) == (None, 5)


async def test_who_runs_a_flow_may_hide_it_from_its_owner(api: House) -> None:
    await api.flow("u/ann/f", visible_to_runner_only=True)
    job = (await api.post("root", "jobs/run/f/u/ann/f", {}, status=201)).text
    await api.get("root", f"jobs_u/get/{job}")
    await api.get("ann", f"jobs_u/get/{job}", status=404)


async def test_who_may_run_what(api: House) -> None:
    version = await api.flow("u/ann/f")
    for path in ("f/u/ann/f", f"fv/{version}"):
        await api.post("bob", f"jobs/run/{path}", {}, status=404)
        await api.post("bob", f"jobs/run_wait_result/{path}", {}, status=404)
        await api.post("root", f"jobs/run/{path}", {}, status=201)


async def test_what_is_not_supported_is_refused_by_name(api: House) -> None:
    version = await api.flow("u/ann/f")
    for name in ("memory_id", "retry"):
        for path in ("f/u/ann/f", f"fv/{version}"):
            assert name in (await api.post("ann", f"jobs/run/{path}", {}, status=422, **{name: "1"})).text
    refused = {"skip_preprocessor": True, "temp_script_refs": {"f/x/y": "0"}}
    for name, value in refused.items():
        body = {"value": VALUE, "args": {}, name: value}
        assert name in (await api.post("ann", "jobs/run/preview_flow", body, status=422)).text
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 0


async def test_a_run_is_audited_with_its_id(api: House) -> None:
    version = await api.flow("u/ann/f")
    await api.queue.look.execute("DELETE FROM bus.outbox")
    jobs = [
        (await api.post("ann", f"jobs/run/{path}", body, status=201)).text
        for path, body in (
            ("f/u/ann/f", {}),
            (f"fv/{version}", {}),
            ("preview_flow", {"value": VALUE, "args": {}}),
            ("flow_dependencies_async", {"path": "u/ann/f", "flow_value": VALUE}),
        )
    ]
    said = await api.audited()
    assert [each["operation"] for each in said] == [
        "jobs.run.flow", "jobs.run.flow", "jobs.run.flow_preview", "jobs.flow_dependencies",
    ]  # fmt: skip
    assert [each["span"] for each in said] == jobs


async def test_a_token_for_some_flows_runs_these_alone(api: House) -> None:
    version = await api.flow("u/ann/f")
    await api.flow("u/ann/other")
    await api.script("u/ann/f", parent_hash=None, auto_parent=True, content=f"# {version}")
    await api.queue.look.execute(
        "UPDATE platform.token SET scopes = ARRAY['jobs:run:flows:u/ann/f'] WHERE email = 'ann@example.com'"
    )
    try:
        job = (await api.post("ann", "jobs/run/f/u/ann/f", {}, status=201)).text
        await api.get("ann", f"jobs_u/get/{job}")
        for path in ("f/u/ann/other", f"fv/{version}", "p/u/ann/f"):
            await api.post("ann", f"jobs/run/{path}", {}, status=403)
        await api.post("ann", "jobs/run/preview_flow", {"value": VALUE, "args": {}}, status=403)
        await api.queue.look.execute("UPDATE platform.token SET scopes = ARRAY['jobs:read:flows:u/ann/f']")
        await api.get("ann", f"jobs_u/get/{job}")
        await api.queue.look.execute("UPDATE platform.token SET scopes = ARRAY['jobs:read:scripts:u/ann/f']")
        await api.get("ann", f"jobs_u/get/{job}", status=403)
    finally:
        await api.queue.look.execute("UPDATE platform.token SET scopes = NULL")


@pytest.mark.parametrize("way", ["f", "fv", "fv GET", "preview_flow"])
async def test_a_result_is_waited_for(api: House, way: str) -> None:
    version = await api.flow("u/ann/f", [CODE])
    payload = base64.urlsafe_b64encode(b'{"x": 1}').decode()
    preview = {"value": VALUE, "args": {"x": 1}}
    calls: Mapping[str, Callable[[], Awaitable[Reply]]] = {
        "f": lambda: api.post("ann", "jobs/run_wait_result/f/u/ann/f", {"x": 1}),
        "fv": lambda: api.post("ann", f"jobs/run_wait_result/fv/{version}", {"x": 1}),
        "fv GET": lambda: api.get("ann", f"jobs/run_wait_result/fv/{version}", payload=payload),
        "preview_flow": lambda: api.post("ann", "jobs/run_wait_result/preview_flow", preview),
    }
    waiting = asyncio.ensure_future(calls[way]())
    job = await eventually(lambda: api.queue.look.fetchrow("SELECT * FROM queue.job"), 20)
    assert job is not None
    assert json.loads(job["args"]) == {"x": 1}
    await api.post("ann", f"jobs_u/queue/cancel/{job['id']}", {})
    assert (await waiting).json["error"]["name"] == "Canceled"


async def test_what_a_flow_answers_early_is_enough_unless_it_is_not_wanted(api: House) -> None:
    await api.flow("u/ann/f", [CODE])
    path = "jobs/run_wait_result/f/u/ann/f"
    waiting = asyncio.ensure_future(api.post("ann", path, {}))
    patient = asyncio.ensure_future(api.post("ann", path, {}, skip_early_return="true"))

    async def both() -> Any:
        rows = await api.queue.look.fetch("SELECT id FROM queue.job")
        return rows if len(rows) == 2 else None

    rows = await eventually(both)
    await api.queue.look.execute("""UPDATE queue.job SET early = '{"early": true}'""")
    assert (await waiting).json == {"early": True}
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.live_job WHERE cancel_at IS NULL") == 2
    for row in rows:
        await api.post("ann", f"jobs_u/queue/cancel/{row['id']}", {})
    assert (await patient).json["error"]["name"] == "Canceled"
