"""Logging in, tokens, and who one is: through real HTTP."""

import asyncio
import stat
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import ADMIN_EMAIL, Api, Client, an_api
from tests.support.database import DatabaseUrls
from tests.support.queue import a_job
from tidemill.api.bootstrap import make_first_admin
from tidemill.api.settings import ApiSettings
from tidemill.api.users.passwords import Passwords
from tidemill.chassis.database import Database
from tidemill.shared.catalog import Service


async def log_in(client: Client, email: str, password: str, **how: Any) -> Any:
    return await client.post("/auth/login", {"email": email, "password": password}, **how)


async def test_the_first_admin_logs_in_with_the_password_from_the_file(api: Api) -> None:
    assert stat.S_IMODE((api.home / "admin-password").stat().st_mode) == 0o600
    answer = await log_in(api.nobody, " Admin@Tidemill.local", api.password)
    assert (answer.status, answer.content_type) == (200, "text/plain")
    me = await api.nobody.with_token(answer.text).get("/users/whoami")
    assert me.json == {
        "email": ADMIN_EMAIL,
        "login_type": "password",
        "super_admin": True,
        "verified": True,
        "first_time_user": False,
        "role_source": "manual",
        "disabled": False,
    }
    cookie = answer.headers["Set-Cookie"]
    assert f"token={answer.text}" in cookie
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert (await api.audited(operation="users.login", email=ADMIN_EMAIL))[-1]["workspace_id"] == ""


@pytest.mark.parametrize(("email", "password"), [(ADMIN_EMAIL, "wrong"), ("nobody@example.com", "wrong")])
async def test_a_wrong_login_tells_nothing_and_is_audited(api: Api, email: str, password: str) -> None:
    answer = await log_in(api.nobody, email, password)
    assert (answer.status, answer.text) == (401, "The email or the password is wrong.")
    assert await api.audited(operation="users.login_failure", email=email)


async def test_somebody_disabled_can_not_log_in_and_their_tokens_end(api: Api) -> None:
    passwords = Passwords()
    ann = await api.person("ann", workspace="starter", password_hash=await passwords.hash("secret"))
    passwords.close()
    assert (await log_in(api.nobody, ann.email, "secret")).status == 200
    assert (await ann.get("/users/whoami")).status == 200
    await api.look.execute("UPDATE platform.person SET disabled = true WHERE email = $1", ann.email)
    assert (await log_in(api.nobody, ann.email, "secret")).status == 401
    assert (await ann.get("/users/whoami")).status == 401


async def test_a_member_disabled_in_one_workspace_is_out_of_it_only(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    await api.look.execute("UPDATE platform.member SET disabled = true WHERE email = $1", ann.email)
    assert (await ann.get("/w/starter/users/whoami")).status == 403
    assert (await ann.get("/users/whoami")).status == 200


async def test_guessing_is_slowed_down_for_that_account_alone(api: Api) -> None:
    answers = await asyncio.gather(*(log_in(api.nobody, "guessed@example.com", str(each)) for each in range(14)))
    assert sorted({each.status for each in answers}) == [401, 429]
    refused = next(each for each in answers if each.status == 429)
    assert 1 <= int(refused.headers["Retry-After"]) <= 300
    assert (await log_in(api.nobody, ADMIN_EMAIL, api.password)).status == 200


async def test_another_site_can_not_log_somebody_in(api: Api) -> None:
    answer = await log_in(api.nobody, ADMIN_EMAIL, api.password, headers={"Origin": "https://evil.example.com"})
    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


async def test_logging_out_ends_the_session_at_once(api: Api) -> None:
    token = (await log_in(api.nobody, ADMIN_EMAIL, api.password)).text
    answer = await api.nobody.post("/auth/logout", headers={"Cookie": f"token={token}"})
    assert answer.status == 200
    assert 'token=""' in answer.headers["Set-Cookie"]
    assert (await api.nobody.with_token(token).get("/users/whoami")).status == 401
    assert await api.audited(operation="users.logout", email=ADMIN_EMAIL)


@pytest.mark.parametrize("way", ["bearer", "cookie", "query"])
async def test_a_token_travels_in_three_ways(api: Api, way: str) -> None:
    ann = await api.person("ann")
    match way:
        case "bearer":
            answer = await api.nobody.get("/users/whoami", headers={"Authorization": f"Bearer {ann.token} "})
        case "cookie":
            answer = await api.nobody.get("/users/whoami", headers={"Cookie": f"token={ann.token}"})
        case _:
            answer = await api.nobody.get(f"/users/whoami?token={ann.token}")
    assert answer.json["email"] == ann.email


@pytest.mark.parametrize(
    "token",
    ["nonsense", "a" * 43, "tmj_1_" + "0" * 32 + "_" + "0" * 64, "tmj_", "x" * 5000, "%00", "tmj_%00", "%ff", "jwt_x"],
)
async def test_what_is_no_token_of_ours_lets_nobody_in(api: Api, token: str) -> None:
    assert (await api.nobody.get(f"/users/whoami?token={token}")).status == 401


async def test_a_token_is_made_listed_used_and_revoked(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    made = await ann.post("/users/tokens/create", {"label": "ci", "expiration": until})
    assert (made.status, made.content_type) == (201, "text/plain")
    ci = ann.with_token(made.text)
    assert (await ci.get("/users/whoami")).status == 200

    (listed,) = [
        each for each in (await ann.get("/users/tokens/list?exclude_ephemeral=true")).json if each.get("label")
    ]
    assert listed["token_prefix"] == made.text[:10]
    assert listed["label"] == "ci"
    assert listed["read_only"] is False
    assert "workspace_id" not in listed
    assert made.text not in str(listed)

    assert (await ann.delete(f"/users/tokens/delete/{made.text[:10]}")).status == 200
    assert (await ci.get("/users/whoami")).status == 401
    assert (await ann.delete(f"/users/tokens/delete/{made.text[:10]}")).status == 404
    assert [each["operation"] for each in await api.audited(email=ann.email, resource=made.text[:10])] == [
        "users.token.create",
        "users.token.delete",
    ]


async def test_nobody_revokes_somebody_elses_token(api: Api) -> None:
    ann, bob = await api.person("ann"), await api.person("bob")
    assert (await bob.delete(f"/users/tokens/delete/{ann.token[:10]}")).status == 404
    assert (await ann.get("/users/whoami")).status == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"scopes": ["jobs:fly"]}, "'jobs:fly' names no action"),
        ({"scopes": ["if_jobs:filter_tags:"]}, "names no tag"),
        ({"expiration": "2001-01-01T00:00:00Z"}, "in the past"),
        ({"expiration": "tomorrow"}, "The field expiration"),
        ({"workspace_id": "elsewhere"}, "The field workspace_id"),
        ({"read_only": "yes"}, "The field read_only"),
    ],
)
async def test_a_token_that_can_not_be_made_as_asked_is_not_made(api: Api, body: dict[str, Any], says: str) -> None:
    ann = await api.person("ann", workspace="starter")
    answer = await ann.post("/users/tokens/create", body)
    assert answer.status == 422
    assert says in answer.text
    assert len((await ann.get("/users/tokens/list")).json) == 1


async def test_an_expired_token_is_over(api: Api) -> None:
    ann = await api.person("ann")
    over = ann.with_token(await api.token_for(ann.email, expires_in="-1 second"))
    assert (await over.get("/users/whoami")).status == 401
    assert len((await ann.get("/users/tokens/list")).json) == 1


async def test_a_read_only_token_reads_and_nothing_else(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    token = (await ann.post("/users/tokens/create", {"read_only": True})).text
    reader = ann.with_token(token)
    assert (await reader.get("/w/starter/users/whoami")).status == 200
    assert (await reader.post("/users/tokens/create", {})).status == 403
    assert (await reader.delete(f"/users/tokens/delete/{token[:10]}")).status == 403


async def test_a_token_for_one_workspace_works_only_there(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    other = await api.workspace()
    await api.look.execute(
        "INSERT INTO platform.member (workspace_id, username, email) VALUES ($1, 'ann', $2)", other, ann.email
    )
    bound = ann.with_token((await ann.post("/users/tokens/create", {"workspace_id": "starter"})).text)
    assert (await bound.get("/w/starter/users/whoami")).status == 200
    assert (await bound.get(f"/w/{other}/users/whoami")).status == 403
    # The CLI then asks within the workspace.
    assert (await bound.get("/users/whoami")).status == 401


async def test_whoami_in_a_workspace_has_all_that_strict_clients_need(api: Api) -> None:
    ann = await api.person("ann", workspace="starter", operator=True)
    me = (await ann.get("/w/starter/users/whoami")).json
    assert datetime.fromisoformat(me.pop("created_at")).tzinfo is not None
    assert me == {
        "email": ann.email,
        "username": ann.username,
        "is_admin": False,
        "is_super_admin": False,
        "operator": True,
        "disabled": False,
        "groups": ["all"],
        "folders": [],
        "folders_read": [],
        "folders_owners": [],
    }


async def test_a_superadmin_looks_into_a_workspace_from_outside(api: Api) -> None:
    admin = await api.admin()
    workspace = await api.workspace()
    me = (await admin.get(f"/w/{workspace}/users/whoami")).json
    assert (me["username"], me["is_admin"], me["non_member"]) == (ADMIN_EMAIL, True, True)
    assert (await admin.get("/w/nowhere/users/whoami")).status == 404


async def test_a_username_leads_to_an_email(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    answer = await ann.get(f"/w/starter/users/username_to_email/{ann.username}")
    assert (answer.text, answer.content_type) == (ann.email, "text/plain")
    assert (await ann.get("/w/starter/users/username_to_email/nobody")).status == 404


async def a_job_of(api: Api, who: Client, workspace: str, *, is_admin: bool = False) -> tuple[Client, Any]:
    """Return a running job of somebody as a client with the job's token, and its claim."""
    tag = f"t{uuid.uuid4().hex}"
    await api.queue.start_worker(tag, run=uuid.uuid4())
    rights = {"username": who.username, "is_admin": is_admin, "operator": False}
    await api.queue.request(
        a_job(
            workspace_id=workspace,
            tag=tag,
            email=who.email,
            permissioned_as=f"u/{who.username}",
            permissions=rights,
            created_by=who.username,
        )
    )
    claim = await api.queue.claimed(tag)
    return who.with_token(claim.row["token"]), claim


async def test_a_job_asks_as_the_one_it_runs_for_until_it_ends(api: Api) -> None:
    admin = await api.admin()
    job, claim = await a_job_of(api, admin, "starter", is_admin=True)
    me = (await job.get("/users/whoami")).json
    assert (me["email"], me["super_admin"]) == (ADMIN_EMAIL, False)
    here = (await job.get("/w/starter/users/whoami")).json
    assert (here["username"], here["is_admin"], here["is_super_admin"]) == ("admin", True, False)
    assert (await job.get("/w/admins/users/whoami")).status == 403
    assert (await job.post("/workspaces/create", {"id": "mine", "name": "mine"})).status == 403
    assert [each["id"] for each in (await job.get("/workspaces/list")).json] == ["starter"]
    await api.queue.finish(claim)
    assert (await job.get("/users/whoami")).status == 401


async def test_a_job_makes_no_token_that_reaches_further_than_itself(api: Api) -> None:
    admin = await api.admin()
    job, _ = await a_job_of(api, admin, "starter")
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert (await job.post("/users/tokens/create", {})).status == 422
    assert (await job.post("/users/tokens/create", {"expiration": until, "workspace_id": "admins"})).status == 403
    made = await job.post("/users/tokens/create", {"expiration": until})
    assert made.status == 201
    assert (await admin.with_token(made.text).get("/w/starter/users/whoami")).status == 200
    assert (await admin.with_token(made.text).get("/w/admins/users/whoami")).status == 403
    assert [each["token_prefix"] for each in (await job.get("/users/tokens/list")).json] == [made.text[:10]]
    assert (await job.delete(f"/users/tokens/delete/{admin.token[:10]}")).status == 404


async def a_preview_of(api: Api, who: Client, tag: str | None = None) -> Client:
    """Return a preview that was asked for over HTTP and runs, as a client with the job's token."""
    tag = tag or f"t{uuid.uuid4().hex}"
    await api.queue.start_worker(tag, run=uuid.uuid4())
    asked = {"language": "python3", "content": "def main(): ...", "args": {}, "tag": tag}
    answer = await who.post("/w/starter/jobs/run/preview", asked)
    assert answer.status == 201, answer.text
    return who.with_token((await api.queue.claimed(tag)).row["token"])


async def limited(who: Client, *scopes: str, ends: datetime | None = None) -> Client:
    """Return somebody as a client with a token of less than they may do."""
    made = await who.post(
        "/users/tokens/create",
        {"scopes": list(scopes) or None, "expiration": None if ends is None else ends.isoformat()},
    )
    assert made.status == 201, made.text
    return who.with_token(made.text)


async def test_a_job_of_a_token_with_scopes_is_limited_as_the_token_is(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    job = await a_preview_of(api, await limited(ann, "jobs:run", "users:read"))
    assert (await job.get("/w/starter/users/whoami")).status == 200
    assert (await job.get("/w/starter/scripts/list")).status == 403
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert (await job.post("/users/tokens/create", {"expiration": until})).status == 403
    # And so is what that job asks for itself.
    child = await a_preview_of(api, job)
    assert (await child.get("/w/starter/scripts/list")).status == 403
    whole = await a_preview_of(api, ann)
    assert (await whole.get("/w/starter/scripts/list")).status == 200


async def test_a_job_of_a_token_for_some_tags_knows_only_jobs_of_these(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    tag = f"t{uuid.uuid4().hex}"
    job = await a_preview_of(api, await limited(ann, f"if_jobs:filter_tags:{tag}"), tag)
    asked = {"language": "python3", "content": "def main(): ...", "args": {}, "tag": "python3"}
    assert (await job.post("/w/starter/jobs/run/preview", asked)).status == 403
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert (await job.post("/users/tokens/create", {"expiration": until})).status == 403


async def test_a_job_makes_no_token_that_lasts_longer_than_the_one_it_was_requested_with(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    end = datetime.now(UTC) + timedelta(days=1)
    job = await a_preview_of(api, await limited(ann, ends=end))
    longer, shorter = (end + timedelta(days=1)).isoformat(), (end - timedelta(hours=1)).isoformat()
    assert (await job.post("/users/tokens/create", {"expiration": longer})).status == 403
    assert (await job.post("/users/tokens/create", {"expiration": shorter})).status == 201


async def test_a_job_of_somebody_disabled_is_refused(api: Api) -> None:
    ann = await api.person("ann", workspace="starter")
    job, _ = await a_job_of(api, ann, "starter")
    assert (await job.get("/users/whoami")).status == 200
    await api.look.execute("UPDATE platform.person SET disabled = true WHERE email = $1", ann.email)
    assert (await job.get("/users/whoami")).status == 401


async def test_when_a_token_was_used_is_written_down_at_the_end(
    own_database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    async with an_api(own_database_urls, tmp_path) as api:
        ann = await api.person("ann")
        await api.look.execute("UPDATE platform.token SET last_used_at = '2001-01-01' WHERE email = $1", ann.email)
        await ann.get("/users/whoami")
    async with an_api(own_database_urls, tmp_path) as api:
        used = await api.look.fetchval("SELECT last_used_at FROM platform.token WHERE email = $1", ann.email)
        assert used > datetime(2020, 1, 1, tzinfo=UTC)


async def test_several_first_starts_at_once_make_one_admin(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    passwords = Passwords()
    async with Database(own_database_urls[Service.API], name="api") as database:
        made = await asyncio.gather(*(make_first_admin(database, passwords, ApiSettings(), tmp_path) for _ in range(5)))
        assert [each.email for each in made if each] == [ADMIN_EMAIL]
        assert await make_first_admin(database, passwords, ApiSettings(), tmp_path) is None
        stored = await database.fetchval("SELECT password_hash FROM platform.person")
        assert await passwords.verify(stored, (tmp_path / "admin-password").read_text().strip())
        rows = await database.fetch("SELECT workspace_id, username, is_admin FROM platform.member ORDER BY 1")
        assert [tuple(row) for row in rows] == [("admins", "admin", True), ("starter", "admin", True)]
    passwords.close()


async def test_a_first_start_that_died_half_way_is_taken_up_again(
    own_database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    (tmp_path / "admin-password").write_text("left-behind\n")
    passwords = Passwords()
    async with Database(own_database_urls[Service.API], name="api") as database:
        await make_first_admin(database, passwords, ApiSettings(), tmp_path)
        stored = await database.fetchval("SELECT password_hash FROM platform.person")
        assert await passwords.verify(stored, "left-behind")
    passwords.close()


async def test_a_given_password_is_used_and_not_written_down(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    settings = {"TIDEMILL_ADMIN_EMAIL": "Root@Example.com", "TIDEMILL_ADMIN_PASSWORD": "correct horse"}
    async with an_api(own_database_urls, tmp_path, settings) as api:
        assert (await log_in(api.nobody, "root@example.com", "correct horse")).status == 200
    assert not (tmp_path / "admin-password").exists()
