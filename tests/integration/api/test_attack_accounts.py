"""A24: who exists is told to nobody, and what somebody lost is lost with their next request."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher

from tests.integration.api.conftest import Answer, Api, Client, an_api
from tests.integration.api.test_identity import a_job_of
from tests.integration.api.test_users import an_email, log_in
from tests.support.database import DatabaseUrls
from tidemill.api.users import guessing

_ITS_OWN = {"traceparent", "tidemill-trace-id", "date", "retry-after"}


def told(answer: Answer) -> tuple[Any, ...]:
    """Return all of an answer that could tell one account from another."""
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in _ITS_OWN}
    return answer.status, answer.text, headers


async def test_a24_no_answer_tells_who_exists(
    own_database_urls: DatabaseUrls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A24: unknown, known, disabled or without a password: the same answer, and after too many the same again."""
    monkeypatch.setattr(guessing, "PER_ACCOUNT_AND_ADDRESS", 2)
    async with an_api(own_database_urls, tmp_path) as api:
        await nobody_is_told_apart(api)


async def nobody_is_told_apart(api: Api) -> None:
    admin = await api.admin()
    unknown, known, disabled, without = (an_email() for _ in range(4))
    for email in (known, disabled):
        made = {"email": email, "password": "correct horse", "super_admin": False}
        assert (await admin.post("/users/create", made)).status == 201
    assert (await admin.post("/users/create", {"email": without, "super_admin": False})).status == 201
    assert (await admin.post(f"/users/update/{disabled}", {"disabled": True})).status == 200
    wrong: dict[int, list[tuple[Any, ...]]] = {}
    for email in (unknown, known, disabled, without):
        for attempt in range(guessing.PER_ACCOUNT_AND_ADDRESS + 1):
            # The right password of somebody disabled is no better than a wrong one.
            password = "correct horse" if email == disabled else "wrong"
            wrong.setdefault(attempt, []).append(told(await log_in(api.nobody, email, password)))
    for attempt, answers in wrong.items():
        assert len(answers) == 4
        assert all(each == answers[0] for each in answers), attempt
    assert [answers[0][0] for answers in wrong.values()] == [401] * guessing.PER_ACCOUNT_AND_ADDRESS + [429]


@pytest.mark.parametrize("exists", [True, False])
async def test_a24_every_login_costs_one_look_at_a_password(
    api: Api, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    """A24: the same work for somebody unknown, so that time does not tell who exists."""
    looked: list[str] = []
    real = PasswordHasher.verify

    def verify(hasher: PasswordHasher, stored: str, password: str) -> bool:
        looked.append(password)
        return bool(real(hasher, stored, password))

    monkeypatch.setattr(PasswordHasher, "verify", verify)
    email = an_email()
    if exists:
        made = {"email": email, "password": "correct horse", "super_admin": False}
        assert (await (await api.admin()).post("/users/create", made)).status == 201
    assert (await log_in(api.nobody, email, "wrong")).status == 401
    assert looked == ["wrong"]


async def test_a24_who_is_taken_out_of_a_workspace_is_out_with_their_next_request(api: Api) -> None:
    """A24: a token for everything, a token for the workspace and a job's token, removed and disabled."""
    admin = await api.admin()
    for loses in ("removed", "disabled"):
        workspace = await api.workspace()
        ann = await api.person("ann", workspace=workspace)
        bound = ann.with_token(await api.token_for(ann.email, workspace=workspace))
        job, _ = await a_job_of(api, ann, workspace)
        here = f"/w/{workspace}/users/whoami"
        assert [(await each.get(here)).status for each in (ann, bound, job)] == [200, 200, 200]
        if loses == "removed":
            answer = await admin.delete(f"/w/{workspace}/users/delete/{ann.username}")
        else:
            answer = await admin.post(f"/w/{workspace}/users/update/{ann.username}", {"disabled": True})
        assert answer.status == 200, answer.text
        statuses = [(await each.get(here)).status for each in (ann, bound, job)]
        assert statuses[0] == 403
        assert set(statuses) <= {401, 403}, statuses
        assert (await ann.get("/users/whoami")).status == 200


async def test_a24_a_role_that_was_taken_away_is_gone_with_the_next_request(api: Api) -> None:
    """A24: nothing of what somebody may do is remembered anywhere."""
    admin, workspace = await api.admin(), await api.workspace()
    ann = await api.person("ann", workspace=workspace, is_admin=True)
    pending = f"/w/{workspace}/workspaces/list_pending_invites"
    assert (await ann.get(pending)).status == 200
    assert (await admin.post(f"/w/{workspace}/users/update/{ann.username}", {"is_admin": False})).status == 200
    assert (await ann.get(pending)).status == 403
    run = {"content": "true", "language": "bash", "args": {}}
    assert (await ann.post(f"/w/{workspace}/jobs/run/preview", run)).status == 201
    assert (await admin.post(f"/w/{workspace}/users/update/{ann.username}", {"operator": True})).status == 200
    assert (await ann.post(f"/w/{workspace}/jobs/run/preview", run)).status == 403


async def test_a24_a_revoked_token_is_dead_in_every_way_it_can_be_sent(api: Api) -> None:
    """A24: at once, also as a cookie and in the address, and for tokens that it made."""
    ann = await api.person("ann", workspace="starter")
    token = (await ann.post("/users/tokens/create", {})).text
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    child = (await ann.with_token(token).post("/users/tokens/create", {"expiration": until})).text

    async def ways(token: str) -> list[int]:
        me, nobody = "/users/whoami", api.nobody
        sent: list[Answer] = [
            await nobody.with_token(token).get(me),
            await nobody.get(me, headers={"Cookie": f"token={token}"}),
            await nobody.get(f"{me}?token={token}"),
        ]
        return [each.status for each in sent]

    assert await ways(token) == [200] * 3
    assert (await ann.delete(f"/users/tokens/delete/{token[:10]}")).status == 200
    assert await ways(token) == [401] * 3
    # Its own person made it; whoever only stole the first sees it in the list and revokes it as well.
    listed = {each["token_prefix"] for each in (await ann.get("/users/tokens/list")).json}
    assert child[:10] in listed


async def test_a24_a_password_is_used_up_by_its_successor(api: Api) -> None:
    """A24: the old one lets nobody in, from anywhere, from the moment on that the new one is answered for."""
    admin, email = await api.admin(), an_email()
    first = {"email": email, "password": "correct horse", "super_admin": False}
    assert (await admin.post("/users/create", first)).status == 201
    session = (await log_in(api.nobody, email, "correct horse")).text
    mine = Client(api.session, api.url, session)
    assert (await mine.post("/users/setpassword", {"password": "battery staple"})).status == 200
    assert (await log_in(api.nobody, email, "correct horse")).status == 401
    assert (await log_in(api.nobody, email, "battery staple")).status == 200
