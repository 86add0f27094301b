"""A flow that really waits: run by a scheduler and a worker, approved on its page or by its URLs."""

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.integration.api.conftest import Api, Client, an_api
from tests.support.database import DatabaseUrls
from tests.support.waiting import eventually
from tidemill.scheduler.service import SERVICE as SCHEDULER
from tidemill.worker.service import SERVICE as WORKER

PATIENCE = 60
FORM = {"properties": {"amount": {"type": "integer"}}, "required": ["amount"]}


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with an_api(database_urls, tmp_path_factory.mktemp("home"), also=(SCHEDULER, WORKER)) as it:
        yield it


@pytest.fixture(scope="module")
async def ann(api: Api) -> Client:
    return await api.person("ann", workspace="starter")


def bash(name: str, content: str, inputs: Mapping[str, Any] | None = None, **options: Any) -> Mapping[str, Any]:
    value = {"type": "rawscript", "language": "bash", "content": content, "input_transforms": inputs or {}}
    return {"id": name, "value": value, **options}


def a_value(**suspend: Any) -> Mapping[str, Any]:
    spent = {"said": {"type": "javascript", "expr": "`${resume.amount} by ${approvers.join()}`"}}
    return {"modules": [bash("ask", "echo asked", suspend=suspend), bash("spend", 'said="$1"\necho "$said"', spent)]}


async def run(who: Client, value: Mapping[str, Any]) -> str:
    asked = await who.post("/w/starter/jobs/run/preview_flow", {"value": value, "args": {}})
    assert asked.status == 201, asked.text
    return asked.text


async def result(who: Client, flow: str) -> tuple[bool, Any]:
    async def ended() -> bool:
        return bool((await who.get(f"/w/starter/jobs_u/completed/get_result_maybe/{flow}")).json["completed"])

    await eventually(ended, PATIENCE)
    answer = (await who.get(f"/w/starter/jobs_u/completed/get_result_maybe/{flow}")).json
    return answer["success"], answer["result"]


async def urls(who: Client, job: str, number: int = 1, query: str = "") -> Mapping[str, str]:
    got: Mapping[str, str] = (await who.get(f"/w/starter/jobs/resume_urls/{job}/{number}{query}")).json
    return got


async def waits(api: Api, flow: str) -> str:
    """Return the job after which a flow waits."""
    query = "SELECT job_id FROM queue.flow_step WHERE flow_id = $1 AND state = 'waiting'"
    await eventually(lambda: api.look.fetchval(f"SELECT EXISTS ({query})", flow), PATIENCE)
    return str(await api.look.fetchval(query, flow))


async def test_what_a_person_fills_in_on_the_page_reaches_the_next_step(api: Api, ann: Client) -> None:
    flow = await run(ann, a_value(resume_form={"schema": FORM}))
    got = await urls(ann, await waits(api, flow), query="?approver=eve")
    page = api.url + urlsplit(got["approvalPage"]).path + "?approver=eve"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with ann.session.get(page) as answer:
        assert 'name="field.amount"' in await answer.text()
    filled = urlencode({"field.amount": "3", "do": "approve"})
    async with ann.session.post(page, data=filled, headers=form) as answer:
        assert answer.status == 200
    assert await result(ann, flow) == (True, "3 by eve")


async def test_a_saved_flow_is_shown_by_its_path_and_summary(api: Api, ann: Client) -> None:
    path = f"u/{ann.username}/pay"
    saved = await ann.post(
        "/w/starter/flows/create", {"path": path, "summary": "Pay what is due", "value": a_value(), "description": ""}
    )
    assert saved.status == 201, saved.text
    flow = (await ann.post(f"/w/starter/jobs/run/f/{path}", {})).text
    got = await urls(ann, await waits(api, flow))
    async with ann.session.get(api.url + urlsplit(got["approvalPage"]).path) as answer:
        assert f"{path}: Pay what is due" in await answer.text()
    info = (await ann.get(f"/w/starter/jobs_u/flow/approval_info/{flow}")).json
    assert (info["flow_summary"], info["can_approve"]) == ("Pay what is due", True)
    assert (await ann.post(f"/w/starter/jobs/flow/resume/{flow}", {"amount": 1})).status == 201
    assert await result(ann, flow) == (True, f"1 by {ann.username}")


async def test_a_refusal_fails_the_flow_and_says_by_whom(api: Api, ann: Client) -> None:
    flow = await run(ann, a_value())
    got = await urls(ann, await waits(api, flow), query="?approver=eve")
    refused = await api.nobody.get(urlsplit(got["cancel"]).path.removeprefix("/api") + "?approver=eve")
    assert refused.status == 201
    success, error = await result(ann, flow)
    assert not success
    assert error["error"]["name"] == "SuspendedDisapproved"
    assert "eve" in error["error"]["message"]


async def test_whoever_has_started_it_may_not_approve_where_that_is_forbidden(api: Api, ann: Client) -> None:
    flow = await run(ann, a_value(self_approval_disabled=True))
    job = await waits(api, flow)
    where = urlsplit((await urls(ann, job))["resume"]).path.removeprefix("/api")
    assert (await ann.post(where, {"amount": 1})).status == 403
    bob = await api.person("bob", workspace="starter")
    assert (await bob.post(where, {"amount": 2})).status == 201
    assert await result(ann, flow) == (True, f"2 by {bob.username}")


async def test_an_approval_that_comes_before_the_flow_waits_counts(api: Api, ann: Client) -> None:
    value = {"modules": [bash("ask", "sleep 2", suspend={}), *a_value()["modules"][1:]]}
    flow = await run(ann, value)
    query = "SELECT job_id FROM queue.flow_step WHERE flow_id = $1 AND state = 'started' AND no = 0"
    await eventually(lambda: api.look.fetchval(f"SELECT EXISTS ({query})", flow), PATIENCE)
    got = await urls(ann, str(await api.look.fetchval(query, flow)))
    early = await api.nobody.post(urlsplit(got["resume"]).path.removeprefix("/api"), {"amount": 5})
    assert early.status == 201
    assert await result(ann, flow) == (True, "5 by anonymous")


async def test_two_approvals_of_two_people_are_needed(api: Api, ann: Client) -> None:
    flow = await run(ann, a_value(required_events=2))
    job = await waits(api, flow)
    for number, name in ((1, "eve"), (2, "dan")):
        got = await urls(ann, job, number, f"?approver={name}")
        path = urlsplit(got["resume"]).path.removeprefix("/api") + f"?approver={name}"
        assert (await api.nobody.post(path, {"amount": number})).status == 201
        assert (await api.nobody.post(path, {"amount": 9})).status == 409
    assert await result(ann, flow) == (True, "2 by eve,dan")


async def test_a_token_for_one_flow_follows_its_steps_and_these_reach_their_own_run(api: Api, ann: Client) -> None:
    path = f"u/{ann.username}/hook"
    look = """other="$1"
call() { curl -s -o /dev/null -w '%{http_code} ' -H "Authorization: Bearer $WM_TOKEN" "$@"; }
base="$BASE_INTERNAL_URL/api/w/$WM_WORKSPACE"
said=$(call "$base/jobs/resume_urls/$WM_JOB_ID/1"
  call "$base/jobs_u/get_root_job_id/$WM_JOB_ID"
  call -X POST -H 'Content-Type: application/json' -d 1 "$base/jobs/flow/user_states/$WM_FLOW_JOB_ID/k"
  call -X POST -H 'Content-Type: application/json' -d '{}' "$base/jobs_u/queue/cancel/$WM_JOB_ID"
  call "$base/jobs_u/get/$other")
echo "$said"
"""
    other = await run(ann, {"modules": [bash("x", "echo")]})
    inputs = {"other": {"type": "static", "value": other}}
    new = {"path": path, "summary": "", "description": "", "value": {"modules": [bash("a", look, inputs)]}}
    assert (await ann.post("/w/starter/flows/create", new)).status == 201
    token = ann.with_token(await api.token_for(ann.email, scopes=[f"jobs:run:flows:{path}"]))
    flow = (await token.post(f"/w/starter/jobs/run/f/{path}", {})).text
    said = str((await result(ann, flow))[1])
    assert said.split()[:2] == ["200", "200"], said
    assert said.split()[2] in {"200", "201"}, said
    assert said.split()[3:] == ["403", "403"], said
    step = (await token.get(f"/w/starter/jobs_u/get/{flow}")).json["flow_status"]["modules"][0]["job"]
    assert (await token.get(f"/w/starter/jobs_u/completed/get/{step}")).status == 200
    assert (await token.get(f"/w/starter/jobs_u/get/{other}")).status == 403
    stranger = ann.with_token(await api.token_for(ann.email, scopes=[f"jobs:run:flows:u/{ann.username}/another"]))
    assert (await stranger.get(f"/w/starter/jobs_u/completed/get/{step}")).status == 403
