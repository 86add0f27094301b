"""What the code inside of flows needs installed: who looks for it, and what is said of it. The worker is played."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.queue import Claim

WITH_PACKAGE = "import tinyone\ndef main():\n    return 'new'\n"
LOCK = "# py: 3.11\ntinyone==1.0\n"


@pytest.fixture(scope="module")
async def open_house(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("ann")
        await it.person("op", operator=True)
        yield it


@pytest.fixture
async def api(open_house: House) -> House:
    await open_house.queue.empty()
    await open_house.queue.look.execute("DELETE FROM platform.flow")
    return open_house


def code(name: str, content: str, **more: Any) -> dict[str, Any]:
    value = {"type": "rawscript", "language": "python3", "content": content, "input_transforms": {}, **more}
    return {"id": name, "value": value}


NEEDY = [code("a", WITH_PACKAGE), code("b", "import os"), code("c", WITH_PACKAGE, lock="")]


async def lock_job(api: House) -> Claim:
    return await api.queue.claimed("dependency")


async def keep(api: House, claim: Claim, *, job: Any = None, version: int | None = None) -> bool:
    kept: bool = await api.queue.worker.fetchval(
        "SELECT platform.keep_flow_locks('w', $1, $2, $3)",
        version or int(claim.row["hash"]),
        job or claim.job_id,
        json.dumps({"a": LOCK, "b": ""}),
    )
    return kept


async def locks_of(api: House, version: int) -> Any:
    """Return what the scheduler sees of a version's locks."""
    locks = await api.queue.scheduler.fetchval("SELECT locks FROM platform.flow_definition('w', $1)", version)
    return None if locks is None else json.loads(locks)


async def status(api: House) -> Any:
    return (await api.get("ann", "flows/deployment_status/p/u/ann/f")).json


async def test_a_flow_that_needs_nothing_asks_for_no_job(api: House) -> None:
    bash = {"id": "b", "value": {"type": "rawscript", "language": "bash", "content": "", "input_transforms": {}}}
    version = await api.flow("u/ann/f", [code("a", "import os"), bash, code("c", WITH_PACKAGE, lock=LOCK)])
    assert await locks_of(api, version) == {"a": "", "b": ""}
    assert await api.queue.claim("dependency") is None
    assert await status(api) == {}


async def test_the_locks_of_a_version_are_found_by_a_job_of_its_own(api: House) -> None:
    version = await api.flow("u/ann/f", NEEDY)
    claim = await lock_job(api)
    assert (claim.row["kind"], claim.row["hash"], claim.row["path"]) == ("flowdependencies", str(version), "u/ann/f")
    assert await status(api) == {"job_id": str(claim.job_id)}
    assert await locks_of(api, version) is None
    # It serves at once: what a step needs is found when it runs.
    assert (await api.post("ann", "jobs/run/f/u/ann/f", {}, status=201)).text
    assert await api.queue.finish(claim, result={"locks": {"a": LOCK, "b": ""}}) == "done"
    assert not await keep(api, claim, job="00000000-0000-0000-0000-000000000001")
    assert not await keep(api, claim, version=version + 1)
    assert await keep(api, claim)
    assert not await keep(api, claim)
    assert await locks_of(api, version) == {"a": LOCK, "b": ""}
    assert await status(api) == {"job_id": str(claim.job_id)}
    shown = (await api.get("ann", "flows/get/u/ann/f")).json
    assert shown["value"]["modules"] == NEEDY
    assert "lock_error_logs" not in shown


async def test_a_lock_that_is_not_found_is_told(api: House) -> None:
    await api.flow("u/ann/f", NEEDY)
    claim = await lock_job(api)
    error = {"error": {"name": "ResolutionFailed", "message": "a: nosuch was not found"}}
    assert await api.queue.finish(claim, outcome="failure", result=error) == "done"
    assert await status(api) == {"lock_error_logs": "a: nosuch was not found", "job_id": str(claim.job_id)}
    shown = (await api.get("ann", "flows/list")).json[0]
    assert shown["lock_error_logs"] == "a: nosuch was not found"
    await api.post("ann", "flows/update/u/ann/f", {"summary": "", "value": {"modules": []}})
    assert await status(api) == {}


async def test_what_a_content_may_not_want_is_refused_with_its_module(api: House) -> None:
    body = {"path": "u/ann/f", "summary": "", "value": {"modules": [code("z", "# requirements:\n# -r /etc/passwd\n")]}}
    said = (await api.post("ann", "flows/create", body, status=422)).text
    assert "'z'" in said
    assert "-r /etc/passwd" in said


async def test_a_deployment_with_a_lock_job_is_one_audited_event(api: House) -> None:
    await api.flow("u/ann/f", NEEDY)
    assert [each["operation"] for each in await api.audited()] == ["flows.create"]
    assert [row["key"] for row in await api.queue.outbox() if row["key"] == "dependency"] == ["dependency"]


async def test_the_locks_of_a_flow_that_is_not_deployed_are_found_by_a_job(api: House) -> None:
    value = {"modules": NEEDY}
    asked = {"flow_value": value, "path": "u/ann/f", "use_local_lockfiles": True, "raw_workspace_dependencies": None}
    reply = await api.post("ann", "jobs/run/flow_dependencies_async", asked, status=201)
    assert "Tidemill-Ignored" not in reply.headers
    claim = await lock_job(api)
    assert (str(claim.job_id), claim.row["kind"], claim.row["hash"]) == (reply.text, "flowdependencies", None)
    assert json.loads(claim.row["code"]) == value
    await api.queue.finish(claim, result={"updated_flow_value": value, "locks": {}})
    found = (await api.get("ann", f"jobs_u/completed/get_result_maybe/{reply.text}", get_started="false")).json
    assert (found["completed"], found["success"], found["result"]["updated_flow_value"]) == (True, True, value)


@pytest.mark.parametrize(
    ("changes", "status", "names"),
    [
        ({"raw_workspace_dependencies": {"dependencies/requirements.in": "x"}}, 422, "raw_workspace_dependencies"),
        ({"temp_script_refs": {"f/x/y": "00"}}, 422, "temp_script_refs"),
        ({"flow_value": {"modules": [{"id": "a", "value": {"type": "aiagent"}}]}}, 422, "'a'"),
        ({"flow_value": {}}, 422, "modules"),
        ({"path": "x"}, 400, "path"),
    ],
)
async def test_what_can_not_be_looked_for_is_refused(
    api: House, changes: dict[str, Any], status: int, names: str
) -> None:
    asked = {"flow_value": {"modules": NEEDY}, "path": "u/ann/f", **changes}
    assert names in (await api.post("ann", "jobs/run/flow_dependencies_async", asked, status=status)).text
    await api.post("op", "jobs/run/flow_dependencies_async", asked, status=403)
    assert await api.audited() == []
