"""What a token with scopes may do, and that it can't get around them: through real HTTP."""

import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.api.conftest import Api, Client
from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.route import NEEDS_NO_LOGIN, Route


@dataclass(frozen=True)
class Place:
    """A workspace with two scripts, their author, and a token that may run only the first."""

    api: Api
    workspace: str
    author: Client
    hash: str

    @property
    def base(self) -> str:
        return f"/w/{self.workspace}"

    async def with_scopes(self, *scopes: str, **limits: Any) -> Client:
        """Return the author with a token of these scopes."""
        return self.author.with_token(await self.api.token_for(self.author.email, scopes=scopes, **limits))

    async def deploy(self, path: str) -> str:
        script = {"path": path, "content": "def main(): return 1", "language": "python3", "summary": ""}
        answer = await self.author.post(f"{self.base}/scripts/create", script)
        assert answer.status == 201, answer.text
        return answer.text


@pytest.fixture
async def place(api: Api) -> Place:
    workspace = await api.workspace()
    author = await api.person("author", workspace=workspace, is_admin=True)
    made = Place(api, workspace, author, "")
    await made.deploy("f/a/y")
    return Place(api, workspace, author, await made.deploy("f/a/x"))


ONE_SCRIPT = "jobs:run:scripts:f/a/x"
PREVIEW = {"content": "echo 1", "language": "bash", "args": {}, "path": "f/a/x"}


async def test_a_token_for_one_script_runs_it_and_follows_the_run(place: Place) -> None:
    token = await place.with_scopes(ONE_SCRIPT)
    job = await token.post(f"{place.base}/jobs/run/p/f/a/x", {})
    assert job.status == 201
    for look in ("get", "get_logs", "getupdate", "completed/get_result_maybe", "get_root_job_id"):
        assert (await token.get(f"{place.base}/jobs_u/{look}/{job.text}")).status == 200, look
    assert (await token.get(f"{place.base}/jobs/explain/{job.text}")).status == 200


@pytest.mark.parametrize("scope", [ONE_SCRIPT, "jobs:run:scripts:f/a/x,f/b/*"])
async def test_a6_a_token_for_one_script_runs_and_reads_nothing_else(place: Place, scope: str) -> None:
    token, base = await place.with_scopes(scope), place.base
    other = (await place.author.post(f"{base}/jobs/run/p/f/a/y", {})).text
    preview = (await place.author.post(f"{base}/jobs/run/preview", PREVIEW)).text
    attempts = {
        "another path": token.post(f"{base}/jobs/run/p/f/a/y", {}),
        "a path that goes on": token.post(f"{base}/jobs/run/p/f/a/x/y", {}),
        "a path in other case": token.post(f"{base}/jobs/run/p/f/a/X", {}),
        "its own version": token.post(f"{base}/jobs/run/h/{place.hash}", {}),
        "its own version, waited for": token.post(f"{base}/jobs/run_wait_result/h/{place.hash}", {}),
        "a preview that names it": token.post(f"{base}/jobs/run/preview", PREVIEW),
        "a preview, waited for": token.post(f"{base}/jobs/run_wait_result/preview", PREVIEW),
        "an inline preview": token.post(f"{base}/jobs/run_inline/preview", PREVIEW),
        "another path by GET": token.get(f"{base}/jobs/run_wait_result/p/f/a/y"),
        "a job of another script": token.get(f"{base}/jobs_u/get/{other}"),
        "the log of a preview that names it": token.get(f"{base}/jobs_u/get_logs/{preview}"),
        "a job that is not there": token.get(f"{base}/jobs_u/get/{uuid.uuid4()}"),
        "a job that is none": token.get(f"{base}/jobs_u/get/x"),
        "the list of jobs": token.get(f"{base}/jobs/list"),
        "the queue": token.get(f"{base}/jobs/queue/list"),
        "what has ended": token.get(f"{base}/jobs/completed/list"),
        "its source": token.get(f"{base}/scripts/get/p/f/a/x"),
        "the list of scripts": token.get(f"{base}/scripts/list"),
        "a cancel": token.post(f"{base}/jobs_u/queue/cancel/{other}", {}),
        "who it is": token.get("/users/whoami"),
        "the audit log": token.get(f"{base}/audit/list"),
    }
    answers = {what: await attempt for what, attempt in attempts.items()}
    assert {what: each.status for what, each in answers.items()} == dict.fromkeys(attempts, 403)
    assert all("lacks scope" in each.text for each in answers.values())


async def test_a6_a_token_that_may_run_follows_no_run_of_another_person(place: Place) -> None:
    other = await place.api.person("other", workspace=place.workspace, is_admin=True)
    theirs = (await other.post(f"{place.base}/jobs/run/p/f/a/x", {})).text
    preview = (await other.post(f"{place.base}/jobs/run/preview", PREVIEW)).text
    for scope in (ONE_SCRIPT, "jobs:run:scripts", "jobs:run"):
        token = await place.with_scopes(scope)
        for job in (theirs, preview):
            answer = await token.get(f"{place.base}/jobs_u/get/{job}")
            assert (answer.status, "f/a" in answer.text) == (403, False), scope
    reader = await place.with_scopes("jobs:read:f/a/x")
    assert (await reader.get(f"{place.base}/jobs_u/get/{theirs}")).status == 200
    assert (await reader.get(f"{place.base}/jobs_u/get/{preview}")).status == 403


async def test_a_token_that_may_run_follows_its_previews(place: Place) -> None:
    token = await place.with_scopes("jobs:run")
    preview = (await token.post(f"{place.base}/jobs/run/preview", PREVIEW)).text
    assert (await token.get(f"{place.base}/jobs_u/get/{preview}")).status == 200


async def test_a_token_for_the_scripts_of_a_folder_reads_only_these(place: Place) -> None:
    await place.deploy("f/b/z")
    token, base = await place.with_scopes("scripts:write:f/a/*"), place.base
    assert (await token.get(f"{base}/scripts/get/p/f/a/x")).status == 200
    assert (await token.get(f"{base}/scripts/history/p/f/a/y")).status == 200
    assert (await token.post(f"{base}/scripts/archive/p/f/a/y")).status == 200
    for path in (
        "scripts/get/p/f/b/z",
        "scripts/list",
        "scripts/list_paths",
        f"scripts/get/h/{place.hash}",
        f"scripts/raw/h/{place.hash}",
        "scripts/raw/p/f/a/x",
    ):
        assert (await token.get(f"{base}/{path}")).status == 403, path
    assert (await token.post(f"{base}/scripts/archive/p/f/b/z")).status == 403


@pytest.mark.parametrize(
    "route", [each for each in OWN_ROUTES if each.policy.who not in NEEDS_NO_LOGIN], ids=lambda r: r.name
)
async def test_a6_no_route_lets_a_scope_with_another_path_in(api: Api, route: Route) -> None:
    root = await api.person("root", super_admin=True)
    domain, action = route.policy.domain, route.policy.action
    kinds = (":scripts", ":flows", "") if domain == "jobs" else ("",)
    scopes = [f"{domain}:{action}{kind}:f/elsewhere/x" for kind in kinds] + [f"{domain}:*:f/elsewhere/*"]
    token = root.with_token(await api.token_for(root.email, scopes=scopes))
    path = re.sub(r"\{[a-z_]+(\.\.\.)?\}", str(uuid.uuid4()), route.path.replace("{workspace}", "starter"))
    answer = await token.call(route.method, path, {} if route.method == "POST" else None)
    assert answer.status == 403, answer.text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scopes": None},
        {"scopes": []},
        {"scopes": ["*"]},
        {"scopes": ["users:*"]},
        {"scopes": ["users:write", "jobs:run"]},
        {"scopes": ["jobs:run:scripts:f/a/*"]},
        {"scopes": ["jobs:run:scripts:f/a/x,f/a/y"]},
        {"scopes": ["users:write"], "expiration": "2999-01-01T00:00:00Z"},
        {"scopes": ["users:write"]},
    ],
)
async def test_a7_a_token_with_scopes_makes_none_that_is_wider(place: Place, body: dict[str, Any]) -> None:
    token = await place.with_scopes("users:write", ONE_SCRIPT, expires_in="1 hour")
    before = len((await place.author.get("/users/tokens/list")).json)
    assert (await token.post("/users/tokens/create", body)).status == 403
    assert len((await place.author.get("/users/tokens/list")).json) == before


async def test_a7_a_token_with_scopes_makes_one_that_is_narrower(place: Place) -> None:
    token = await place.with_scopes("users:write", "jobs:run:scripts:f/a/*")
    made = await token.post("/users/tokens/create", {"label": "hook", "scopes": [ONE_SCRIPT]})
    assert made.status == 201
    hook = place.author.with_token(made.text)
    assert (await hook.post(f"{place.base}/jobs/run/p/f/a/x", {})).status == 201
    assert (await hook.post(f"{place.base}/jobs/run/p/f/a/y", {})).status == 403
    assert (await hook.post("/users/tokens/create", {"scopes": [ONE_SCRIPT]})).status == 403


async def test_a7_a_token_with_scopes_sees_and_touches_none_that_is_wider(place: Place) -> None:
    token = await place.with_scopes("users:*")
    own = {each["token_prefix"] for each in (await token.get("/users/tokens/list")).json}
    assert own == {token.token[:10]}
    full = place.author.token[:10]
    assert (await token.post(f"/users/tokens/update_label/{full}", {"label": "mine"})).status == 404
    assert (await token.delete(f"/users/tokens/delete/{full}")).status == 404
    for prefix in (full, token.token[:10]):
        assert (await token.post(f"/users/tokens/update_scopes/{prefix}", {"scopes": None})).status == 403
    assert (await place.author.get("/users/whoami")).status == 200


async def test_a7_a_token_for_some_tags_touches_none_without_the_filter(place: Place) -> None:
    tags = "if_jobs:filter_tags:gpu"
    token, same = await place.with_scopes("users:*", tags), await place.with_scopes(tags, "users:*")
    wider = [await place.with_scopes(*scopes) for scopes in (["users:*"], [tags], ["users:*", f"{tags},cpu"])]
    listed = {each["token_prefix"] for each in (await token.get("/users/tokens/list")).json}
    assert listed == {token.token[:10], same.token[:10]}
    for each in wider:
        prefix = each.token[:10]
        assert (await token.post(f"/users/tokens/update_label/{prefix}", {"label": "mine"})).status == 404
        assert (await token.delete(f"/users/tokens/delete/{prefix}")).status == 404
    assert (await token.delete(f"/users/tokens/delete/{same.token[:10]}")).status == 200


async def test_a_token_for_some_tags_deploys_what_needs_packages(place: Place) -> None:
    token = await place.with_scopes("if_jobs:filter_tags:gpu")
    script = {"path": "f/a/z", "content": "import tinyone\ndef main(): ...", "language": "python3", "summary": ""}
    assert (await token.post(f"{place.base}/scripts/create", script)).status == 201
    raw = {"raw_scripts": [{"raw_code": "", "language": "python3", "path": "f/a/z"}], "entrypoint": "f/a/z"}
    assert (await token.post(f"{place.base}/jobs/run/dependencies_async", raw)).status == 403


async def test_a7_a_token_with_scopes_does_nothing_that_would_widen_its_person(api: Api) -> None:
    root = await api.person("root", super_admin=True)
    token = root.with_token(await api.token_for(root.email, scopes=["users:*", "workspaces:*"]))
    password = {"password": "correct horse"}
    assert (await token.post("/users/setpassword", password)).status == 403
    assert (await token.post(f"/users/set_password_of/{root.email}", password)).status == 403
    assert (await token.post("/users/create", {"email": "evil@example.com", "super_admin": True})).status == 403
    assert (await token.post(f"/users/update/{root.email}", {"is_super_admin": True})).status == 403


async def test_scopes_are_told_changed_and_taken_away_at_once(place: Place) -> None:
    author, base = place.author, place.base
    made = await author.post("/users/tokens/create", {"label": "ci", "scopes": [ONE_SCRIPT]})
    token, prefix = author.with_token(made.text), made.text[:10]

    async def listed() -> dict[str, Any]:
        (found,) = [each for each in (await author.get("/users/tokens/list")).json if each["token_prefix"] == prefix]
        return dict(found)

    assert (await listed())["scopes"] == [ONE_SCRIPT]
    assert (await token.get(f"{base}/scripts/list")).status == 403
    changed = await author.post(f"/users/tokens/update_scopes/{prefix}", {"scopes": ["scripts:read"]})
    assert changed.status == 200
    assert (await token.get(f"{base}/scripts/list")).status == 200
    assert (await token.post(f"{base}/jobs/run/p/f/a/x", {})).status == 403
    assert (await author.post(f"/users/tokens/update_label/{prefix}", {"label": "other"})).status == 200
    assert (await listed())["label"] == "other"
    assert (await author.post(f"/users/tokens/update_label/{prefix}", {})).status == 200
    assert "label" not in await listed()
    assert (await author.post(f"/users/tokens/update_scopes/{prefix}", {"scopes": None})).status == 200
    assert "scopes" not in await listed()
    assert (await token.get("/users/whoami")).status == 200
    assert (await author.post(f"/users/tokens/update_scopes/{prefix}", {"scopes": ["jobs:fly"]})).status == 422
    assert (await author.post("/users/tokens/update_scopes/nothing", {})).status == 404


async def test_limits_of_a_token_add_up(place: Place) -> None:
    other = await place.api.workspace()
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    wanted = {"scopes": ["jobs:*"], "read_only": True, "workspace_id": place.workspace, "expiration": until}
    token = place.author.with_token((await place.author.post("/users/tokens/create", wanted)).text)
    assert (await token.get(f"{place.base}/jobs/list")).status == 200
    assert (await token.post(f"{place.base}/jobs/run/p/f/a/x", {})).status == 403
    assert (await token.get(f"/w/{other}/jobs/list")).status == 403
    assert (await token.get(f"{place.base}/scripts/list")).status == 403


async def test_tokens_are_listed_by_page(api: Api) -> None:
    ann = await api.person("ann")
    for _ in range(4):
        await api.token_for(ann.email)
    whole = (await ann.get("/users/tokens/list?exclude_ephemeral=true")).json
    assert len(whole) == 5
    pages = [(await ann.get(f"/users/tokens/list?page={page}&per_page=2")).json for page in (1, 2, 3, 4)]
    assert [each for page in pages for each in page] == whole
