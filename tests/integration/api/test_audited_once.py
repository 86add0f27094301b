"""Whatever changes or runs something leaves exactly one audit entry, and what only reads none: for every route."""

from collections.abc import AsyncIterator, Sequence

import pytest

from tests.integration.api.ground import Ground, a_ground, good_request, succeed
from tests.support.database import DatabaseUrls
from tests.support.waiting import eventually
from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.route import Route
from tidemill.api.users import guessing, passwords


@pytest.fixture(scope="module")
async def ground(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    settings = {"TIDEMILL_WAIT_RESULT_TIMEOUT": "60s"}
    async with a_ground(database_urls, tmp_path_factory.mktemp("home"), settings) as ground:
        yield ground


async def settled(ground: Ground) -> int:
    """Return the newest entry's number once all that was said is written down: only then its row is forgotten."""
    look = ground.api.look
    await eventually(lambda: look.fetchval("SELECT count(*) = 0 FROM bus.outbox WHERE key LIKE 'audit.%'"), 60)
    return int(await look.fetchval("SELECT coalesce(max(id), 0) FROM audit.entry"))


async def said_since(ground: Ground, before: int) -> Sequence[str]:
    await settled(ground)
    rows = await ground.api.look.fetch("SELECT operation FROM audit.entry WHERE id > $1", before)
    return [row["operation"] for row in rows]


@pytest.mark.parametrize("route", OWN_ROUTES, ids=lambda route: route.name)
async def test_a_route_that_changes_something_says_so_once_and_no_other_says_anything(
    ground: Ground, route: Route
) -> None:
    plot, good = await good_request(ground, route)
    before = await settled(ground)
    await succeed(plot, route, good)
    assert await said_since(ground, before) == ([] if route.audited is None else [route.audited])


async def test_a_refused_login_is_said_once(ground: Ground) -> None:
    for email in (ground.shared.someone.email, "nobody@example.com"):
        before = await settled(ground)
        refused = await ground.api.nobody.post("/auth/login", {"email": email, "password": "wrong"})
        assert refused.status == 401
        assert await said_since(ground, before) == ["users.login_failure"]


async def test_logins_that_are_not_even_looked_at_are_said_once_for_the_limit_that_refuses_them(ground: Ground) -> None:
    """Exactly one entry, or whoever floods the login fills the log with what tells nothing new."""
    wrong = {"email": ground.shared.someone.email, "password": "wrong"}
    while (await ground.api.nobody.post("/auth/login", wrong)).status == 401:
        pass
    assert (await ground.api.nobody.post("/auth/login", wrong)).status == 429
    await settled(ground)
    said = await ground.api.look.fetch(
        "SELECT parameters->>'reason' AS reason FROM audit.entry WHERE email = $1 AND operation = $2 ORDER BY id",
        wrong["email"],
        "users.login_failure",
    )
    assert [row["reason"] for row in said] == [
        *["wrong email or password"] * guessing.PER_ACCOUNT_AND_ADDRESS,
        "too many failed logins",
    ]


async def test_a_login_that_finds_too_many_others_is_said_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_LONGEST_LINE", 0)
    before = await settled(ground)
    refused = await ground.api.nobody.post("/auth/login", {"email": "hurried@example.com", "password": "any"})
    assert refused.status == 429
    assert await said_since(ground, before) == ["users.login_failure"]
