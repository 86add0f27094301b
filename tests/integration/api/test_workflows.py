"""Workflows written as code with the unmodified SDK, which asks the api while its job runs: a whole Tidemill."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.api.conftest import Api, Client, an_api
from tests.support.database import DatabaseUrls
from tests.support.waiting import eventually
from tests.support.wheels import only_from, wheels_of
from tidemill.scheduler.service import SERVICE as SCHEDULER
from tidemill.worker.service import SERVICE as WORKER

HEAD = "import os, time, random\nfrom wmill import workflow, task, step, TaskError\n"


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    folder = tmp_path_factory.mktemp("workflows")
    wheels_of(folder / "wheels", "wmill")
    settings = {
        "TIDEMILL_WORKER_SLOTS": "4",
        "TIDEMILL_CACHE": str(folder / "cache"),
        "TIDEMILL_WAIT_RESULT_TIMEOUT": "60s",
        **only_from(folder / "wheels"),
    }
    async with an_api(database_urls, folder / "home", settings, also=(SCHEDULER, WORKER)) as api:
        yield api


@pytest.fixture
async def ann(api: Api) -> tuple[Client, str]:
    """A member of a workspace, and the workspace."""
    workspace = await api.workspace()
    return await api.person("ann", workspace=workspace), workspace


async def run(ann: tuple[Client, str], code: str, args: Any = None) -> str:
    who, workspace = ann
    body = {"content": HEAD + code, "language": "python3", "args": args or {}}
    job = await who.post(f"/w/{workspace}/jobs/run/preview", body)
    assert job.status == 201, job.text
    return job.text


async def ended(ann: tuple[Client, str], job: str) -> Any:
    who, workspace = ann

    async def look() -> Any:
        answer = await who.get(f"/w/{workspace}/jobs_u/get/{job}")
        return answer.json if answer.json["type"] == "CompletedJob" else None

    return await eventually(look, 60)


async def test_steps_inside_a_round_are_kept_while_it_goes_on(api: Api, ann: tuple[Client, str]) -> None:
    code = """
def bad():
    raise ValueError("no")

@workflow
async def main():
    seen = [await step("draw", lambda: random.random()) for _ in range(3)]
    try:
        await step("bad", bad)
    except TaskError as wrong:
        seen.append(wrong.result["error"]["name"])
    return seen
"""
    job = await ended(ann, await run(ann, code))
    assert job["result"][3] == "ValueError"
    assert len(set(job["result"][:3])) == 3
    claims = await api.look.fetchval("SELECT claims FROM queue.finished_job WHERE id = $1::text::uuid", job["id"])
    assert claims == 1
    status = job["workflow_as_code_status"]
    assert {key: each["name"] for key, each in status.items()} == {
        key: key for key in ("draw", "draw_2", "draw_3", "bad")
    }
    assert all(each["duration_ms"] >= 0 for each in status.values())


async def test_tasks_show_in_the_job_that_asked_for_them(ann: tuple[Client, str]) -> None:
    code = """
@task
def double(x):
    return x * 2

@workflow
async def main(x: int):
    return await double(await double(x))
"""
    job = await ended(ann, await run(ann, code, {"x": 4}))
    assert job["result"] == 16
    status = job["workflow_as_code_status"]
    assert [each["name"] for each in status.values()] == ["double", "double"]
    assert {"scheduled_for", "started_at", "duration_ms"} <= min(status.values(), key=len).keys()
    child = await ended(ann, next(iter(status)))
    assert (child["parent_job"], child["result"]) == (job["id"], 8)


async def test_a_task_outside_of_a_workflow_is_a_job_for_which_its_caller_waits(
    api: Api, ann: tuple[Client, str]
) -> None:
    code = """
@task(tag="python3")
def double(x):
    return [x * 2, os.environ["WM_JOB_ID"]]

def main(x: int):
    return [double(x), os.environ["WM_JOB_ID"]]
"""
    job = await ended(ann, await run(ann, code, {"x": 4}))
    (twice, child), own = job["result"]
    assert (twice, own) == (8, job["id"])
    assert child != own
    assert job["workflow_as_code_status"][child]["name"] == "double"
    assert (await ended(ann, child))["parent_job"] == own
    assert [row["resource"] for row in await api.audited(operation="jobs.run", span=child)] == ["double"]


async def test_only_a_running_job_speaks_of_its_own_steps(api: Api, ann: tuple[Client, str]) -> None:
    who, workspace = ann
    asleep = {"content": "sleep 60", "language": "bash", "args": {}}
    tags = [f"asleep-{who.username}-{number}" for number in range(2)]
    for tag in tags:
        assert (await who.post(f"/w/{workspace}/jobs/run/preview?tag={tag}", asleep)).status == 201
    await api.queue.start_worker(*tags)
    one, other = [await api.queue.claimed(tag) for tag in tags]
    step = {"key": "now", "result": 1}
    for path, body, good in (
        ("jobs/wac/inline_checkpoint/{}", step, 200),
        ("jobs/run/workflow_as_code/{}/work", {"args": {}}, 201),
    ):
        where = f"/w/{workspace}/{path.format(one.job_id)}"
        assert (await who.post(where, body)).status == 403
        assert (await who.with_token(other.row["token"]).post(where, body)).status == 403
        assert (await who.with_token(one.row["token"]).post(where, body)).status == good
    await api.queue.cancel(one.job_id, force=True, workspace=workspace)
    assert (
        await who.with_token(one.row["token"]).post(f"/w/{workspace}/jobs/wac/inline_checkpoint/{one.job_id}", step)
    ).status == 401


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("jobs/wac/inline_checkpoint/{}", {"key": "", "result": 1}),
        ("jobs/wac/inline_checkpoint/{}", {"key": "k" * 256, "result": 1}),
        ("jobs/wac/inline_checkpoint/{}", {"key": "k"}),
        ("jobs/run/workflow_as_code/{}/no-name", {"args": {}}),
        ("jobs/run/workflow_as_code/{}/work", {"args": []}),
        ("jobs/run/workflow_as_code/{}/work?tag=flow", {"args": {}}),
        ("jobs/run/workflow_as_code/{}/work?tag=no%20tag", {"args": {}}),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, ann: tuple[Client, str], path: str, body: Any) -> None:
    who, workspace = ann
    tag = f"asleep-{who.username}"
    await who.post(f"/w/{workspace}/jobs/run/preview?tag={tag}", {"content": "", "language": "bash", "args": {}})
    await api.queue.start_worker(tag)
    claim = await api.queue.claimed(tag)
    answer = await who.with_token(claim.row["token"]).post(f"/w/{workspace}/{path.format(claim.job_id)}", body)
    assert answer.status in (400, 422), answer.text


WAITS = """
from wmill import wait_for_approval, get_approval_urls

@workflow
async def main():
    urls = await step("urls", lambda: get_approval_urls("manager"))
    print("URLS " + repr(urls))
    form = {"schema": {"type": "object"}}
    first = await wait_for_approval(key="manager", timeout=600, form=form, description="Buy it?")
    return [first, await wait_for_approval(timeout=1)]
"""


async def explained(ann: tuple[Client, str], job: str, words: str) -> None:
    who, workspace = ann

    async def look() -> bool:
        return words in (await who.get(f"/w/{workspace}/jobs/explain/{job}")).json["why"]

    await eventually(look, 60)


async def test_a_workflow_waits_for_an_approval_by_a_url_that_counts_for_its_key_alone(
    api: Api, ann: tuple[Client, str]
) -> None:
    who, workspace = ann
    job = await run(ann, WAITS)
    await explained(ann, job, "It waits for the approval 'manager' until")
    other = (await who.get(f"/w/{workspace}/jobs/wac_approval_urls/{job}/other")).json
    mine = (await who.get(f"/w/{workspace}/jobs/wac_approval_urls/{job}/manager?approver=eve")).json
    resume = mine["resume"].partition("/api")[2]
    assert (await api.nobody.post(other["resume"].partition("/api")[2], {})).status == 409
    assert (await api.nobody.post(resume.replace("eve", "bob"), {})).status == 403
    shown = await api.nobody.get(resume.replace("/resume/", "/get_flow/"))
    assert shown.status == 200, shown.text
    assert (await api.nobody.post(resume, {"much": 3})).status == 201
    assert (await api.nobody.post(resume, {"much": 4})).status == 409
    await explained(ann, job, "It waits for the approval 'approval' until")
    seen = await ended(ann, job)
    # Nobody has answered the second.
    assert seen["result"]["error"]["name"] == "SuspendedTimedOut"
    kept = await api.look.fetchval(
        "SELECT result FROM queue.workflow_step WHERE key = 'manager' AND workflow_id = $1::text::uuid", job
    )
    assert '"eve"' in kept
    assert '{"much":3}' in kept.replace(" ", "")


async def test_whoever_owns_a_workflow_refuses_what_it_waits_for(ann: tuple[Client, str]) -> None:
    who, workspace = ann
    code = "from wmill import wait_for_approval\n@workflow\nasync def main():\n    return await wait_for_approval()\n"
    job = await run(ann, code)
    await explained(ann, job, "It waits for the approval 'approval'")
    info = await who.get(f"/w/{workspace}/jobs_u/flow/approval_info/{job}")
    assert info.json["can_approve"] is True, info.text
    body = {"payload": {"why": "no"}, "approved": False}
    assert (await who.post(f"/w/{workspace}/jobs_u/flow/resume_suspended/{job}", body)).status == 201
    seen = await ended(ann, job)
    assert seen["result"] == {"value": {"why": "no"}, "approver": who.username, "approved": False}


async def test_a_task_may_be_a_flow(ann: tuple[Client, str]) -> None:
    who, workspace = ann
    path = f"u/{who.username}/pipe"
    transform = {"x": {"type": "javascript", "expr": "flow_input.x"}}
    value = {"type": "rawscript", "language": "python3", "content": "def main(x):\n    return x + 1\n"}
    module = {"id": "a", "value": {**value, "input_transforms": transform}}
    flow = {"path": path, "summary": "", "value": {"modules": [module]}}
    assert (await who.post(f"/w/{workspace}/flows/create", flow)).status == 201
    body = "@workflow\nasync def main():\n    return await pipe(x=4)\n"
    code = f"from wmill import task_flow\npipe = task_flow('{path}')\n{body}"
    job = await ended(ann, await run(ann, code))
    assert job["result"] == 5
    assert (await ended(ann, next(iter(job["workflow_as_code_status"]))))["job_kind"] == "flow"
