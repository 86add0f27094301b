"""Running jobs again, many at a time, over HTTP."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.queue import a_job


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.look.execute("DELETE FROM platform.script")
    await api.script("u/ann/s")


async def rerun(api: House, *ids: uuid.UUID, who: str = "ann", status: int = 201, options: Any = None) -> list[str]:
    body = {"job_ids": [str(each) for each in ids], "script_options_by_path": options or {}, "flow_options_by_path": {}}
    reply = await api.post(who, "jobs/run/batch_rerun_jobs", body, status=status)
    assert reply.content_type == "text/plain"
    return reply.text.splitlines()


async def newest(api: House, line: str) -> dict[str, Any]:
    job: dict[str, Any] = (await api.get("ann", f"jobs_u/get/{line}")).json
    return job


async def test_jobs_run_again_as_they_were(api: House) -> None:
    first, second = await api.run("u/ann/s", {"a": 1}), await api.run("u/ann/s", {"a": [2.50, "é"]})
    await api.queue.look.execute("DELETE FROM bus.outbox")
    lines = await rerun(api, second, first, second)
    assert len(lines) == len({*lines, str(first), str(second)}) - 2 == 2
    assert [(await newest(api, each))["args"] for each in lines] == [{"a": [2.50, "é"]}, {"a": 1}]
    (audit,) = await api.audited()
    assert (audit["operation"], audit["parameters"]) == ("jobs.run", {"ids": [str(second), str(first)]})


async def test_what_was_for_its_runner_only_or_had_less_time_is_so_again(api: House) -> None:
    jobs = [await api.run("u/ann/s", invisible_to_owner="true", timeout=7), await api.run("u/ann/s")]
    lines = await rerun(api, *jobs)
    assert [(await newest(api, each))["visible_to_owner"] for each in lines] == [False, True]
    times = await api.queue.look.fetch(
        "SELECT timeout_s FROM queue.job WHERE id = ANY ($1) ORDER BY id", [uuid.UUID(each) for each in lines]
    )
    assert [each["timeout_s"] for each in times] == [7, None]


async def test_a_version_that_is_not_the_newest_runs_again_unless_that_is_wanted(api: House) -> None:
    job = await api.run("u/ann/s")
    old = (await newest(api, str(job)))["script_hash"]
    new = await api.script("u/ann/s", content="def main(): return 2", parent_hash=old)
    (again,) = await rerun(api, job)
    assert (await newest(api, again))["script_hash"] == old
    (latest,) = await rerun(api, job, options={"u/ann/s": {"use_latest_version": True}})
    assert (await newest(api, latest))["script_hash"] == new


async def test_arguments_are_changed_by_static_transforms(api: House) -> None:
    job = await api.run("u/ann/s", {"a": 1, "b": 2})
    transforms = {"a": {"type": "static", "value": {"x": None}}, "c": {"type": "static"}}
    (again,) = await rerun(api, job, options={"u/ann/s": {"input_transforms": transforms}})
    assert (await newest(api, again))["args"] == {"a": {"x": None}, "b": 2, "c": None}


async def test_arguments_are_computed_from_the_job_as_it_was(api: House) -> None:
    first, second = await api.run("u/ann/s", {"a": 1, "b": [2]}), await api.run("u/ann/s", {"a": 5})
    was = await newest(api, str(first))
    transforms = {
        "a": {"type": "javascript", "expr": "job.input.a + 1"},
        "c": {"type": "javascript", "expr": "const { input, scheduled_for, ...rest } = job; rest"},
        "d": {"type": "javascript", "expr": "new Date(job.scheduled_for).getTime()", "value": None},
        "e": {"type": "javascript", "expr": "job.input.b[0]"},
    }
    again, failed = await rerun(api, first, second, options={"u/ann/s": {"input_transforms": transforms}})
    args = (await newest(api, again))["args"]
    moment = datetime.fromisoformat(was["scheduled_for"]).timestamp()
    assert abs(args.pop("d") / 1000 - moment) < 0.002
    job = {"id": str(first), "kind": "script", "script_path": "u/ann/s", "script_hash": was["script_hash"]}
    assert args == {"a": 2, "b": [2], "c": job, "e": 2}
    assert failed.startswith("Error: The input transform of e failed: ")


@pytest.mark.parametrize(
    "options",
    [
        {"u/ann/s": {"input_transforms": {"a": {"type": "javascript", "expr": "1 +"}}}},
        {"u/ann/s": {"input_transforms": {"a": {"type": "javascript"}}}},
        {"u/ann/s": {"input_transforms": {"a": {"type": "javascript", "expr": "1", "value": 1}}}},
        {"u/ann/s": {"input_transforms": {"a": {"type": "static", "expr": "1"}}}},
        {"u/ann/s": {"input_transforms": {"a": {"type": "ai"}}}},
        {"u/ann/s": {"permissioned_as": "u/root"}},
        {"u/ann/other": {"use_latest_version": True}},
    ],
)
async def test_what_is_not_understood_is_refused_before_anything_runs(api: House, options: dict[str, Any]) -> None:
    job = await api.run("u/ann/s")
    (said,) = await rerun(api, job, status=422, options=options)
    assert "u/ann/" in said or "permissioned_as" in said
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.job") == 1


async def test_only_jobs_of_scripts_and_flows_run_again(api: House) -> None:
    code = await api.preview()
    assert str(code) in (await rerun(api, await api.run("u/ann/s"), code, status=422))[0]
    flows = {"job_ids": [], "script_options_by_path": {}, "flow_options_by_path": {"u/ann/f": {}}}
    await api.post("ann", "jobs/run/batch_rerun_jobs", flows, status=422)


async def test_flows_run_again_at_their_version_or_the_latest_with_changed_arguments(api: House) -> None:
    # At the path of the script, so that options for the one are not taken for the other's.
    old = await api.flow("u/ann/s", schema={"old": True})
    job = (await api.post("ann", "jobs/run/f/u/ann/s", {"a": 1, "b": 2}, status=201)).text
    await api.post("ann", "flows/update/u/ann/s", {"summary": "", "value": {"modules": []}, "schema": {"new": True}})
    new = (await api.get("ann", "flows/get_latest_version/u/ann/s")).json["id"]
    groups = (await api.post("ann", "jobs/list_selected_job_groups", [job, str(await api.run("u/ann/s"))])).json
    assert [(each["kind"], each["script_path"]) for each in groups] == [("script", "u/ann/s"), ("flow", "u/ann/s")]
    assert groups[1]["latest_schema"] == {"new": True}
    assert groups[1]["schemas"] == [{"schema": {"old": True}, "script_hash": str(old), "job_ids": [job]}]
    changed = {"input_transforms": {"a": {"type": "static", "value": 7}}}
    for options, version, args in (
        ({}, old, {"a": 1, "b": 2}),
        ({"u/ann/s": changed}, old, {"a": 7, "b": 2}),
        ({"u/ann/s": {"use_latest_version": True}}, new, {"a": 1, "b": 2}),
    ):
        body = {"job_ids": [job], "script_options_by_path": {}, "flow_options_by_path": options}
        line = (await api.post("ann", "jobs/run/batch_rerun_jobs", body, status=201)).text.strip()
        row = await api.queue.look.fetchrow("SELECT * FROM queue.job WHERE id = $1::text::uuid", line)
        assert row is not None
        assert (row["kind"], row["hash"], json.loads(row["args"]), row["entrypoint"]) == (
            "flow", str(version), args, None,
        )  # fmt: skip
    await rerun(api, uuid.UUID(job), status=422, options={"u/ann/s": {}})
    await api.call("ann", "DELETE", "flows/delete/u/ann/s", status=200)
    assert "u/ann/s" in (await rerun(api, uuid.UUID(job), status=404))[0]


async def test_a_script_that_is_gone_is_named_before_anything_runs(api: House) -> None:
    job = await api.run("u/ann/s")
    await api.queue.look.execute("UPDATE platform.script SET archived = true, serves = false")
    await rerun(api, job)
    assert "u/ann/s" in (await rerun(api, job, status=404, options={"u/ann/s": {"use_latest_version": True}}))[0]


async def test_attack_nobody_runs_again_what_they_may_not_see(api: House) -> None:
    job = await api.run("u/ann/s", {"secret": 1})
    elsewhere = await api.queue.request(a_job(workspace_id="theirs"))
    for who, target in (("bob", job), ("root", elsewhere), ("root", uuid.uuid4())):
        (said,) = await rerun(api, target, who=who, status=404)
        assert said == f"There is no job {target}."
    (again,) = await rerun(api, job, who="root")
    assert (await newest(api, again))["permissioned_as"] == "u/root"


async def test_a_job_that_can_not_be_asked_for_is_told_on_its_line(api: House) -> None:
    await api.script("u/ann/tagged", tag="t-$args[tag]")
    good, bad = await api.run("u/ann/tagged", {"tag": "x"}), await api.run("u/ann/tagged", {"tag": "x"})
    await api.queue.look.execute("""UPDATE queue.job SET args = '{"tag": "not a tag"}' WHERE id = $1""", bad)
    first, second = await rerun(api, bad, good)
    assert first.startswith("Error: The tag ")
    assert (await newest(api, second))["tag"] == "t-x"
    assert [each["operation"] for each in await api.audited()].count("jobs.run") == 1


async def test_selected_jobs_are_grouped_by_script_and_version(api: House) -> None:
    await api.script("u/ann/other", schema={"x": 1})
    one, two = await api.run("u/ann/s"), await api.run("u/ann/s")
    old = (await newest(api, str(one)))["script_hash"]
    new = await api.script("u/ann/s", content="def main(b: int): return 2", parent_hash=old)
    three, four, code = await api.run("u/ann/s"), await api.run("u/ann/other"), await api.preview()
    wanted = [str(each) for each in (one, three, two, four, code, uuid.uuid4())]
    other, script = (await api.post("ann", "jobs/list_selected_job_groups", wanted)).json
    assert (other["kind"], other["script_path"], other["latest_schema"]) == ("script", "u/ann/other", {"x": 1})
    assert script["script_path"] == "u/ann/s"
    assert [(each["script_hash"], each["job_ids"]) for each in script["schemas"]] == [
        (old, [str(one), str(two)]),
        (new, [str(three)]),
    ]
    assert script["latest_schema"] == script["schemas"][1]["schema"] != script["schemas"][0]["schema"]
    assert (await api.post("bob", "jobs/list_selected_job_groups", wanted)).json == []
