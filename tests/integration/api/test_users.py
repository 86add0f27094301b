"""People, members and their roles: through real HTTP."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import ADMIN_EMAIL, Answer, Api, Client, an_api
from tests.integration.api.test_identity import a_job_of
from tests.support.database import DatabaseUrls
from tidemill.api.users import guessing


def an_email() -> str:
    return f"p{secrets.token_hex(4)}@example.com"


async def log_in(client: Client, email: str, password: str, **how: Any) -> Answer:
    return await client.post("/auth/login", {"email": email, "password": password}, **how)


async def session(api: Api, email: str, password: str) -> Client:
    """Return somebody with a session."""
    answer = await log_in(api.nobody, email, password)
    assert answer.status == 200, answer.text
    return Client(api.session, api.url, answer.text, email)


async def test_a_person_is_made_and_logs_in(api: Api) -> None:
    admin, email = await api.admin(), an_email()
    made = await admin.post(
        "/users/create",
        {"email": email.upper(), "password": "correct horse", "super_admin": False, "name": "Ann", "skip_email": True},
    )
    assert (made.status, made.content_type) == (201, "text/plain")
    assert (await admin.get(f"/users/exists/{email}")).json is True
    me = (await (await session(api, email, "correct horse")).get("/users/whoami")).json
    assert (me["email"], me["name"], me["super_admin"]) == (email, "Ann", False)
    assert (await admin.post("/users/create", {"email": email, "super_admin": False})).status == 409
    listed = (await admin.get("/users/list_as_super_admin?per_page=1000")).json
    assert next(each for each in listed if each["email"] == email)["disabled"] is False


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "a@b/c"}, "email"),
        ({"password": "short"}, "password"),
        ({"login_type": "saml"}, "login_type"),
        ({"super_admin": None}, "super_admin"),
    ],
)
async def test_a_person_that_can_not_be_made_as_asked_is_not_made(
    api: Api, changes: dict[str, Any], field: str
) -> None:
    admin, email = await api.admin(), an_email()
    answer = await admin.post("/users/create", {"email": email, "super_admin": False} | changes)
    assert answer.status == 422
    assert f"The field {field} " in answer.text
    assert (await admin.get(f"/users/exists/{email}")).json is False


async def test_who_becomes_a_superadmin_is_one_at_once_and_no_longer_than_that(api: Api) -> None:
    admin, ann = await api.admin(), await api.person("ann")
    assert (await ann.get("/users/list_as_super_admin")).status == 403
    assert (await admin.post(f"/users/update/{ann.email}", {"is_super_admin": True})).status == 200
    assert (await ann.get("/users/list_as_super_admin")).status == 200
    assert (await admin.post(f"/users/update/{ann.email}", {"is_super_admin": False})).status == 200
    assert (await ann.get("/users/list_as_super_admin")).status == 403
    assert (await admin.post(f"/users/update/{ann.email}", {"is_devops": True})).status == 422
    assert (await admin.post("/users/update/nobody@example.com", {"name": "x"})).status == 404


async def test_the_last_superadmin_stays(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    async with an_api(own_database_urls, tmp_path) as api:
        admin = await api.admin()
        for change in ({"is_super_admin": False}, {"disabled": True}):
            assert (await admin.post(f"/users/update/{ADMIN_EMAIL}", change)).status == 409
        assert (await admin.delete(f"/users/delete/{ADMIN_EMAIL}")).status == 409
        root = await api.person("root", super_admin=True)
        both = await asyncio.gather(
            admin.post(f"/users/update/{root.email}", {"disabled": True}),
            root.post(f"/users/update/{ADMIN_EMAIL}", {"disabled": True}),
        )
        # Whoever came second is either out already or the last one.
        assert sorted(each.status for each in both) in ([200, 401], [200, 403], [200, 409])
        assert await api.look.fetchval("SELECT count(*) FROM platform.person WHERE super_admin AND NOT disabled") == 1


async def test_a24_a_new_password_ends_the_other_sessions_of_that_person(api: Api) -> None:
    admin, email = await api.admin(), an_email()
    await admin.post("/users/create", {"email": email, "password": "correct horse", "super_admin": False})
    mine, stolen = await session(api, email, "correct horse"), await session(api, email, "correct horse")
    assert (await stolen.post(f"/users/tokens/update_label/{stolen.token[:10]}", {"label": "kept"})).status == 200
    assert (await mine.post("/users/setpassword", {"password": "battery staple"})).status == 200
    assert (await stolen.get("/users/whoami")).status == 401
    assert (await mine.get("/users/whoami")).status == 200
    assert (await log_in(api.nobody, email, "correct horse")).status == 401
    assert (await admin.post(f"/users/set_password_of/{email}", {"password": "third password"})).status == 200
    assert (await mine.get("/users/whoami")).status == 401
    assert (await admin.get("/users/whoami")).status == 200
    assert (await log_in(api.nobody, email, "third password")).status == 200
    assert (await admin.post("/users/set_password_of/nobody@example.com", {"password": "x" * 8})).status == 404


async def test_a24_who_is_removed_or_disabled_is_out_with_all_their_tokens(api: Api) -> None:
    admin = await api.admin()
    email = an_email()
    await admin.post("/users/create", {"email": email, "password": "correct horse", "super_admin": False})
    ann = await session(api, email, "correct horse")
    token = ann.with_token((await ann.post("/users/tokens/create", {})).text)
    assert (await admin.post(f"/users/update/{email}", {"disabled": True})).status == 200
    assert ((await ann.get("/users/whoami")).status, (await token.get("/users/whoami")).status) == (401, 401)
    assert (await log_in(api.nobody, email, "correct horse")).status == 401
    assert (await admin.post(f"/users/update/{email}", {"disabled": False})).status == 200
    # A session is over for good; a token that they made works again.
    assert ((await ann.get("/users/whoami")).status, (await token.get("/users/whoami")).status) == (401, 200)
    assert (await admin.delete(f"/users/delete/{email}")).status == 200
    assert (await token.get("/users/whoami")).status == 401
    assert (await admin.delete(f"/users/delete/{email}")).status == 404


async def test_a24_a_job_of_somebody_who_has_gone_is_refused(api: Api) -> None:
    admin, workspace = await api.admin(), await api.workspace()
    removed, left = await api.person("removed", workspace=workspace), await api.person("left", workspace=workspace)
    first, _ = await a_job_of(api, removed, workspace)
    second, _ = await a_job_of(api, left, workspace)
    third, _ = await a_job_of(api, admin, workspace)
    jobs = (first, second, third)
    assert [(await job.get(f"/w/{workspace}/users/whoami")).status for job in jobs] == [200, 200, 200]
    await admin.delete(f"/users/delete/{removed.email}")
    await admin.delete(f"/w/{workspace}/users/delete/{left.username}")
    assert [(await job.get(f"/w/{workspace}/users/whoami")).status for job in jobs] == [401, 401, 200]
    await admin.post(f"/w/{workspace}/workspaces/archive")
    assert (await third.get(f"/w/{workspace}/users/whoami")).status == 401


async def test_a24_one_address_does_not_try_many_accounts(
    own_database_urls: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guessing, "PER_ADDRESS", 3)
    settings = {"TIDEMILL_TRUSTED_PROXIES": "127.0.0.1/32"}
    async with an_api(own_database_urls, tmp_path, settings) as api:

        async def status(address: str) -> int:
            return (await log_in(api.nobody, an_email(), "x", headers={"X-Forwarded-For": address})).status

        assert [await status("203.0.113.7") for _ in range(4)] == [401, 401, 401, 429]
        # A forged address to the left of what our proxy wrote changes nothing, another visitor is not kept out.
        assert await status("198.51.100.1, 203.0.113.7") == 429
        assert await status("203.0.113.8") == 401
        # Whoever has one address of a /64 has all of them.
        assert [await status(f"2001:db8::{each}") for each in range(1, 5)] == [401, 401, 401, 429]


async def test_a24_one_account_is_not_tried_from_many_addresses(
    own_database_urls: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guessing, "PER_ACCOUNT", 3)
    settings = {"TIDEMILL_TRUSTED_PROXIES": "127.0.0.1/32"}
    async with an_api(own_database_urls, tmp_path, settings) as api:
        for email in (an_email(), "somebody-else@example.com"):
            answers = [
                await log_in(api.nobody, email, "x", headers={"X-Forwarded-For": f"203.0.113.{each}"})
                for each in range(4)
            ]
            assert [each.status for each in answers] == [401, 401, 401, 429]


async def test_a24_an_address_counts_only_behind_our_own_proxy(api: Api) -> None:
    email = an_email()
    answers = [
        await log_in(api.nobody, email, "x", headers={"X-Forwarded-For": f"203.0.113.{each}"})
        for each in range(guessing.PER_ACCOUNT_AND_ADDRESS + 1)
    ]
    assert {each.status for each in answers[:-1]} == {401}
    assert answers[-1].status == 429


async def test_a_member_is_added_listed_changed_and_taken_out(api: Api) -> None:
    workspace = await api.workspace()
    boss, ann = await api.person("boss", workspace=workspace, is_admin=True), await api.person("ann")
    here = f"/w/{workspace}"
    assert (await ann.get(f"{here}/users/whoami")).status == 403
    added = await boss.post(
        f"{here}/workspaces/add_user", {"email": ann.email, "is_admin": False, "operator": True, "username": "annie"}
    )
    assert (added.status, added.content_type) == (200, "text/plain")
    assert (await ann.get(f"{here}/users/whoami")).json["operator"] is True
    listed = (await ann.get(f"{here}/users/list")).json
    assert [each["username"] for each in listed] == sorted(["annie", boss.username])
    assert listed[0] == (await ann.get(f"{here}/users/get/annie")).json
    assert {"email", "is_admin", "is_super_admin", "created_at", "disabled", "folders", "folders_owners"} <= set(
        listed[0]
    )
    assert (await boss.post(f"{here}/users/update/annie", {"is_admin": True})).status == 200
    me = (await ann.get(f"{here}/users/whoami")).json
    assert (me["is_admin"], me["operator"]) == (True, False)
    assert (await boss.post(f"{here}/users/update/annie", {"operator": True})).status == 200
    me = (await ann.get(f"{here}/users/whoami")).json
    assert (me["is_admin"], me["operator"]) == (False, True)
    assert (await boss.post(f"{here}/users/update/annie", {"disabled": True})).status == 200
    assert (await ann.get(f"{here}/users/whoami")).status == 403
    assert (await boss.post(f"{here}/users/update/annie", {"disabled": False})).status == 200
    bound = ann.with_token((await ann.post("/users/tokens/create", {"workspace_id": workspace})).text)
    assert (await bound.get(f"{here}/users/whoami")).status == 200
    assert (await boss.delete(f"{here}/users/delete/annie")).status == 200
    assert ((await ann.get(f"{here}/users/whoami")).status, (await bound.get(f"{here}/users/whoami")).status) == (
        403,
        401,
    )
    assert (await boss.delete(f"{here}/users/delete/annie")).status == 404
    assert (await boss.get(f"{here}/users/get/annie")).status == 404


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"email": "nobody@example.com"}, 404),
        ({"username": "a/b"}, 422),
        ({"is_admin": True, "operator": True}, 422),
        ({"username": "taken"}, 409),
    ],
)
async def test_somebody_who_can_not_be_added_is_not(api: Api, changes: dict[str, Any], status: int) -> None:
    workspace = await api.workspace()
    admin, ann, bob = await api.admin(), await api.person("ann"), await api.person("bob")
    add = f"/w/{workspace}/workspaces/add_user"
    role = {"is_admin": False, "operator": False}
    assert (await admin.post(add, {"email": bob.email, "username": "taken", **role})).status == 200
    assert (await admin.post(add, {"email": ann.email, **role} | changes)).status == status
    assert [each["username"] for each in (await admin.get(f"/w/{workspace}/users/list")).json] == ["taken"]


async def test_an_invitation_is_accepted_once(api: Api) -> None:
    workspace = await api.workspace()
    boss, ann = await api.person("boss", workspace=workspace, is_admin=True), await api.person("ann")
    here = f"/w/{workspace}"
    wanted = {"email": ann.email, "is_admin": False, "operator": True}
    assert (await boss.post(f"{here}/workspaces/invite_user", wanted)).status == 200
    expected = [{"workspace_id": workspace, **wanted, "role": "operator"}]
    assert (await boss.get(f"{here}/workspaces/list_pending_invites")).json == expected
    assert (await ann.get("/users/list_invites")).json == expected
    assert (await ann.get(f"{here}/users/whoami")).status == 403
    stranger = await api.person("stranger")
    assert (await stranger.post("/users/accept_invite", {"workspace_id": workspace})).status == 404
    assert (
        await ann.post("/users/accept_invite", {"workspace_id": workspace, "username": boss.username})
    ).status == 409
    assert (await ann.post("/users/accept_invite", {"workspace_id": workspace, "username": "annie"})).status == 200
    me = (await ann.get(f"{here}/users/whoami")).json
    assert (me["username"], me["operator"], me["is_admin"]) == ("annie", True, False)
    assert (await ann.post("/users/accept_invite", {"workspace_id": workspace})).status == 404
    assert (await boss.post(f"{here}/workspaces/invite_user", wanted)).status == 409


async def test_an_invitation_is_declined_or_taken_back(api: Api) -> None:
    workspace = await api.workspace()
    boss, ann = await api.person("boss", workspace=workspace, is_admin=True), await api.person("ann")
    wanted = {"email": ann.email, "is_admin": False, "operator": False}
    ways: tuple[tuple[Client, str, dict[str, Any]], ...] = (
        (ann, "/users/decline_invite", {"workspace_id": workspace}),
        (boss, f"/w/{workspace}/workspaces/delete_invite", wanted),
    )
    for who, path, body in ways:
        assert (await boss.post(f"/w/{workspace}/workspaces/invite_user", wanted)).status == 200
        assert (await who.post(path, body)).status == 200
        assert (await who.post(path, body)).status == 404
        assert (await ann.post("/users/accept_invite", {"workspace_id": workspace})).status == 404


INTRUDING = {
    "workspace_id": "admins",
    "workspace": "admins",
    "is_super_admin": True,
    "super_admin": True,
    "permissioned_as": "u/admin",
    "on_behalf_of": "u/admin",
    "email": ADMIN_EMAIL,
    "username": "admin",
    "owner": "someone",
}


async def test_a10_no_field_of_a_body_changes_who_asks_or_where(api: Api) -> None:
    workspace = await api.workspace()
    boss = await api.person("boss", workspace=workspace, is_admin=True)
    ann = await api.person("ann", workspace=workspace)
    bodies: dict[str, dict[str, Any]] = {
        f"/w/{workspace}/users/update/{ann.username}": {"operator": False},
        "/users/setpassword": {"password": "correct horse"},
        "/users/tokens/create": {"label": "x"},
        f"/w/{workspace}/scripts/create": {
            "path": f"u/{boss.username}/x",
            "content": "def main(): return 1",
            "language": "python3",
            "summary": "",
        },
    }
    for path, body in bodies.items():
        extra = {name: value for name, value in INTRUDING.items() if name not in body}
        if path == "/users/tokens/create":
            del extra["workspace_id"]
        assert (await boss.post(path, extra | body)).status in (200, 201, 422), path
    me = (await boss.get("/users/whoami")).json
    assert (me["email"], me["super_admin"]) == (boss.email, False)
    assert {each["email"] for each in (await boss.get("/users/tokens/list")).json} == {boss.email}
    other = (await boss.get(f"/w/{workspace}/users/get/{ann.username}")).json
    assert (other["email"], other["is_super_admin"], other["is_admin"]) == (ann.email, False, False)
    assert (await log_in(api.nobody, ADMIN_EMAIL, "correct horse")).status == 401
    rows = await api.look.fetch("SELECT workspace_id FROM platform.script WHERE path = $1", f"u/{boss.username}/x")
    assert {row["workspace_id"] for row in rows} <= {workspace}
