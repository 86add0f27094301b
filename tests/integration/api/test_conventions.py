"""What holds for every request, whoever answers it: through real HTTP."""

import asyncio
import json
import logging
import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.integration.api.conftest import Api, Client, an_api
from tests.support.database import DatabaseUrls
from tidemill.api import app as app_module
from tidemill.api.app import OWN_ROUTES, serving
from tidemill.api.context import ApiContext
from tidemill.api.http.answer import text
from tidemill.api.http.openapi import Document
from tidemill.api.http.route import NEEDS_NO_LOGIN, Call, Policy, Route, Who, answers_text
from tidemill.api.settings import ApiSettings
from tidemill.chassis.errors import DatabaseUnavailable, StartRefused

OUTSIDERS = ("outsider", "admin elsewhere", "disabled here")
SCOPED = ("scoped to this", "scoped to else")
ROLES = (
    *("nobody", "disabled", "operator", "developer", "admin", "superadmin", "reader", "bound elsewhere"),
    *OUTSIDERS,
    *SCOPED,
)
MAY: dict[Who, set[str]] = {
    Who.ANYONE: set(ROLES),
    Who.HOLDER: set(ROLES),
    Who.PERSON: {*OUTSIDERS, "operator", "developer", "admin", "superadmin", "reader", "scoped to this"},
    Who.MEMBER: {"operator", "developer", "admin", "superadmin", "reader", "scoped to this"},
    Who.DEVELOPER: {"developer", "admin", "superadmin", "reader", "scoped to this"},
    Who.ADMIN: {"admin", "superadmin", "scoped to this"},
    Who.SUPERADMIN: {"superadmin", "scoped to this"},
    Who.JOB: set(),
}


PEOPLE: dict[str, dict[str, Any]] = {
    "operator": {"operator": True},
    "admin": {"is_admin": True},
    "disabled here": {"is_admin": True},
    "disabled": {"is_admin": True, "super_admin": True},
    "superadmin": {"super_admin": True},
    "scoped to this": {"super_admin": True},
    "scoped to else": {"super_admin": True},
}
DISABLE = {
    "disabled here": "UPDATE platform.member SET disabled = true WHERE email = $1",
    "disabled": "UPDATE platform.person SET disabled = true WHERE email = $1",
}
NO_MEMBERS = ("outsider", "superadmin", *SCOPED)


async def somebody(api: Api, role: str, workspace: str, policy: Policy) -> Client:
    """Return a client of that role with a token that is theirs alone."""
    if role == "nobody":
        return api.nobody
    if role == "admin elsewhere":
        return await api.person("adm", workspace=await api.workspace(), is_admin=True)
    home = None if role in NO_MEMBERS else workspace
    person = await api.person("some", workspace=home, **PEOPLE.get(role, {}))
    if role in DISABLE:
        await api.look.execute(DISABLE[role], person.email)
    limits: dict[str, dict[str, Any]] = {
        "reader": {"read_only": True},
        "bound elsewhere": {"workspace": "starter"},
        "scoped to this": {"scopes": [f"{policy.domain}:{policy.action}"]},
        "scoped to else": {"scopes": ["favorites:*", "drafts:read"]},
    }
    return person.with_token(await api.token_for(person.email, **limits[role])) if role in limits else person


DOCUMENT = Document(OWN_ROUTES).tree


def documented(route: Route) -> set[str]:
    """Return the statuses that the OpenAPI document names, but for those that say that we failed."""
    operation = DOCUMENT["paths"][route.path.replace("...}", "}")][route.method.lower()]
    return {status for status in operation["responses"] if status < "500"}


def a_path(route: Route, workspace: str) -> str:
    """Return a path of the route on which there is nothing."""
    filled = route.path.replace("{workspace}", workspace)
    return re.sub(r"\{[a-z_]+(\.\.\.)?\}", f"00000000-0000-7000-8000-{secrets.token_hex(6)}", filled)


def may(route: Route, role: str) -> bool:
    if role not in MAY[route.policy.who] or (role == "scoped to this" and route.in_person):
        return False
    return (
        role != "reader"
        or route.policy.who in NEEDS_NO_LOGIN
        or (route.policy.action == "read" and route.method == "GET")
    )


@pytest.mark.parametrize("route", OWN_ROUTES, ids=lambda route: route.name)
async def test_a5_every_route_lets_in_exactly_whom_its_policy_names(api: Api, route: Route) -> None:
    async def status(role: str) -> int:
        # One of their own, because what they may do includes to close it.
        workspace = await api.workspace()
        who = await somebody(api, role, workspace, route.policy)
        body: Any = {} if route.method == "POST" else None
        if route.path == "/users/tokens/create" and role in SCOPED:
            # To ask for no scopes is to ask for more than it has.
            body = {"scopes": ["users:write"]}
        return (await who.call(route.method, a_path(route, workspace), body)).status

    statuses = dict(zip(ROLES, await asyncio.gather(*(status(role) for role in ROLES)), strict=True))
    let_in = {role for role, each in statuses.items() if each not in (401, 403)}
    assert let_in == {role for role in ROLES if may(route, role)}, statuses
    if route.policy.who not in NEEDS_NO_LOGIN:
        assert (statuses["nobody"], statuses["disabled"]) == (401, 401)
    assert {str(each) for each in statuses.values()} <= documented(route), statuses


OPEN_TO_ALL = {"GET /version", "POST /auth/login", "GET /openapi.yaml", "GET /openapi.json"}
BY_A_SIGNATURE = {
    f"{route.method} {route.path.replace('...', '')}" for route in OWN_ROUTES if route.policy.who is Who.HOLDER
}


async def test_a3_whatever_the_document_names_wants_a_token_except_a_known_few(api: Api) -> None:
    paths = (await api.nobody.get("/openapi.json")).json["paths"]
    answered = {}
    for path, methods in paths.items():
        filled = re.sub(r"\{[a-z_]+\}", "x", path)
        for method in methods:
            answer = await api.nobody.call(method.upper(), filled, {} if method != "get" else None)
            answered[f"{method.upper()} {path}"] = answer.status
    assert len(answered) == len(OWN_ROUTES)
    assert {name for name, status in answered.items() if status != 401} == OPEN_TO_ALL | BY_A_SIGNATURE


TRICKS = [
    "/workspaces/list_as_superadmin/",
    "//workspaces/list_as_superadmin",
    "/workspaces//list_as_superadmin",
    "/workspaces/list_as_superadmin;x=1",
    "/workspaces/list_as_superadmin.",
    "/workspaces/list_as_superadmin%00",
    "/workspaces/list_as_superadmin%20",
    "/Workspaces/list_as_superadmin",
    "/WORKSPACES/LIST_AS_SUPERADMIN",
    "/version/../workspaces/list_as_superadmin",
    "/version/%2e%2e/workspaces/list_as_superadmin",
    "/version/..%2fworkspaces/list_as_superadmin",
    "/version%2f..%2fworkspaces%2flist_as_superadmin",
    "/..;/workspaces/list_as_superadmin",
    "/workspaces%2flist_as_superadmin",
    "/workspaces%5clist_as_superadmin",
    "/workspaces/list_as_superadmin/configs",
    "/workspaces/%6c%69%73%74_as_superadmin",
    "/workspaces/%256c%2569%2573%2574_as_superadmin",
]


@pytest.mark.parametrize("path", TRICKS)
async def test_a4_no_spelling_of_a_path_gets_around_its_policy(api: Api, path: str) -> None:
    for who in (api.nobody, await api.person("ann", workspace="starter")):
        answer = await who.get(path)
        assert answer.status in (400, 401, 403, 404), answer.text
        assert answer.content_type == "text/plain"
        assert "admins" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"X-HTTP-Method-Override": "GET"},
        {"X-Method-Override": "GET"},
        {"X-Original-URL": "/api/version"},
        {"X-Rewrite-URL": "/api/version"},
        {"X-Forwarded-Prefix": "/api/version"},
        {"Authorization": "Basic YWRtaW46YWRtaW4="},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-User": "admin@tidemill.local"},
    ],
)
async def test_a4_no_header_gets_around_a_policy(api: Api, headers: dict[str, str]) -> None:
    assert (await api.nobody.get("/workspaces/list_as_superadmin", headers=headers)).status == 401
    assert (await api.nobody.post("/version", headers=headers)).status == 405


async def test_the_version_needs_no_login(api: Api) -> None:
    answer = await api.nobody.get("/version")
    assert (answer.status, answer.content_type, answer.text) == (200, "text/plain", "CE v1.850.0")
    assert answer.headers["Tidemill-Version"].startswith("Tidemill ")
    # A browser's stale cookie must not get in the way either.
    assert (await api.nobody.get("/version", headers={"Cookie": "token=stale"})).status == 200


@pytest.mark.parametrize("path", ["/nothing", "/w/starter/apps/list", "/w/starter/nothing/at/all", "/users", "/"])
async def test_an_unknown_path_is_a_plain_404_and_never_html(api: Api, path: str) -> None:
    answer = await (await api.admin()).get(path, headers={"Accept": "text/html"})
    assert (answer.status, answer.content_type) == (404, "text/plain")
    assert answer.text.endswith(".")
    assert "<" not in answer.text


async def test_a_known_path_with_another_method_is_a_405(api: Api) -> None:
    answer = await api.nobody.call("PATCH", "/users/whoami")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_head_is_get_without_a_body(api: Api) -> None:
    ann = await api.person("ann")
    answer = await ann.call("HEAD", "/users/whoami")
    assert (answer.status, answer.text, answer.content_type) == (200, "", "application/json")


@pytest.mark.parametrize("path", ["/version", "/nothing", "/users/whoami", "/openapi.json"])
async def test_every_answer_leads_to_its_trace_and_is_not_guessed_at(api: Api, path: str) -> None:
    answer = await api.nobody.get(path)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["Tidemill-Trace-Id"])
    assert answer.headers["traceparent"].split("-")[1] == answer.headers["Tidemill-Trace-Id"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "aiohttp" not in answer.headers["Server"].lower()


async def test_a_callers_trace_goes_on(api: Api) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await api.nobody.get("/version", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    assert answer.headers["Tidemill-Trace-Id"] == trace
    broken = await api.nobody.get("/version", headers={"traceparent": "00-zz-1-01"})
    assert re.fullmatch(r"[0-9a-f]{32}", broken.headers["Tidemill-Trace-Id"])


async def test_the_python_sdks_content_type_without_a_body_is_fine(api: Api) -> None:
    ann = await api.person("ann")
    answer = await ann.get("/users/whoami", headers={"Content-Type": "application/json"})
    assert answer.status == 200
    assert (await ann.post("/auth/logout", headers={"Content-Type": "application/json"})).status == 200


async def test_unknown_fields_are_accepted_and_named(api: Api) -> None:
    ann = await api.person("ann")
    answer = await ann.post("/workspaces/exists?also=1", {"id": "starter", "new field\r\n": 1, "other": None})
    assert answer.json is True
    assert answer.headers["Tidemill-Ignored"] == "also, new%20field%0D%0A, other"


async def test_strict_refuses_them(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    async with an_api(own_database_urls, tmp_path, {"TIDEMILL_STRICT": "1"}) as strict:
        ann = await strict.person("ann")
        answer = await ann.post("/workspaces/exists", {"id": "starter", "other": 1})
        assert (answer.status, answer.text) == (422, "The field other is not known.")
        assert (await ann.get("/users/whoami?x=1")).status == 400


async def test_a_body_beyond_the_limit_is_not_read(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    async with an_api(own_database_urls, tmp_path, {"TIDEMILL_REQUEST_BYTES": "2000"}) as small:
        ann = await small.person("ann")
        fits = json.dumps({"id": "x" * 1900})
        assert (await ann.post("/workspaces/exists", data=fits)).status == 200
        declared = await ann.post("/workspaces/exists", data=json.dumps({"id": "x" * 2000}))
        assert (declared.status, declared.text) == (413, "The body is larger than 2000 bytes.")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 1000

        chunked = await ann.post("/workspaces/exists", data=chunks())
        assert chunked.status == 413


async def test_an_encoded_body_is_not_unfolded(api: Api) -> None:
    ann = await api.person("ann")
    answer = await ann.post("/workspaces/exists", data=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status == 415


async def test_a_cookie_alone_needs_our_own_page_or_a_program(api: Api) -> None:
    ann = await api.person("ann")

    async def status(headers: dict[str, str]) -> int:
        sent = {"Cookie": f"token={ann.token}", **headers}
        return (await api.nobody.post("/users/tokens/create", {}, headers=sent)).status

    # The CLI asks for locks with nothing but the cookie.
    assert await status({}) == 201
    assert await status({"Origin": api.url}) == 201
    assert await status({"Sec-Fetch-Site": "same-origin"}) == 201
    assert await status({"Origin": "https://evil.example.com"}) == 403
    assert await status({"Sec-Fetch-Site": "cross-site"}) == 403
    # A token that was sent on purpose is no forgery.
    assert await status({"Authorization": f"Bearer {ann.token}", "Origin": "https://elsewhere.example.com"}) == 201


async def test_a_request_is_logged_once_without_its_token(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    ann = await api.person("ann", workspace="starter")
    with caplog.at_level(logging.INFO):
        await api.nobody.get(f"/w/starter/users/whoami?token={ann.token}")
    (record,) = [each for each in caplog.records if each.message == "request"]
    assert record.__dict__["status"] == 200
    assert record.__dict__["route"] == "GET /w/{workspace}/users/whoami"
    assert record.__dict__["username"] == ann.username
    assert record.__dict__["ms"] >= 0
    assert ann.token not in str([each.__dict__ for each in caplog.records])


async def test_requests_are_counted_by_route(api: Api) -> None:
    await api.nobody.get("/version")
    async with api.session.get(f"{api.url}/metrics") as answer:
        assert answer.status == 200
        assert 'route="GET /version"' in await answer.text()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_is_asked_without_a_login(api: Api, path: str) -> None:
    async with api.session.get(f"{api.url}{path}") as answer:
        assert answer.status == 200, await answer.text()


async def test_the_document_is_served_both_ways(api: Api) -> None:
    as_yaml = await api.nobody.get("/openapi.yaml")
    assert (as_yaml.status, as_yaml.content_type) == (200, "application/yaml")
    assert as_yaml.text.startswith("openapi: 3.1.0\n")
    assert (await api.nobody.get("/openapi.json")).json["openapi"] == "3.1.0"


def a_route(path: str, handler: object, **more: object) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,  # type: ignore[arg-type]  # each is a coroutine function of a Call
        policy=Policy("settings", "read", Who.ANYONE),
        summary="",
        answers={200: answers_text("")},
        **more,  # type: ignore[arg-type]  # keywords of Route
    )


async def hello(_: Call) -> web.Response:
    return text("hello")


async def broken(_: Call) -> web.Response:
    raise RuntimeError("a secret detail")


async def without_database(_: Call) -> web.Response:
    raise DatabaseUnavailable("10.0.0.1 refuses")


async def unstorable(call: Call) -> web.Response:
    return text(await call.ctx.database.fetchval("SELECT $1::text", "a\0b"))


async def in_the_way_of_others(call: Call) -> web.Response:
    lock = "SELECT pg_advisory_xact_lock($1)"
    async with call.ctx.database.transaction() as one, call.ctx.database.transaction() as other:
        await one.execute(lock, 70_001)
        await other.execute(lock, 70_002)
        ends = await asyncio.gather(one.execute(lock, 70_002), other.execute(lock, 70_001), return_exceptions=True)
        (error,) = [each for each in ends if each is not None]
        raise error


TOYS = (
    a_route("/toys/hello", hello),
    a_route("/toys/broken", broken),
    a_route("/toys/without_database", without_database),
    a_route("/toys/unstorable", unstorable),
    a_route("/toys/in_the_way_of_others", in_the_way_of_others),
    a_route("/toys/ours", hello, ours=True),
)


@pytest.fixture(scope="module")
async def toys(api: Api, tmp_path_factory: pytest.TempPathFactory, databases: object) -> AsyncIterator[Client]:
    """The same api, after an extension with a few routes has been installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app_module, "load", lambda group, kind: [TOYS])
        async with an_api(api.urls, tmp_path_factory.mktemp("toys")) as other:
            yield other.nobody


async def test_an_extension_adds_routes_under_the_same_rules(toys: Client) -> None:
    answer = await toys.get("/toys/hello")
    assert (answer.status, answer.text) == (200, "hello")
    assert answer.headers["Tidemill-Trace-Id"]
    assert "/toys/hello" in (await toys.get("/openapi.json")).json["paths"]


async def test_a_bug_of_ours_tells_the_trace_and_nothing_else(toys: Client, caplog: pytest.LogCaptureFixture) -> None:
    answer = await toys.get("/toys/broken")
    assert (answer.status, answer.content_type) == (500, "text/plain")
    assert answer.headers["Tidemill-Trace-Id"] in answer.text
    assert "secret detail" not in answer.text
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.__dict__["trace_id"] == answer.headers["Tidemill-Trace-Id"]


async def test_a_database_that_is_away_is_a_503_to_be_tried_again(toys: Client) -> None:
    answer = await toys.get("/toys/without_database")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "10.0.0.1" not in answer.text


async def test_a_deadlock_is_a_503_to_be_tried_again(toys: Client) -> None:
    answer = await toys.get("/toys/in_the_way_of_others")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert "nothing of it was done" in answer.text


async def test_what_no_column_can_hold_is_a_400(toys: Client) -> None:
    assert (await toys.get("/toys/unstorable")).status == 400


async def test_our_own_routes_refuse_what_they_do_not_know(toys: Client) -> None:
    assert (await toys.get("/toys/ours?x=1")).status == 400
    assert (await toys.get("/toys/hello?x=1")).headers["Tidemill-Ignored"] == "x"


async def test_a_port_that_is_taken_refuses_the_start_by_its_name(api: Api, toys: Client) -> None:
    taken = int(api.url.rpartition(":")[2])
    context = ApiContext(
        **dict.fromkeys(ApiContext.__dataclass_fields__)
        | {"settings": ApiSettings(port=taken), "closing": asyncio.Event()}  # type: ignore[arg-type]  # nothing else is asked before the port
    )
    with pytest.raises(StartRefused, match=f"TIDEMILL_PORT={taken} is taken"):
        async with serving(context, TOYS):
            raise AssertionError("it listens twice")
