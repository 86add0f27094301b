"""How far flows are, over HTTP: the rows come from the queue's own functions, as the scheduler calls them."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from windmill_api.models.get_job_response_200_type_0 import GetJobResponse200Type0
from windmill_api.models.get_job_response_200_type_1 import GetJobResponse200Type1

from tests.support.database import DatabaseUrls
from tests.support.flow_rows import a_flow, a_step, advance, begin, begin_loop, code, container, park, row
from tests.support.house import House, house
from tidemill.shared.messages import JobProgressed
from tidemill.shared.messages.jobs import Progress

LATE = "2099-01-01T00:00:00+00:00"
LOOP = container(
    "l", "forloopflow", modules=[code("i"), code("j")], iterator={"type": "static", "value": []}, parallel=True
)
TWO = {"modules": [code("a", summary="first"), code("b")], "notes": [{"id": "n"}]}


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.queue.start_worker("python3")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.start_worker("python3")


async def shown(api: House, job_id: Any, **query: Any) -> Any:
    return (await api.get("ann", f"jobs_u/get/{job_id}", **query)).json


async def updated(api: House, job_id: Any, **query: Any) -> Any:
    return (await api.get("ann", f"jobs_u/getupdate/{job_id}", **query)).json


def states(job: Any) -> list[str]:
    return [each["type"] for each in job["flow_status"]["modules"]]


async def test_a_flow_from_its_first_moment_to_its_end(api: House) -> None:
    queue = api.queue
    flow_id = await a_flow(queue, TWO)
    job = await shown(api, flow_id)
    assert (job["type"], job["running"], job["job_kind"]) == ("QueuedJob", False, "flowpreview")
    assert states(job) == ["WaitingForPriorSteps"] * 2
    assert job["raw_flow"] == TWO
    assert not {"language", "raw_code", "suspend"} & job.keys()
    assert None not in job.values()
    first = await begin(queue, flow_id, "a")
    job = await shown(api, flow_id, no_code="true")
    assert "raw_flow" not in job
    assert (job["running"], states(job)) == (True, ["WaitingForExecutor", "WaitingForPriorSteps"])
    assert job["flow_status"]["modules"][0]["job"] == first["id"]
    claim = await queue.claimed()
    assert states(await shown(api, flow_id)) == ["InProgress", "WaitingForPriorSteps"]
    step = await shown(api, claim.job_id)
    assert (step["is_flow_step"], step["flow_step_id"], step["parent_job"]) == (True, "a", str(flow_id))
    assert step["flow_innermost_root_job"] == str(flow_id)
    assert "flow_status" not in step
    await queue.finish(claim, result=1)
    assert states(await shown(api, flow_id)) == ["Success", "WaitingForPriorSteps"]
    second = a_step("b", 1)
    await advance(queue, flow_id, at_step=1, steps=[row(first, state="success"), row(second)], start=[second])
    await queue.finish(await queue.claimed(), "failure", {"error": {"name": "E", "message": "m"}})
    end = {"outcome": "failure", "result_job": second["id"]}
    await advance(queue, flow_id, steps=[row(second, state="failure")], end=end)
    job = await shown(api, flow_id)
    assert (job["type"], job["success"], states(job)) == ("CompletedJob", False, ["Success", "Failure"])
    assert (job["flow_status"]["step"], job["result"]["error"]["name"]) == (1, "E")
    assert job == (await api.get("ann", f"jobs_u/completed/get/{flow_id}")).json
    assert (await api.get("ann", f"jobs_u/completed/get_result/{flow_id}")).json == job["result"]
    maybe = (await api.get("ann", f"jobs_u/completed/get_result_maybe/{flow_id}")).json
    assert (maybe["completed"], maybe["success"], maybe["started"]) == (True, False, True)


async def test_a_loop_and_the_jobs_inside_it(api: House) -> None:
    queue = api.queue
    flow_id = await a_flow(queue, {"modules": [LOOP]})
    inside: dict[str, Any] = {"kind": "flownode", "language": "", "tag": "flow", "entrypoint": "l"}
    children = await begin_loop(queue, flow_id, "l", 3, total=3, **inside)
    loop = (await shown(api, flow_id))["flow_status"]["modules"][0]
    assert loop["flow_jobs"] == [each["id"] for each in children]
    assert (loop["type"], loop["job"]) == ("InProgress", children[-1]["id"])
    assert (loop["flow_jobs_success"], loop["iterator"]) == ([None] * 3, {"index": 2, "itered_len": 3})
    body = uuid.UUID(children[1]["id"])
    child = await shown(api, body)
    assert child["raw_flow"] == {"modules": LOOP["value"]["modules"]}
    assert states(child) == ["WaitingForPriorSteps"] * 2
    assert child["flow_innermost_root_job"] == str(flow_id)
    await begin(queue, body, "i")
    assert states(await shown(api, body)) == ["WaitingForExecutor", "WaitingForPriorSteps"]
    await queue.cancel(body)
    loop = (await shown(api, flow_id))["flow_status"]["modules"][0]
    assert loop["flow_jobs_success"] == [None, False, None]
    started = loop["flow_jobs_duration"]["started_at"]
    assert started[1] is not None
    assert started[0] is started[2] is None
    assert loop["flow_jobs_duration"]["duration_ms"][1] >= 0


async def test_followers_are_told_of_a_hundred_children_and_others_of_all(api: House) -> None:
    queue = api.queue
    flow_id = await a_flow(queue, {"modules": [LOOP]})
    children = await begin_loop(queue, flow_id, "l", 150, total=150, answered=True, kind="identity", tag="identity")
    ids = [each["id"] for each in children]
    told = (await updated(api, flow_id, running="false"))["flow_status"]["modules"][0]
    assert told["flow_jobs"] == ids[:100]
    assert len(told["flow_jobs_success"]) == len(told["flow_jobs_duration"]["started_at"]) == 100
    assert told["iterator"]["index"] == 149
    everything = (await shown(api, flow_id))["flow_status"]["modules"][0]
    assert (everything["flow_jobs"], everything["flow_jobs_success"]) == (ids, [True] * 150)


async def test_the_flow_that_a_version_holds_is_shown(api: House) -> None:
    flow_no = await api.queue.look.fetchval(
        "INSERT INTO platform.flow (workspace_id, path) VALUES ('w', 'f/x/flow') RETURNING id"
    )
    version = await api.queue.look.fetchval(
        "INSERT INTO platform.flow_version (flow_id, summary, description, value, visible_to_runner_only, created_by)"
        " VALUES ($1, '', '', $2, false, 'ann') RETURNING id",
        flow_no,
        json.dumps(TWO),
    )
    deployed = {"kind": "flow", "path": "f/x/flow", "code": None, "hash": str(version)}
    job = await shown(api, await a_flow(api.queue, {}, **deployed))
    assert (job["raw_flow"], states(job)) == (TWO, ["WaitingForPriorSteps"] * 2)
    # Of another installation, say.
    unknown = await shown(api, await a_flow(api.queue, {}, **deployed | {"hash": "00ff00ff00ff00ff"}))
    assert "raw_flow" not in unknown
    assert unknown["flow_status"]["modules"] == []


async def parked(api: House, needed: int = 2) -> uuid.UUID:
    flow_id = await a_flow(api.queue, TWO)
    first = await begin(api.queue, flow_id, "a")
    await api.queue.finish(await api.queue.claimed())
    await park(api.queue, flow_id, first, "b", needed=needed, until=LATE)
    return flow_id


async def test_a_flow_that_waits_for_approvals_does_not_run(api: House) -> None:
    flow_id = await parked(api)
    job = await shown(api, flow_id)
    assert (job["running"], job["suspend"]) == (False, 2)
    waits = job["flow_status"]["modules"][1]
    assert (waits["type"], waits["count"]) == ("WaitingForEvents", 2)
    assert waits["job"] == job["flow_status"]["modules"][0]["job"]
    await api.queue.look.execute(
        "INSERT INTO queue.flow_resume (flow_id, born, resume_id, approver, approved, value, said_at)"
        " VALUES ($1, queue.locate($1), 4000000000, 'bob', true, '1', now())",
        flow_id,
    )
    assert (await shown(api, flow_id))["suspend"] == 1
    second = a_step("b", 1)
    await advance(api.queue, flow_id, spend=1, at_step=1, steps=[row(second)], start=[second])
    job = await shown(api, flow_id)
    assert (job["running"], "suspend" in job) == (True, False)
    assert job["flow_status"]["modules"][1]["approvers"] == [{"resume_id": 4_000_000_000, "approver": "bob"}]


async def test_lists_tell_flows_that_wait_from_those_that_go_on(api: House) -> None:
    waits, runs, queued = await parked(api), await a_flow(api.queue, TWO), await a_flow(api.queue, TWO)
    await begin(api.queue, runs, "a")

    async def listed(path: str = "jobs/list", **query: Any) -> set[uuid.UUID]:
        jobs = (await api.get("ann", path, job_kinds="flowpreview", **query)).json
        assert all(not {"language", "flow_status", "raw_flow"} & each.keys() for each in jobs)
        assert {each["id"]: each["running"] for each in jobs}.get(str(waits)) in (None, False)
        return {uuid.UUID(each["id"]) for each in jobs}

    assert await listed() == await listed("jobs/queue/list") == {waits, runs, queued}
    assert await listed(suspended="true") == {waits}
    assert await listed(suspended="false") == {runs, queued}
    assert await listed(running="true") == await listed("jobs/queue/list", running="true") == {runs}
    assert await listed(running="false") == {waits, queued}
    assert (await api.get("ann", "jobs/queue/count")).json == {"database_length": 4, "suspended": 1}
    steps = (await api.get("ann", "jobs/list", is_flow_step="true")).json
    assert {(each["flow_step_id"], each["is_flow_step"]) for each in steps} == {("a", True)}
    assert len(steps) == 2
    assert {each["job_kind"] for each in (await api.get("ann", "jobs/list", is_flow_step="false")).json} == {
        "flowpreview"
    }
    entry: dict[str, Any] = {"kind": "flownode", "entrypoint": "a:0", "tag": "flow"}
    body = await begin(api.queue, queued, "a", **entry)
    ids = (await api.get("ann", "jobs/list_filtered_uuids", excludes_entrypoint_override="true")).json
    assert body["id"] in ids


async def test_a_stream_tells_each_step_and_only_the_end_to_whom_that_is_enough(api: House) -> None:
    flow_id = await a_flow(api.queue, TWO)
    first = await begin(api.queue, flow_id, "a")

    async def events(**query: Any) -> list[Any]:
        found = []
        url = f"{api.url}/api/w/w/jobs_u/getupdate_sse/{flow_id}"
        headers = {"Authorization": f"Bearer {api.tokens['ann']}"}
        async with api.session.get(url, params=query, headers=headers) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    found.append(json.loads(line.removeprefix(b"data: ")))
                    heard.set()
        return found

    heard = asyncio.Event()
    async with asyncio.timeout(60):
        following = asyncio.create_task(events())
        await heard.wait()
        end = asyncio.create_task(events(only_result="true"))
        # Nobody says that a worker has it; it is seen all the same.
        await api.queue.finish(await api.queue.claimed())
        heard.clear()
        await heard.wait()
        ending = {"outcome": "success", "result": 7}
        await advance(api.queue, flow_id, steps=[row(first, state="success")], end=ending)
        api.hint(JobProgressed(job_id=flow_id, what=Progress.ENDED))
        updates = [each for each in await following if each["type"] == "update"]
        told = [states(each) for each in updates]
        assert told[0][0] == "WaitingForExecutor"
        assert told[-1] == ["Success", "WaitingForPriorSteps"]
        assert updates[-1]["completed"]
        ends = await end
        assert ends[-1]["only_result"] == 7
        assert not any("flow_status" in each for each in ends)


async def test_the_result_of_a_step_is_read_by_its_module(api: House) -> None:
    flow_id = await a_flow(api.queue, {"modules": [code("a"), LOOP]})
    where = f"jobs/result_by_id/{flow_id}"
    first = await begin(api.queue, flow_id, "a")
    assert "no step a" in (await api.get("ann", f"{where}/a", status=404)).text
    await api.queue.finish(await api.queue.claimed(), result={"x": [1, None]})
    assert (await api.get("ann", f"{where}/a")).json == {"x": [1, None]}
    await advance(api.queue, flow_id, steps=[row(first, state="success")])
    done: dict[str, Any] = {"answered": True, "result": 7, "kind": "identity", "tag": "identity"}
    await begin_loop(api.queue, flow_id, "l", 2, 1, total=2, **done)
    loop = {"no": 1, "module": "l", "state": "success", "total": 2, "started": 2, "ended": 2}
    await advance(api.queue, flow_id, steps=[loop], collect=[1])
    assert (await api.get("ann", f"{where}/l")).json == [7, 7]
    await api.get("bob", f"{where}/a", status=404)
    await api.get("ann", f"jobs/result_by_id/{uuid.uuid4()}/a", status=404)
    await api.get(None, f"{where}/a", status=401)


async def test_the_generated_client_reads_flows(api: House) -> None:
    flow_id = await a_flow(api.queue, {"modules": [code("a"), LOOP]})
    first = await begin(api.queue, flow_id, "a")
    await api.queue.finish(await api.queue.claimed())
    await advance(api.queue, flow_id, steps=[row(first, state="success")])
    children = await begin_loop(api.queue, flow_id, "l", 2, 1, total=5)
    await api.queue.finish(await api.queue.claimed())
    read = GetJobResponse200Type1.from_dict(await shown(api, flow_id))
    assert str(read.flow_status.modules[1].flow_jobs[0]) == children[0]["id"]  # type: ignore[union-attr,index]
    await api.queue.cancel(flow_id)
    ended = GetJobResponse200Type0.from_dict(await shown(api, flow_id))
    assert ended.flow_status.step == 1  # type: ignore[union-attr]


async def test_completed_flows_are_exported_and_imported(api: House) -> None:
    flow_id = await a_flow(api.queue, TWO)
    await begin(api.queue, flow_id, "a")
    unfinished = (await api.get("root", "jobs/queue/export")).json
    assert {each["job_kind"] for each in unfinished} == {"flowpreview"}, "its steps come with it"
    await api.queue.cancel(flow_id)
    (flow,) = [
        each for each in (await api.get("root", "jobs/completed/export")).json if each["job_kind"] == "flowpreview"
    ]
    assert "language" not in flow
    copy = flow | {"id": str(uuid.uuid4())}
    await api.post("root", "jobs/completed/import", [copy])
    assert states(await shown(api, copy["id"])) == ["WaitingForPriorSteps"] * 2
    odd = await api.post("root", "jobs/completed/import", [copy | {"language": "bash"}], status=422)
    assert "language" in odd.text
