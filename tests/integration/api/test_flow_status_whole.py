"""A flow that a real scheduler walks and real workers run, as clients see it at its end."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import Api, Client, an_api
from tests.support.database import DatabaseUrls
from tests.support.flow_rows import a_flow, container
from tests.support.waiting import eventually
from tidemill.scheduler.service import SERVICE as SCHEDULER
from tidemill.worker.service import SERVICE as WORKER


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    home: Path = tmp_path_factory.mktemp("home")
    async with an_api(database_urls, home, {"TIDEMILL_WORKER_SLOTS": "2"}, also=(SCHEDULER, WORKER)) as running_api:
        yield running_api


def bash(module: str, content: str) -> dict[str, Any]:
    value = {"type": "rawscript", "content": content, "language": "bash", "input_transforms": {}}
    return {"id": module, "value": value}


FAILS = bash("bad", "exit 3")
PLAIN = {"type": "identity"}
VALUE = {
    "modules": [
        bash("a", "echo 1"),
        container(
            "l",
            "forloopflow",
            modules=[{"id": "i", "value": PLAIN}, {"id": "j", "value": PLAIN}],
            iterator={"type": "static", "value": [1, 2, 3]},
            skip_failures=False,
            parallel=True,
        ),
        container("o", "branchone", branches=[{"expr": "false", "modules": []}], default=[bash("d", "echo 2")]),
        container("all", "branchall", branches=[{"modules": [bash("x", "echo 3")]}, {"modules": []}]),
        {"id": "s", "value": PLAIN, "skip_if": {"expr": "true"}},
        FAILS,
        bash("never", "echo 4"),
    ],
    "failure_module": bash("failure", "echo sorry"),
}


async def ended(who: Client, workspace: str, job_id: uuid.UUID) -> Mapping[str, Any]:
    async def look() -> Any:
        answer = await who.get(f"/w/{workspace}/jobs_u/completed/get/{job_id}")
        return answer.json if answer.status == 200 else None

    found: Mapping[str, Any] = await eventually(look, 90)
    return found


async def test_every_kind_of_module_as_it_ended(api: Api) -> None:
    workspace = await api.workspace()
    who = await api.person("boss", workspace=workspace, is_admin=True)
    mine = {"created_by": who.username, "permissioned_as": f"u/{who.username}", "email": who.email}
    flow_id = await a_flow(api.queue, VALUE, workspace_id=workspace, **mine)
    job = await ended(who, workspace, flow_id)
    status = job["flow_status"]
    shown = {each["id"]: each for each in status["modules"]}
    assert {name: each["type"] for name, each in shown.items()} == {
        "a": "Success",
        "l": "Success",
        "o": "Success",
        "all": "Success",
        "s": "Success",
        "bad": "Failure",
        "never": "WaitingForPriorSteps",
    }
    assert (status["step"], job["success"]) == (7, False)
    assert shown["l"]["flow_jobs_success"] == [True] * 3
    assert None not in shown["l"]["flow_jobs_duration"]["duration_ms"]
    assert len(shown["all"]["flow_jobs"]) == 2
    assert shown["o"]["branch_chosen"] == {"type": "default"}
    assert shown["s"]["skipped"] is True
    assert (status["failure_module"]["type"], status["failure_module"]["parent_module"]) == ("Success", "bad")
    ids = [each["job"] for name, each in shown.items() if name != "never"] + [status["failure_module"]["job"]]
    for each in ids + shown["l"]["flow_jobs"]:
        step = (await who.get(f"/w/{workspace}/jobs_u/completed/get/{each}")).json
        assert (step["is_flow_step"], step["parent_job"]) == (True, str(flow_id))
        assert step["flow_innermost_root_job"] == str(flow_id)
    inner = (await who.get(f"/w/{workspace}/jobs_u/get/{shown['l']['flow_jobs'][1]}")).json
    assert [(each["id"], each["type"]) for each in inner["flow_status"]["modules"]] == [
        ("i", "Success"),
        ("j", "Success"),
    ]
    assert inner["raw_flow"] == {"modules": VALUE["modules"][1]["value"]["modules"]}  # type: ignore[index]
    assert json.dumps(job["raw_flow"]) == json.dumps(VALUE)
    said = (await who.get(f"/w/{workspace}/jobs/result_by_id/{flow_id}/o")).text
    assert "2" in said


async def test_a_run_that_has_failed_is_taken_up(api: Api) -> None:
    workspace = await api.workspace()
    who = await api.person("boss", workspace=workspace, is_admin=True)
    jobs = f"/w/{workspace}/jobs"
    value = {"modules": [bash("a", "echo 1"), FAILS, bash("never", "echo 4")]}
    first = (await who.post(f"{jobs}/run/preview_flow", {"value": value, "args": {}})).text
    before = await ended(who, workspace, uuid.UUID(first))
    again = await ended(
        who, workspace, uuid.UUID((await who.post(f"{jobs}/restart/f/{first}", {"step_id": "bad"})).text)
    )
    fixed = {"modules": [value["modules"][0], bash("bad", "echo mended"), bash("never", "echo 4")]}
    taken = {"flow_job_id": again["id"], "step_id": "bad"}
    body = {"value": fixed, "args": {}, "restarted_from": taken}
    mended = await ended(who, workspace, uuid.UUID((await who.post(f"{jobs}/run/preview_flow", body)).text))
    assert [each["success"] for each in (before, again, mended)] == [False, False, True]
    assert mended["flow_status"]["restarted_from"] == taken
    kept = {job["flow_status"]["modules"][0]["job"] for job in (before, again, mended)}
    assert len(kept) == 1
    assert [each["type"] for each in mended["flow_status"]["modules"]] == ["Success"] * 3
