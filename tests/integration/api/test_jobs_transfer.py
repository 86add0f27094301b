"""Exporting, importing and deleting jobs over HTTP."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.queue import a_job
from tidemill.api.jobs import store


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.script("u/ann/s", tag="python3")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.start_worker("python3", "bash")


def a_moment(**ago: float) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


def a_completed(**changes: Any) -> dict[str, Any]:
    job = {
        "id": str(uuid.uuid4()),
        "created_by": "ann",
        "created_at": a_moment(days=40),
        "started_at": a_moment(days=39),
        "completed_at": a_moment(days=38),
        "job_kind": "script",
        "script_path": "u/ann/s",
        "script_hash": "00ff",
        "language": "python3",
        "permissioned_as": "u/ann",
        "email": "ann@example.com",
        "visible_to_owner": True,
        "tag": "python3",
        "args": {"a": 1.50},
        "result": {"ok": [1, "é"]},
        "logs": "hello é 😀\n",
        "status": "success",
    }
    return {name: value for name, value in (job | changes).items() if value is not ...}


def a_queued(**changes: Any) -> dict[str, Any]:
    gone = dict.fromkeys(("started_at", "completed_at", "result", "logs", "status", "script_hash"), ...)
    return a_completed(**(gone | changes))


async def ended(api: House, result: Any = 1) -> uuid.UUID:
    await api.run("u/ann/s", {"a": 2.50})
    claim = await api.queue.claimed("python3")
    await api.queue.finish(claim, result=result, log_seq=0, log_text="bye", log_units=3, labels=["l"], memory_peak_kb=7)
    return claim.job_id


async def brought(api: House, what: str, jobs: Any, *, who: str = "root", status: int = 200) -> str:
    return (await api.post(who, f"jobs/{what}/import", jobs, status=status)).text


async def test_what_is_exported_and_deleted_can_be_imported_again_as_it_was(api: House) -> None:
    ids = [await ended(api, {"x": None}), await ended(api)]
    code = await api.preview("echo 1", tag="bash")
    claim = await api.queue.claimed("bash")
    await api.queue.finish(claim, "failure", {"error": {"name": "E", "message": "m"}})
    before = [(await api.get("ann", f"jobs_u/get/{each}")).json for each in (*ids, code)]
    exported = (await api.get("root", "jobs/completed/export")).json
    assert [each["id"] for each in exported] == [str(each) for each in (code, *ids[::-1])]
    assert None not in [value for each in exported for value in each.values()]
    assert (await api.post("root", "jobs/delete", [each["id"] for each in exported])).text == "Deleted 3 jobs"
    assert (await api.get("root", "jobs/list")).json == []
    for table in ("job", "finished_job", "log_chunk", "displaced_job", "live_job"):
        assert await api.queue.look.fetchval(f"SELECT count(*) FROM queue.{table}") == 0
    await brought(api, "completed", exported)
    after = [(await api.get("ann", f"jobs_u/get/{each}")).json for each in (*ids, code)]
    for old, new in zip(before, after, strict=True):
        for job in (old, new):
            job.pop("scheduled_for")
        assert old == new
    assert [each["id"] for each in (await api.get("ann", "jobs/list")).json] == [each["id"] for each in exported]


async def test_unfinished_jobs_are_brought_over_as_the_importers_own(api: House) -> None:
    parent = await api.run("u/ann/s", {"a": 1}, scheduled_in_secs=3600)
    child = await api.run("u/ann/s", {"b": [2.0]}, parent_job=parent, invisible_to_owner="true")
    code = await api.preview("echo 1", tag="bash", timeout=7)
    exported = (await api.get("root", "jobs/queue/export")).json
    assert [each["id"] for each in exported] == [str(each) for each in (code, child, parent)]
    await api.post("root", "jobs/delete", [each["id"] for each in exported])
    assert await brought(api, "queue", exported) == "Imported 3 queued jobs"
    found = {each: (await api.get("root", f"jobs_u/get/{each}")).json for each in (parent, child, code)}
    assert {each["permissioned_as"] for each in found.values()} == {"u/root"}
    assert (found[parent]["args"], found[child]["args"]) == ({"a": 1}, {"b": [2.0]})
    assert (found[child]["parent_job"], found[child]["visible_to_owner"]) == (str(parent), False)
    assert found[parent]["scheduled_for"] == exported[2]["scheduled_for"]
    assert await api.queue.state_of(parent) == "scheduled"
    claim = await api.queue.claimed("bash")
    assert (claim.job_id, claim.row["code"], claim.row["timeout_s"]) == (code, "echo 1", 7)


async def test_unfinished_jobs_of_a_limit_take_it_only_when_they_fall_due(api: House) -> None:
    await api.script("u/ann/narrow", tag="python3", concurrent_limit=1)
    jobs = [a_queued(script_path="u/ann/narrow", scheduled_for=moment) for moment in (a_moment(hours=1), ...)]
    await brought(api, "queue", jobs)
    ids = [uuid.UUID(each["id"]) for each in jobs]
    assert {await api.queue.state_of(each) for each in ids} == {"scheduled"}
    async with asyncio.timeout(20):
        while "scheduled" in {await api.queue.state_of(each) for each in ids}:
            await api.queue.tick()
    assert {await api.queue.state_of(each) for each in ids} == {"queued", "blocked"}


async def test_an_export_goes_on_behind_its_link(api: House) -> None:
    ids = [str(await ended(api)) for _ in range(3)]
    first = await api.get("root", "jobs/completed/export", per_page=2)
    where = first.headers["Link"].removeprefix("</api").removesuffix('>; rel="next"')
    rest = (await api.get("root", where)).json
    assert [each["id"] for each in [*first.json, *rest]] == ids[::-1]
    assert (await api.get("root", "jobs/completed/export", per_page=2, page=2)).json == rest
    assert (await api.get("root", "jobs/completed/export", page=9)).json == []


async def test_imported_jobs_are_audited_once_and_kept_as_long_as_others(api: House) -> None:
    jobs = [a_completed(created_at=a_moment(days=50 - n)) for n in range(3)]
    await brought(api, "completed", jobs[::-1])
    assert [(each["operation"], each["action_kind"]) for each in await api.audited()] == [("jobs", "Created")]
    listed = (await api.get("ann", "jobs/completed/list")).json
    assert [each["id"] for each in listed] == [each["id"] for each in jobs[::-1]]
    job = (await api.get("ann", f"jobs_u/get/{jobs[0]['id']}")).json
    assert (job["result"], job["logs"], job["args"]) == ({"ok": [1, "é"]}, "hello é 😀\n", {"a": 1.5})
    assert datetime.fromisoformat(job["created_at"]) == datetime.fromisoformat(jobs[0]["created_at"])
    assert await api.queue.look.fetchval("SELECT min(born) > now() - interval '1 hour' FROM queue.job")
    await api.queue.look.execute("DELETE FROM bus.outbox")
    await brought(api, "queue", [a_queued()])
    assert [each["operation"] for each in await api.audited()] == ["jobs.run"]


async def test_a_tree_is_imported_in_any_order(api: House) -> None:
    top = a_completed()
    middle = a_completed(parent_job=top["id"])
    leaf = a_completed(parent_job=middle["id"])
    await brought(api, "completed", [leaf, top, middle])
    assert (await api.get("root", f"jobs_u/get_root_job_id/{leaf['id']}")).json == top["id"]
    below = a_completed(parent_job=leaf["id"])
    await brought(api, "completed", [below])
    assert (await api.get("root", f"jobs_u/get_root_job_id/{below['id']}")).json == top["id"]
    lines = [a_queued(), a_queued(), a_queued()]
    for upper, lower in ((lines[2], lines[1]), (lines[1], lines[0])):
        lower["parent_job"] = upper["id"]
    await brought(api, "queue", lines)
    assert (await api.get("root", f"jobs_u/get_root_job_id/{lines[0]['id']}")).json == lines[2]["id"]


async def test_a_job_that_has_ended_comes_in_though_its_parent_is_long_gone(api: House) -> None:
    gone = str(uuid.uuid4())
    child = a_completed(parent_job=gone)
    grandchild = a_completed(parent_job=child["id"])
    await brought(api, "completed", [grandchild, child])
    assert (await api.get("root", f"jobs_u/get/{child['id']}")).json["parent_job"] == gone
    assert (await api.get("root", f"jobs_u/get/{grandchild['id']}")).json["parent_job"] == child["id"]


async def test_an_export_leaves_out_what_ends_while_it_is_written(api: House, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [await api.run("u/ann/s") for _ in range(2)]
    listing = store.listing

    async def listing_and_then(*wanted: Any) -> Any:
        found = await listing(*wanted)
        await api.queue.finish(await api.queue.claimed("python3"))
        return found

    monkeypatch.setattr(store, "listing", listing_and_then)
    exported = (await api.get("root", "jobs/queue/export")).json
    assert [each["id"] for each in exported] == [str(jobs[1])]
    assert (await api.get("root", "jobs/completed/export")).json[-1]["id"] == str(jobs[0])


PATHS = [
    "../../etc/passwd", "u/ann/../../x", "/etc/passwd", "u/ann", "f/a/b\n", "u/ann/%2e%2e/x", "u\\ann\\x", "file:///x",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_attack_a2_no_path_that_leads_elsewhere_is_stored_by_an_import(api: House, path: str) -> None:
    for what, job in (("completed", a_completed(script_path=path)), ("queue", a_queued(script_path=path))):
        said = await brought(api, what, [a_completed() if what == "completed" else a_queued(), job], status=422)
        assert "[1].script_path" in said
    code = {"job_kind": "preview", "raw_code": "1", "script_hash": ...}
    assert "[0].script_path" in await brought(api, "completed", [a_completed(script_path=path, **code)], status=422)
    assert ".worker" in await brought(api, "completed", [a_completed(worker=path + "/..")], status=422)
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 0


@pytest.mark.parametrize(
    "field",
    [
        "log_file_index",
        "log_offset",
        "workspace_id",
        "trigger",
        "raw_lock",
        "flow_status",
        "raw_flow",
        "born",
        "root_job",
    ],
)
async def test_attack_a2_no_field_that_names_a_place_or_that_is_unknown_comes_in(api: House, field: str) -> None:
    for what, job in (("completed", a_completed()), ("queue", a_queued())):
        assert field in await brought(api, what, [job | {field: "../../etc/passwd"}], status=422)
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 0


async def test_attack_a2_what_was_imported_is_read_only_in_its_own_workspace(api: House) -> None:
    elsewhere = await api.queue.request(a_job(workspace_id="theirs"))
    said = await brought(api, "completed", [a_completed(), a_completed(id=str(elsewhere))], status=400)
    assert said == "The field [1].id is taken."
    assert "[0]" in await brought(api, "queue", [a_queued(id=str(elsewhere))], status=400)
    for what, job in (("completed", a_completed), ("queue", a_queued)):
        said = await brought(api, what, [job(), job(parent_job=str(elsewhere))], status=400)
        assert "[1]" in said
        assert "parent_job" in said
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 1
    assert (await api.post("root", "jobs/delete", [str(elsewhere)])).text == "Deleted 0 jobs"
    assert await api.queue.state_of(elsewhere) == "queued"


async def test_attack_an_id_that_is_taken_is_named_and_nothing_comes_in(api: House) -> None:
    here = str(await ended(api))
    once = a_completed()
    await brought(api, "completed", [once])
    for taken in (here, once["id"]):
        assert "[1].id" in await brought(api, "completed", [a_completed(), a_completed(id=taken)], status=400)
        assert "[1]" in await brought(api, "queue", [a_queued(), a_queued(id=taken)], status=400)
    assert "[1].id" in await brought(api, "completed", [once, once], status=422)
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 2


async def test_attack_an_import_speaks_for_nobody_who_is_no_member(api: House) -> None:
    foreign = a_completed(created_by="g/wheel", permissioned_as="u/superadmin", email="root@example.org")
    known = a_completed(created_by="bob", permissioned_as="u/bob", email="root@example.com")
    await brought(api, "completed", [foreign, known])
    one, two = [(await api.get("root", f"jobs_u/get/{each['id']}")).json for each in (foreign, known)]
    names = ("created_by", "permissioned_as", "email")
    assert [one[each] for each in names] == ["root", "u/root", "root@example.com"]
    assert [two[each] for each in names] == ["bob", "u/bob", "bob@example.com"]
    queued = a_queued(created_by="bob", permissioned_as="u/bob", email="bob@example.com")
    await brought(api, "queue", [queued])
    claim = await api.queue.claimed("python3")
    assert (claim.row["permissioned_as"], claim.row["email"]) == ("u/root", "root@example.com")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"created_at": "0001-01-01T00:00:00+10:00"}, 422),
        ({"created_at": "2026-01-01T00:00:00"}, 422),
        ({"created_at": "9999-01-01T00:00:00Z"}, 422),
        ({"completed_at": "1969-12-31T00:00:00Z"}, 422),
        ({"completed_at": a_moment(days=41)}, 422),
        ({"completed_at": ...}, 422),
        ({"completed_at": ..., "duration_ms": 2**53}, 422),
        ({"completed_at": ..., "duration_ms": 60 * 86_400_000}, 422),
        ({"status": ...}, 422),
        ({"status": "running"}, 422),
        ({"status": "success", "is_skipped": True}, 422),
        ({"language": "cobol"}, 422),
        ({"job_kind": "flow"}, 422),
        ({"job_kind": "preview"}, 422),
        ({"raw_code": "1"}, 422),
        ({"script_path": ...}, 422),
        ({"script_hash": "../x"}, 422),
        ({"tag": "no tag"}, 422),
        ({"args": [1]}, 422),
        ({"priority": 10**6}, 422),
        ({"timeout": -1}, 422),
        ({"labels": ["l"] * 101}, 422),
        ({"mem_peak": 2**40}, 422),
        ({"logs": "nul \0"}, 400),
        ({"id": "1"}, 422),
        ({"is_flow_step": True}, 422),
    ],
)
async def test_attack_what_could_not_have_been_made_here_is_refused(
    api: House, changes: dict[str, Any], status: int
) -> None:
    await brought(api, "completed", [a_completed(**changes)], status=status)
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 0


async def test_attack_jobs_that_are_above_each_other_are_refused(api: House) -> None:
    for what, job in (("completed", a_completed), ("queue", a_queued)):
        one, two = job(), job()
        one["parent_job"], two["parent_job"] = two["id"], one["id"]
        await brought(api, what, [one, two], status=422)
        itself = job()
        itself["parent_job"] = itself["id"]
        await brought(api, what, [itself], status=422)


async def test_attack_an_import_is_bounded(api: House) -> None:
    await brought(api, "completed", [a_completed() for _ in range(1001)], status=422)
    await brought(api, "queue", [a_queued() for _ in range(1001)], status=422)
    await api.post("root", "jobs/delete", [str(uuid.uuid4()) for _ in range(1001)], status=422)
    await api.get("root", "jobs/completed/export", status=400, per_page=1001)
    deep = json.dumps([a_completed()]).replace('"success"', "[" * 100_000)
    headers = {"Content-Type": "application/json"}
    reply = await api.call("root", "POST", "jobs/completed/import", data=deep.encode(), headers=headers)
    assert reply.status in (400, 422)


async def test_a_queued_job_that_looks_for_dependencies_is_not_brought_over(api: House) -> None:
    waiting = a_queued(job_kind="dependencies")
    assert "asked for anew" in await brought(api, "queue", [waiting], status=422)
    await brought(api, "completed", [a_completed(job_kind="dependencies")])


async def test_a_queued_job_of_a_script_that_is_not_there_is_refused(api: House) -> None:
    assert "u/ann/other" in await brought(api, "queue", [a_queued(script_path="u/ann/other")], status=404)
    await brought(api, "queue", [a_queued(script_hash="00ff")], status=404)
    await brought(api, "queue", [a_queued(language="bash")], status=422)
    await brought(api, "queue", [a_queued(started_at=a_moment())], status=422)
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 0


@pytest.mark.parametrize("who", ["ann", None])
async def test_attack_only_an_admin_takes_jobs_out_in_or_away(api: House, who: str | None) -> None:
    status = 401 if who is None else 403
    job_id = str(await ended(api))
    for what in ("completed", "queue"):
        await api.get(who, f"jobs/{what}/export", status=status)
        await api.post(who, f"jobs/{what}/import", [], status=status)
    await api.post(who, "jobs/delete", [job_id], status=status)
    assert await api.queue.state_of(uuid.UUID(job_id)) == "success"


async def test_a_job_that_runs_is_not_deleted(api: House) -> None:
    await api.run("u/ann/s")
    claim = await api.queue.claimed("python3")
    waits = await api.run("u/ann/s")
    said = (await api.post("root", "jobs/delete", [str(waits), str(claim.job_id)], status=409)).text
    assert str(claim.job_id) in said
    assert await api.queue.state_of(waits) == "queued"
    await api.post("root", "jobs/delete", [str(waits)])
    assert await api.queue.state_of(waits) is None
    assert ("jobs.delete", "1 jobs") in [(each["operation"], each["resource"]) for each in await api.audited()]


async def test_a_slot_of_a_limit_that_is_deleted_goes_to_the_next(api: House) -> None:
    await api.script("u/ann/limited", concurrent_limit=1)
    first, second = await api.run("u/ann/limited"), await api.run("u/ann/limited")
    await api.post("root", "jobs/delete", [str(first)])
    assert await api.queue.state_of(second) == "queued"


STEP = {"id": "a", "value": {"type": "identity"}}


async def test_flows_are_brought_over_and_begin_anew(api: House) -> None:
    if (await api.get("ann", "flows/exists/u/ann/f")).json is False:
        code = {"type": "rawscript", "language": "bash", "content": "echo", "input_transforms": {}}
        before = {"id": "preprocessor", "value": code}
        await api.flow("u/ann/f", value={"modules": [STEP], "preprocessor_module": before})
    version = (await api.get("ann", "flows/get_latest_version/u/ann/f")).json["id"]
    for path, query in (("f/u/ann/f", {}), (f"fv/{version}", {"skip_preprocessor": "true"})):
        await api.post("ann", f"jobs/run/{path}", {"x": 1}, status=201, **query)
    await api.post("ann", "jobs/run/preview_flow", {"value": {"modules": [STEP]}, "args": {"x": 1}}, status=201)
    exported = (await api.get("root", "jobs/queue/export")).json
    assert [(each["job_kind"], each.get("preprocessed"), "language" in each) for each in reversed(exported)] == [
        ("flow", False, False),
        ("flow", None, False),
        ("flowpreview", None, False),
    ]
    await api.queue.empty()
    await brought(api, "queue", exported)
    again = (await api.get("root", "jobs/queue/export")).json
    kept = ("job_kind", "script_path", "script_hash", "raw_code", "args", "preprocessed", "tag")
    assert {each["id"]: [each.get(name) for name in kept] for each in again} == {
        each["id"]: [each.get(name) for name in kept] for each in exported
    }


async def test_a_step_that_has_not_ended_stays_with_its_flow(api: House) -> None:
    flow = a_job(kind="flowpreview", language="", tag="flow", code='{"modules": []}', path=None)
    await api.queue.ask(flow)
    await api.queue.ask(a_job(parent_job=flow["id"], step_id="a"))
    await api.queue.ask(a_job(kind="flownode", language="", tag="flow", parent_job=flow["id"]))
    assert [each["id"] for each in (await api.get("root", "jobs/queue/export")).json] == [str(flow["id"])]


async def test_flows_that_have_ended_are_brought_over(api: House) -> None:
    job = a_completed(job_kind="flow", script_path="u/ann/f", script_hash="7", language=..., tag="flow")
    await brought(api, "completed", [job])
    (found,) = (await api.get("root", "jobs/completed/export")).json
    assert {name: found.get(name) for name in ("id", "job_kind", "script_hash", "tag", "result")} == {
        name: job[name] for name in ("id", "job_kind", "script_hash", "tag", "result")
    }
    assert "language" not in found


@pytest.mark.parametrize(
    ("changes", "status", "names"),
    [
        ({"job_kind": "flow", "script_path": "u/ann/f"}, 422, "language"),
        ({"job_kind": "flow", "script_path": "u/ann/none", "language": ...}, 404, "u/ann/none"),
        ({"job_kind": "flow", "script_path": "u/ann/f", "script_hash": "99999999", "language": ...}, 404, "99999999"),
        ({"job_kind": "flowpreview", "raw_code": '{"modules": 7}', "language": ...}, 422, "modules"),
        ({"job_kind": "flowpreview", "raw_code": ..., "language": ...}, 400, "value"),
        ({"job_kind": "flownode", "language": ...}, 422, "part of a flow"),
        ({"job_kind": "flowscript", "raw_code": "x"}, 422, "part of a flow"),
        ({"job_kind": "flowdependencies", "language": ...}, 422, "dependencies"),
        ({"language": ...}, 422, "language"),
    ],
)
async def test_attack_what_is_no_flow_here_is_not_brought_over(
    api: House, changes: dict[str, Any], status: int, names: str
) -> None:
    assert names in await brought(api, "queue", [a_queued(**changes)], status=status)
