"""Workspaces, the audit log and workers: through real HTTP."""

import asyncio
import secrets
import uuid
from typing import Any

import pytest

from tests.integration.api.conftest import ADMIN_EMAIL, Api
from tests.support.queue import a_job
from tidemill.chassis.broker import Delivery
from tidemill.shared.catalog import worker_inbox
from tidemill.shared.message import open_envelope, read
from tidemill.shared.messages import CancelJob


def a_name() -> str:
    return f"n{secrets.token_hex(4)}"


async def test_a_workspace_is_made_as_the_cli_makes_it(api: Api) -> None:
    admin, name = await api.admin(), a_name()
    missing = await admin.post("/workspaces/exists", {"id": name})
    assert (missing.status, missing.json) == (200, False)
    setting = await admin.get("/settings/global/automate_username_creation")
    assert (setting.status, setting.content_type, setting.text) == (200, "application/json", "null")
    made = await admin.post("/workspaces/create", {"id": name, "name": "Mine", "username": "boss"})
    assert (made.status, made.content_type) == (201, "text/plain")
    assert (await admin.post("/workspaces/exists", {"id": name})).json is True
    assert (await admin.get(f"/w/{name}/users/whoami")).json["username"] == "boss"
    assert (await admin.get(f"/w/{name}/workspaces/get_workspace_name")).text == "Mine"
    assert {"id": name, "name": "Mine", "owner": ADMIN_EMAIL} in (await admin.get("/workspaces/list")).json
    (entry,) = await api.audited(operation="workspaces.create", workspace_id=name)
    assert (entry["resource"], entry["action_kind"]) == (name, "Created")


async def test_an_id_that_is_taken_is_a_conflict_and_changes_nothing(api: Api) -> None:
    admin, name = await api.admin(), a_name()
    assert (await admin.post("/workspaces/create", {"id": name, "name": "First"})).status == 201
    assert (await admin.post("/workspaces/create", {"id": name, "name": "Second"})).status == 409
    assert (await admin.get(f"/w/{name}/workspaces/get_workspace_name")).text == "First"
    assert (await admin.get(f"/w/{name}/users/whoami")).json["username"] == "admin"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "Upper"}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "a" * 51}, "id"),
        ({"id": "wm-fork-x"}, "id"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"username": "a/b"}, "username"),
        ({"username": ".."}, "username"),
        ({"error_handler_fallback_to_instance_alerts": True}, "error_handler_fallback_to_instance_alerts"),
    ],
)
async def test_a_name_that_can_not_be_used_is_refused_by_field(api: Api, changes: dict[str, Any], field: str) -> None:
    admin = await api.admin()
    answer = await admin.post("/workspaces/create", {"id": a_name(), "name": "x"} | changes)
    assert answer.status == 422
    assert f"The field {field} " in answer.text


async def test_only_a_superadmin_makes_workspaces(api: Api) -> None:
    ann = await api.person("ann", workspace="starter", is_admin=True)
    assert (await ann.post("/workspaces/create", {"id": a_name(), "name": "x"})).status == 403
    assert (await ann.get("/workspaces/list_as_superadmin")).status == 403


async def test_somebody_sees_their_own_workspaces(api: Api) -> None:
    workspace, hidden = await api.workspace(), await api.workspace()
    ann = await api.person("ann", workspace=workspace, operator=True)
    assert [each["id"] for each in (await ann.get("/workspaces/list")).json] == [workspace]
    mine = (await ann.get("/workspaces/users")).json
    assert mine["email"] == ann.email
    (one,) = mine["workspaces"]
    assert one["capabilities"].pop("visibility")["runs"] is True
    assert one == {
        "id": workspace,
        "name": workspace,
        "username": ann.username,
        "color": "",
        "is_dev_workspace": False,
        "disabled": False,
        "role": "operator",
        "capabilities": {
            "code": False,
            "flows": "none",
            "apps": "none",
            "manage_schedules": False,
            "manage_triggers": False,
        },
    }
    assert (await ann.get(f"/w/{hidden}/workspaces/get_workspace_name")).status == 403


async def test_a_superadmin_lists_all_by_page(api: Api) -> None:
    admin, made = await api.admin(), {await api.workspace() for _ in range(3)}
    whole = (await admin.get("/workspaces/list_as_superadmin?page=1&per_page=1000")).json
    assert made | {"admins", "starter"} <= {each["id"] for each in whole}
    pages = [(await admin.get(f"/workspaces/list_as_superadmin?page={page}&per_page=2")).json for page in (0, 1, 2)]
    assert pages[0] == pages[1] == whole[:2]
    assert pages[2] == whole[2:4]


async def test_an_archived_workspace_is_closed(api: Api) -> None:
    workspace = await api.workspace()
    ann = await api.person("ann", workspace=workspace)
    await api.look.execute("UPDATE platform.workspace SET archived = true WHERE id = $1", workspace)
    assert (await ann.get(f"/w/{workspace}/users/whoami")).status == 403
    assert (await ann.get("/workspaces/list")).json == []
    assert (await ann.post("/workspaces/exists", {"id": workspace})).json is True
    listed = (await (await api.admin()).get("/workspaces/list_as_superadmin?per_page=1000")).json
    assert next(each for each in listed if each["id"] == workspace)["deleted"] is True


@pytest.mark.parametrize("key", ["license_key", "jwt_secret", "AUTOMATE_USERNAME_CREATION", "x"])
async def test_no_other_setting_is_told(api: Api, key: str) -> None:
    assert (await (await api.admin()).get(f"/settings/global/{key}")).status == 404


class Written:
    """Audit entries of two people in one workspace."""

    def __init__(self, api: Api, workspace: str) -> None:
        self.api = api
        self.workspace = workspace

    async def add(self, email: str, operation: str, kind: str, at: str, resource: str = "") -> int:
        number: int = await self.api.look.fetchval(
            "INSERT INTO audit.entry"
            " (event_id, workspace_id, at, username, email, operation, action_kind, resource, parameters)"
            " VALUES ($1, $2, $3::text::timestamptz, $4, $5, $6, $7, $8, '{}') RETURNING id",
            uuid.uuid4(),
            self.workspace,
            at,
            email.partition("@")[0],
            email,
            operation,
            kind,
            resource,
        )
        return number


async def test_the_audit_log_is_filtered_and_paged(api: Api) -> None:
    workspace = await api.workspace()
    boss = await api.person("boss", workspace=workspace, is_admin=True)
    ann = await api.person("ann", workspace=workspace)
    written = Written(api, workspace)
    one = await written.add(boss.email, "scripts.create", "Created", "2026-01-01T00:00:00Z", "u/boss/a")
    two = await written.add(ann.email, "jobs.run", "Execute", "2026-01-02T00:00:00Z", "u/ann/b")
    three = await written.add(ann.email, "scripts.archive", "Delete", "2026-01-03T00:00:00Z", "u/ann/b")

    async def seen(query: str = "", who: Any = boss) -> list[int]:
        return [each["id"] for each in (await who.get(f"/w/{workspace}/audit/list?{query}")).json]

    assert await seen() == [three, two, one]
    assert await seen(f"username={ann.username}") == [three, two]
    assert await seen("operation=jobs.run") == [two]
    assert await seen("operations=jobs.run,scripts.create") == [two, one]
    assert await seen("exclude_operations=jobs.run,scripts.create") == [three]
    assert await seen("action_kind=Create") == [one]
    assert await seen("resource=u/ann/b") == [three, two]
    assert await seen("before=2026-01-02T00:00:00Z") == [one]
    assert await seen("after=2026-01-02T00:00:00Z") == [three]
    assert await seen(f"before_id={three}&per_page=1") == [two]
    assert await seen("page=2&per_page=2") == [one]
    # Everybody else sees what they did themselves.
    assert await seen(who=ann) == [three, two]
    assert (await ann.get(f"/w/{workspace}/audit/get/{one}")).status == 404
    entry = (await ann.get(f"/w/{workspace}/audit/get/{two}")).json
    assert entry == {
        "workspace_id": workspace,
        "id": two,
        "timestamp": "2026-01-02T00:00:00Z",
        "username": ann.username,
        "operation": "jobs.run",
        "action_kind": "Execute",
        "resource": "u/ann/b",
    }


async def test_the_audit_log_of_one_workspace_does_not_show_another(api: Api) -> None:
    mine, theirs = await api.workspace(), await api.workspace()
    boss = await api.person("boss", workspace=mine, is_admin=True)
    number = await Written(api, theirs).add("x@example.com", "jobs.run", "Execute", "2026-01-01T00:00:00Z")
    assert (await boss.get(f"/w/{mine}/audit/list")).json == []
    assert (await boss.get(f"/w/{mine}/audit/get/{number}")).status == 404
    assert (await boss.get(f"/w/{mine}/audit/list?all_workspaces=true")).status == 403
    everything = (await (await api.admin()).get(f"/w/{mine}/audit/list?all_workspaces=true&per_page=1000")).json
    assert number in [each["id"] for each in everything]


async def test_logins_are_seen_from_the_workspace_of_the_installation(api: Api) -> None:
    await api.nobody.post("/auth/login", {"email": "lost@example.com", "password": "x"})
    await api.audited(operation="users.login_failure", email="lost@example.com")
    admin = await api.admin()
    found = (await admin.get("/w/admins/audit/list?operation=users.login_failure&username=lost@example.com")).json
    assert len(found) == 1
    assert (await admin.get("/w/starter/audit/list?operation=users.login_failure")).json == []


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "99999999999999999999999999", "0"])
async def test_what_is_no_entry_is_not_found(api: Api, number: str) -> None:
    assert (await (await api.admin()).get(f"/w/starter/audit/get/{number}")).status == 404


async def test_workers_are_listed_while_they_are_heard_of(api: Api) -> None:
    ann = await api.person("ann")
    run = await api.queue.start_worker("gpu", run=uuid.uuid4())
    (worker,) = (await ann.get("/workers/list?ping_since=60")).json
    assert worker["custom_tags"] == ["gpu"]
    assert worker["last_ping"] <= 60
    assert {"worker", "worker_instance", "started_at", "ip", "jobs_executed", "worker_group", "wm_version"} <= set(
        worker
    )
    await api.look.execute("UPDATE queue.worker SET beat_at = now() - interval '10 minutes' WHERE worker_run = $1", run)
    assert (await ann.get("/workers/list")).json == []


async def test_an_admin_closes_a_workspace_and_a_superadmin_opens_it_again(api: Api) -> None:
    workspace, root = await api.workspace(), await api.admin()
    boss = await api.person("boss", workspace=workspace, is_admin=True)
    bound = boss.with_token(await api.token_for(boss.email, workspace=workspace))
    assert (await boss.post(f"/w/{workspace}/workspaces/archive")).status == 200
    assert (await boss.get(f"/w/{workspace}/users/whoami")).status == 403
    assert (await bound.get(f"/w/{workspace}/users/whoami")).status == 403
    assert (await boss.post(f"/workspaces/unarchive/{workspace}")).status == 403
    assert (await root.post(f"/workspaces/unarchive/{workspace}")).status == 200
    assert (await bound.get(f"/w/{workspace}/users/whoami")).status == 200
    assert (await root.post("/workspaces/unarchive/nowhere")).status == 404
    assert (await root.post("/w/admins/workspaces/archive")).status == 400


async def test_a_deleted_workspace_is_gone_with_all_that_was_in_it(api: Api) -> None:
    workspace, other, root = await api.workspace(), await api.workspace(), await api.admin()
    boss = await api.person("boss", workspace=workspace, is_admin=True)
    bound = boss.with_token(await api.token_for(boss.email, workspace=workspace))
    script = {"path": "f/a/x", "content": "def main(): return 1", "language": "python3", "summary": ""}
    for place, who in ((workspace, boss), (other, root)):
        assert (await who.post(f"/w/{place}/scripts/create", script)).status == 201
    invitation = {"email": "guest@example.com", "is_admin": False, "operator": False}
    assert (await boss.post(f"/w/{workspace}/workspaces/invite_user", invitation)).status == 200
    assert (await boss.delete(f"/workspaces/delete/{workspace}")).status == 403
    assert (await root.delete(f"/workspaces/delete/{workspace}?only_delete_forks=true")).status == 422
    assert (await root.delete(f"/workspaces/delete/{workspace}")).status == 200
    for table in ("member", "script", "invite", "token"):
        assert await api.look.fetchval(f"SELECT count(*) FROM platform.{table} WHERE workspace_id = $1", workspace) == 0
    assert await api.look.fetchval("SELECT count(*) FROM platform.script WHERE workspace_id = $1", other) == 1
    assert (await bound.get("/users/whoami")).status == 401
    assert (await root.get(f"/w/{workspace}/users/whoami")).status == 404
    listed = (await root.get("/workspaces/list_as_superadmin?per_page=1000")).json
    assert workspace not in {each["id"] for each in listed}
    (entry,) = await api.audited(operation="workspaces.delete", resource=workspace)
    assert entry["workspace_id"] == "admins"


async def test_the_jobs_of_a_deleted_workspace_are_canceled(api: Api) -> None:
    workspace, other, root = await api.workspace(), await api.workspace(), await api.admin()
    run = await api.queue.start_worker("python3", run=uuid.uuid4())
    await api.queue.request(a_job(workspace_id=workspace))
    claim = await api.queue.claimed("python3", run=run)
    told: asyncio.Queue[CancelJob] = asyncio.Queue()

    async def hear(delivery: Delivery) -> None:
        told.put_nowait(read(open_envelope(delivery.body), CancelJob))
        await delivery.ack()

    waits = await api.queue.request(a_job(workspace_id=workspace))
    stays = await api.queue.request(a_job(workspace_id=other))
    async with api.broker.subscribe(worker_inbox(str(run)), hear):
        assert (await root.delete(f"/workspaces/delete/{workspace}")).status == 200
        assert (await asyncio.wait_for(told.get(), 20)).job_id == claim.job_id
    assert [await api.queue.state_of(each) for each in (claim.job_id, waits, stays)] == [
        "canceled",
        "canceled",
        "queued",
    ]
    assert await api.queue.finish(claim) == "stale"
    assert (await api.queue.job(waits))["canceled_reason"] == "the workspace was deleted"


async def test_nothing_runs_in_an_archived_workspace_and_who_belongs_there_is_told_why(api: Api) -> None:
    workspace, root = await api.workspace(), await api.admin()
    boss = await api.person("boss", workspace=workspace, is_admin=True)
    stranger = await api.person("stranger")
    script = {"path": "f/a/x", "content": "def main(): return 1", "language": "python3", "summary": ""}
    await boss.post(f"/w/{workspace}/scripts/create", script)
    later = (await boss.post(f"/w/{workspace}/jobs/run/p/f/a/x?scheduled_in_secs=60", {})).text
    assert (await boss.post(f"/w/{workspace}/workspaces/archive")).status == 200
    assert await api.queue.state_of(uuid.UUID(later)) == "canceled"
    for who in (boss, root):
        refused = await who.post(f"/w/{workspace}/jobs/run/p/f/a/x", {})
        assert (refused.status, "archived" in refused.text) == (403, True)
    hidden = await stranger.post(f"/w/{workspace}/jobs/run/p/f/a/x", {})
    absent = await stranger.post("/w/nowhere/jobs/run/p/f/a/x", {})
    assert hidden.status == absent.status == 403
    assert hidden.text.replace(workspace, "") == absent.text.replace("nowhere", "")
    assert (await root.post(f"/workspaces/unarchive/{workspace}")).status == 200
    assert (await boss.post(f"/w/{workspace}/jobs/run/p/f/a/x", {})).status == 201


async def test_the_id_of_a_deleted_workspace_is_never_used_again(api: Api) -> None:
    workspace, root = await api.workspace(), await api.admin()
    await root.delete(f"/workspaces/delete/{workspace}")
    # Jobs and audit entries of the old one are still kept for their time.
    assert (await root.post("/workspaces/create", {"id": workspace, "name": "again"})).status == 409
    assert (await root.post("/workspaces/exists", {"id": workspace})).json is True
    assert (await root.post(f"/workspaces/unarchive/{workspace}")).status == 404
    assert (await root.delete(f"/workspaces/delete/{workspace}")).status == 404
    assert (await root.delete("/workspaces/delete/admins")).status == 400


async def test_a_member_leaves_and_a_visitor_can_not(api: Api) -> None:
    workspace, root = await api.workspace(), await api.admin()
    ann = await api.person("ann", workspace=workspace)
    assert (await root.post(f"/w/{workspace}/workspaces/leave")).status == 404
    assert (await ann.post(f"/w/{workspace}/workspaces/leave")).status == 200
    assert (await ann.get(f"/w/{workspace}/users/whoami")).status == 403
    assert (await ann.get("/workspaces/list")).json == []
