"""Jobs of all workspaces for superadmins, and jobs of some tags only for tokens that are limited to them."""

import uuid
from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.api.conftest import Api, Client
from tests.support.queue import a_job

FILTER = "if_jobs:filter_tags:gpu,cpu"


@pytest.fixture(autouse=True)
async def clean(api: Api) -> None:
    await api.queue.empty()
    await api.queue.start_worker("python3", "gpu")


async def ended(api: Api, **changes: Any) -> str:
    claim = await api.queue.a_claim(**changes)
    await api.queue.finish(claim)
    return str(claim.job_id)


async def listed(who: Client, path: str, query: str = "") -> list[str]:
    answer = await who.get(f"/w/admins/jobs/{path}?all_workspaces=true&{query}")
    assert answer.status == 200, answer.text
    return [each["id"] for each in answer.json]


async def test_a_superadmin_lists_and_counts_the_jobs_of_all_workspaces(api: Api) -> None:
    one, two, root = await api.workspace(), await api.workspace(), await api.admin()
    done = [await ended(api, workspace_id=each) for each in (one, two, one)]
    waits = [str(await api.queue.request(a_job(workspace_id=each, tag="gpu"))) for each in (two, one)]
    everything = [*reversed(waits), *reversed(done)]
    assert await listed(root, "list") == everything
    assert await listed(root, "list", "per_page=2&page=2") == everything[2:4]
    assert await listed(root, "list", "success=true&per_page=1&page=3") == [done[0]]
    assert await listed(root, "queue/list") == everything[:2]
    assert await listed(root, "queue/list", "tag=python3") == []
    assert (await root.get("/w/admins/jobs/queue/list")).json == []
    assert (await root.get("/w/admins/jobs/queue/count?all_workspaces=true")).json["database_length"] == 2
    assert (await root.get("/w/admins/jobs/completed/count_jobs?all_workspaces=true")).json == 3
    assert (await root.get("/w/admins/jobs/completed/count_jobs")).json == 0
    assert (await root.get("/jobs/completed/count_by_tag")).json == [{"tag": "python3", "count": 3}]
    assert (await root.get(f"/jobs/completed/count_by_tag?workspace_id={two}")).json == [{"tag": "python3", "count": 1}]
    assert (await root.get("/jobs/completed/count_by_tag?horizon_secs=0")).json == []


async def test_a_link_leads_on_through_all_workspaces(api: Api) -> None:
    one, two, root = await api.workspace(), await api.workspace(), await api.admin()
    made = [await ended(api, workspace_id=each) for each in (one, two, one, two)]
    first = await root.get("/w/admins/jobs/list?all_workspaces=true&per_page=3")
    following = first.headers["Link"].removeprefix("</api").removesuffix('>; rel="next"')
    rest = (await root.get(following)).json
    assert [each["id"] for each in [*first.json, *rest]] == made[::-1]


@pytest.mark.parametrize("path", ["list", "queue/list", "completed/list", "list_filtered_uuids", "queue/count"])
async def test_attack_only_a_superadmin_in_admins_sees_all_workspaces(api: Api, path: str) -> None:
    workspace, root = await api.workspace(), await api.admin()
    boss = await api.person("boss", workspace="admins", is_admin=True)
    for who, place in ((boss, "admins"), (root, workspace)):
        assert (await who.get(f"/w/{place}/jobs/{path}?all_workspaces=true")).status == 403


async def _limited(api: Api, *more: str) -> tuple[Client, str, Mapping[str, str]]:
    """Return somebody whose token knows two tags, where they are, and one job of each of three tags."""
    workspace = await api.workspace()
    ann = await api.person("ann", workspace=workspace, is_admin=True)
    jobs = {}
    for tag in ("python3", "gpu"):
        jobs[tag] = await ended(api, workspace_id=workspace, tag=tag)
    for tag in ("cpu", "bash"):
        jobs[tag] = str(await api.queue.request(a_job(workspace_id=workspace, tag=tag)))
    return ann.with_token(await api.token_for(ann.email, scopes=[FILTER, *more])), workspace, jobs


async def test_a_token_with_a_filter_of_tags_lists_and_counts_only_those(api: Api) -> None:
    ann, workspace, jobs = await _limited(api)
    base = f"/w/{workspace}/jobs"
    assert [each["id"] for each in (await ann.get(f"{base}/list")).json] == [jobs["cpu"], jobs["gpu"]]
    assert [each["id"] for each in (await ann.get(f"{base}/list?tag=!gpu")).json] == [jobs["cpu"]]
    assert (await ann.get(f"{base}/list_filtered_uuids?tag=python3,bash")).json == []
    assert [each["id"] for each in (await ann.get(f"{base}/queue/list")).json] == [jobs["cpu"]]
    assert (await ann.get(f"{base}/queue/count")).json["database_length"] == 1
    assert (await ann.get(f"{base}/completed/count")).json["database_length"] == 1
    assert (await ann.get(f"{base}/completed/count_jobs")).json == 1
    assert (await ann.get(f"{base}/completed/count_jobs?tags=python3")).json == 0


async def test_attack_a_filter_of_tags_holds_for_every_look_and_cancel(api: Api) -> None:
    ann, workspace, jobs = await _limited(api)
    for path in (
        "jobs_u/get",
        "jobs_u/get_logs",
        "jobs_u/getupdate",
        "jobs_u/completed/get_result_maybe",
        "jobs/explain",
    ):
        assert (await ann.get(f"/w/{workspace}/{path}/{jobs['gpu']}")).status == 200
        hidden = await ann.get(f"/w/{workspace}/{path}/{jobs['python3']}")
        absent = await ann.get(f"/w/{workspace}/{path}/{(nobody := uuid.uuid4())}")
        assert (hidden.status, hidden.text.replace(jobs["python3"], "")) == (
            404,
            absent.text.replace(str(nobody), ""),
        )
    assert (await ann.post(f"/w/{workspace}/jobs_u/queue/cancel/{jobs['bash']}", {})).status == 404
    chosen = await ann.post(f"/w/{workspace}/jobs/queue/cancel_selection", [jobs["bash"], jobs["cpu"]])
    assert chosen.json == [jobs["cpu"]]


async def test_attack_a_filter_of_tags_holds_for_every_run(api: Api) -> None:
    ann, workspace, _ = await _limited(api)
    script = {"path": "f/a/x", "content": "def main(): pass", "language": "python3", "summary": "", "tag": "gpu"}
    version = (await ann.post(f"/w/{workspace}/scripts/create", script)).text
    code = {"content": "1", "language": "python3", "args": {}}
    base = f"/w/{workspace}/jobs/run"
    assert (await ann.post(f"{base}/p/f/a/x", {})).status == 201
    assert (await ann.post(f"{base}/h/{version}", {})).status == 201
    assert (await ann.post(f"{base}/p/f/a/x?tag=bash", {})).status == 403
    assert (await ann.post(f"{base}/preview", code)).status == 403
    assert (await ann.post(f"{base}/preview", code | {"tag": "cpu"})).status == 201
    assert (await ann.post(f"/w/{workspace}/jobs/run_wait_result/p/f/a/x?tag=bash", {})).status == 403


async def test_attack_a_filter_of_tags_mints_no_token(api: Api) -> None:
    ann, _, _ = await _limited(api)
    assert (await ann.post("/users/tokens/create", {"label": "wide"})).status == 403


async def test_a_filter_of_tags_beside_other_scopes_grants_nothing(api: Api) -> None:
    ann, workspace, jobs = await _limited(api, "jobs:read")
    assert (await ann.get(f"/w/{workspace}/jobs_u/get/{jobs['gpu']}")).status == 200
    assert (await ann.get(f"/w/{workspace}/scripts/list")).status == 403
    assert (await ann.post(f"/w/{workspace}/jobs_u/queue/cancel/{jobs['cpu']}", {})).status == 403
