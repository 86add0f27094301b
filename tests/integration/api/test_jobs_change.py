"""Canceling many jobs, letting one enter the line, forgetting one, and counting, over HTTP."""

import json
import uuid
from collections.abc import AsyncIterator
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
        await it.script("u/ann/s")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.start_worker("python3", "bash")


async def ended(api: House, result: Any = 1, **query: Any) -> uuid.UUID:
    await api.run("u/ann/s", {"secret": "s3cret"}, **query)
    claim = await api.queue.claimed("python3")
    await api.queue.finish(claim, result=result, log_seq=0, log_text="s3cret", log_units=6)
    return claim.job_id


async def said(api: House) -> list[tuple[str, str]]:
    return [(each["operation"], each["resource"]) for each in await api.audited()]


async def test_a_selection_is_canceled_and_audited_once(api: House) -> None:
    done = await ended(api)
    await api.run("u/ann/s")
    running = (await api.queue.claimed("python3")).job_id
    waits, other = await api.run("u/ann/s"), await api.run("u/ann/s")
    await api.queue.look.execute("DELETE FROM bus.outbox")
    ids = [str(each) for each in (waits, done, running, uuid.uuid4(), waits)]
    reply = await api.post("ann", "jobs/queue/cancel_selection", ids)
    assert set(reply.json) == {str(waits), str(running)}
    states = [await api.queue.state_of(each) for each in (waits, done, running, other)]
    assert states == ["canceled", "success", "running", "queued"]
    assert (await api.queue.job(running))["canceled_by"] == "ann"
    assert [operation for operation, _ in await said(api)] == ["jobs.cancel"]
    await api.post("ann", "jobs/queue/cancel_selection", [str(running)], force_cancel="true")
    assert await api.queue.state_of(running) == "canceled"
    assert [operation for operation, _ in await said(api)] == ["jobs.cancel", "jobs.force_cancel"]


async def test_a_selection_hands_the_slots_of_its_limits_on(api: House) -> None:
    await api.script("u/ann/limited", concurrent_limit=1)
    jobs = [await api.run("u/ann/limited") for _ in range(4)]
    await api.post("ann", "jobs/queue/cancel_selection", [str(each) for each in jobs[:3]])
    assert [await api.queue.state_of(each) for each in jobs] == ["canceled"] * 3 + ["queued"]


async def test_attack_a_selection_reaches_only_what_one_may_cancel(api: House) -> None:
    theirs = await api.run("u/ann/s")
    assert (await api.post("bob", "jobs/queue/cancel_selection", [str(theirs)])).json == []
    assert await api.queue.state_of(theirs) == "queued"
    elsewhere = await api.queue.request(a_job(workspace_id="theirs"))
    assert (await api.post("root", "jobs/queue/cancel_selection", [str(elsewhere)])).json == []
    assert await api.queue.state_of(elsewhere) == "queued"
    for path in (f"queue/run_now/{elsewhere}", f"completed/delete/{elsewhere}"):
        await api.post("root", f"jobs/{path}", status=404)


async def test_all_unfinished_jobs_of_a_script_are_canceled(api: House) -> None:
    await api.script("u/ann/other")
    await api.run("u/ann/s")
    running = (await api.queue.claimed("python3")).job_id
    waits, later = await api.run("u/ann/s"), await api.run("u/ann/s", scheduled_in_secs=60)
    other = await api.run("u/ann/other")
    await api.queue.look.execute("DELETE FROM bus.outbox")
    reply = await api.post("ann", "jobs_u/queue/cancel_persistent/u/ann/s", {"reason": "enough"})
    assert reply.text.startswith("3 jobs")
    assert [await api.queue.state_of(each) for each in (waits, later, running, other)] == [
        "canceled", "canceled", "running", "queued",
    ]  # fmt: skip
    assert (await api.queue.job(running))["canceled_reason"] == "enough"
    assert await said(api) == [("jobs.cancel", "u/ann/s")]
    assert (await api.post("ann", "jobs_u/queue/cancel_persistent/u/ann/nothing", {})).text.startswith("0 jobs")


async def test_attack_the_jobs_of_a_script_are_canceled_by_those_who_may(api: House) -> None:
    theirs = await api.run("u/ann/s")
    elsewhere = await api.queue.request(a_job(workspace_id="theirs", path="u/ann/s"))
    named = await api.queue.request(a_job(kind="preview", path="u/ann/s"))
    await api.post("bob", "jobs_u/queue/cancel_persistent/u/ann/s", {})
    assert await api.queue.state_of(theirs) == "queued"
    await api.post("root", "jobs_u/queue/cancel_persistent/u/ann/s", {})
    assert [await api.queue.state_of(each) for each in (theirs, elsewhere, named)] == ["canceled", "queued", "queued"]


async def test_more_jobs_than_one_statement_takes_are_canceled(api: House) -> None:
    for number in range(1005):
        await api.queue.request(a_job(id=uuid.UUID(int=number + 1), chosen_id=True, path="u/ann/s"))
    assert (await api.post("ann", "jobs_u/queue/cancel_persistent/u/ann/s")).text.startswith("1005 jobs")
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0


async def test_attack_a_selection_is_bounded(api: House) -> None:
    await api.post("ann", "jobs/queue/cancel_selection", [str(uuid.uuid4()) for _ in range(1001)], status=422)
    await api.post("ann", "jobs/queue/cancel_selection", ["x"], status=422)
    await api.post("ann", "jobs/queue/cancel_selection", [], status=422, all_workspaces="true")
    assert (await api.post("ann", "jobs/queue/cancel_selection", [])).json == []


async def test_a_scheduled_job_enters_the_line_now(api: House) -> None:
    job_id = await api.run("u/ann/s", scheduled_in_secs=3600)
    await api.post("bob", f"jobs/queue/run_now/{job_id}", status=404)
    assert (await api.post("ann", f"jobs/queue/run_now/{job_id}")).text == str(job_id)
    assert (await api.queue.claimed("python3")).job_id == job_id
    assert ("jobs.run_now", str(job_id)) in await said(api)
    await api.post("ann", f"jobs/queue/run_now/{job_id}", status=409)
    await api.post("ann", f"jobs/queue/run_now/{uuid.uuid4()}", status=404)


async def test_a_scheduled_job_that_enters_the_line_waits_behind_its_limit(api: House) -> None:
    await api.script("u/ann/limited2", concurrent_limit=1)
    await api.run("u/ann/limited2")
    later = await api.run("u/ann/limited2", scheduled_in_secs=3600)
    await api.post("ann", f"jobs/queue/run_now/{later}")
    assert await api.queue.state_of(later) == "blocked"


async def test_an_admin_has_a_job_forgotten(api: House) -> None:
    job_id = await ended(api, {"token": "s3cret"})
    await api.post("ann", f"jobs/completed/delete/{job_id}", status=403)
    job = (await api.post("root", f"jobs/completed/delete/{job_id}")).json
    assert (job["id"], job["deleted"], job["args"], job["result"], job["logs"]) == (str(job_id), True, {}, None, "")
    assert ("jobs.delete", str(job_id)) in await said(api)
    for path in ("get", "get_logs", "completed/get", "completed/get_result"):
        assert "s3cret" not in (await api.get("ann", f"jobs_u/{path}/{job_id}")).text
    for table in ("job", "finished_job", "log_chunk"):
        assert "s3cret" not in str(await api.queue.look.fetch(f"SELECT t::text FROM queue.{table} t"))


async def test_only_what_has_ended_is_forgotten(api: House) -> None:
    await api.post("root", f"jobs/completed/delete/{await api.run('u/ann/s')}", status=404)
    await api.post("root", f"jobs/completed/delete/{uuid.uuid4()}", status=404)


async def test_jobs_are_counted(api: House) -> None:
    for _ in range(2):
        await ended(api)
    await api.run("u/ann/s", scheduled_in_secs=60)
    assert (await api.get("ann", "jobs/queue/count")).json == {"database_length": 1, "suspended": 0}
    assert (await api.get("ann", "jobs/completed/count")).json == {"database_length": 2}
    assert (await api.get("ann", "jobs/completed/count_jobs")).json == 2
    assert (await api.get("ann", "jobs/completed/count_jobs", success="false")).json == 0
    assert (await api.get("ann", "jobs/completed/count_jobs", tags="bash, python3", success="true")).json == 2
    assert (await api.get("ann", "jobs/completed/count_jobs", tags="bash")).json == 0
    assert (await api.get("ann", "jobs/completed/count_jobs", completed_after_s_ago=3600)).json == 2
    assert (await api.get("ann", "jobs/completed/count_jobs", completed_after_s_ago=0)).json == 0
    for path in ("queue/count", "completed/count_jobs"):
        await api.get("root", f"jobs/{path}", status=403, all_workspaces="true")
    await api.get("root", "/jobs/completed/count_by_tag", status=403)


async def test_ids_are_listed_by_the_same_filters(api: House) -> None:
    done = await ended(api)
    waits = await api.run("u/ann/s")
    assert (await api.get("ann", "jobs/list_filtered_uuids")).json == [str(waits), str(done)]
    assert (await api.get("ann", "jobs/list_filtered_uuids", success="true")).json == [str(done)]
    assert (await api.get("ann", "jobs/queue/list_filtered_uuids")).json == [str(waits)]
    assert (await api.get("bob", "jobs/list_filtered_uuids")).json == []
    assert len(json.loads((await api.get("ann", "jobs/list_filtered_uuids", per_page=1)).text)) == 1
    await api.get("ann", "jobs/list_filtered_uuids", status=400, per_page=10**9)
