"""Which route a path means: exactly one, or none; nothing is cleaned up on the way."""

import pytest
from aiohttp import web

from tidemill.api.http.errors import BadRequest, HttpError, MethodNotAllowed, NotFound
from tidemill.api.http.match import Paths
from tidemill.api.http.route import Call, Policy, Route, Who, answers_text


async def nothing(_: Call) -> web.StreamResponse:
    return web.Response()


def a_route(path: str, method: str = "GET", who: Who = Who.PERSON) -> Route:
    return Route(
        method=method,  # type: ignore[arg-type]  # a test gives plain text
        path=path,
        handler=nothing,
        policy=Policy("users", "read", who),
        summary="",
        answers={200: answers_text("")},
    )


WHOAMI = a_route("/users/whoami")
PERSON = a_route("/users/{name}")
SCRIPT = a_route("/w/{workspace}/scripts/get/p/{path...}")
RUN = a_route("/w/{workspace}/scripts/get/p/{path...}", "POST")
BY_HASH = a_route("/w/{workspace}/scripts/get/h/{hash}")
PATHS = Paths([WHOAMI, PERSON, SCRIPT, RUN, BY_HASH])


@pytest.mark.parametrize(
    ("raw", "route", "params"),
    [
        ("/users/whoami", WHOAMI, {}),
        ("/users/ann%40example.com", PERSON, {"name": "ann@example.com"}),
        ("/users/Whoami", PERSON, {"name": "Whoami"}),
        ("/users/whoami;x", PERSON, {"name": "whoami;x"}),
        ("/users/whoami.", PERSON, {"name": "whoami."}),
        ("/users/%2577", PERSON, {"name": "%77"}),
        ("/w/demo/scripts/get/p/f/a/b", SCRIPT, {"workspace": "demo", "path": "f/a/b"}),
        ("/w/demo/scripts/get/p/f%2Fa%2Fb", SCRIPT, {"workspace": "demo", "path": "f/a/b"}),
        ("/w/demo/scripts/get/p/f/gr%C3%BC%C3%9Fe/b", SCRIPT, {"workspace": "demo", "path": "f/grüße/b"}),
    ],
)
def test_a_path_means_one_route(raw: str, route: Route, params: dict[str, str]) -> None:
    assert PATHS.find("GET", raw) == (route, params)


@pytest.mark.parametrize(
    "raw",
    [
        "/users",
        "/users/",
        "/users/whoami/",
        "//users/whoami",
        "/users//whoami",
        "/Users/whoami",
        "/users/./whoami",
        "/w/demo/../users/whoami",
        "/w/%2e%2e/users/whoami",
        "/users/a%2Fb",
        "/users/..%5cwhoami",
        "/w/demo/scripts/get/p/f/../x",
        "/w/demo/scripts/get/p/f%2F..%2Fx",
        "/w/demo/scripts/get/p/f//x",
        "/w/demo/scripts/get/p/",
        "/w/demo%2Fscripts/get/p/x",
        "/w/demo/scripts/get/h/a/b",
    ],
)
def test_a_path_that_could_be_read_in_two_ways_means_nothing(raw: str) -> None:
    with pytest.raises(NotFound):
        PATHS.find("GET", raw)


@pytest.mark.parametrize("raw", ["/users/a%00b", "/users/a%0d%0aSet-Cookie:x", "/users/%ff", "/users/%7f"])
def test_control_characters_and_broken_text_are_refused(raw: str) -> None:
    with pytest.raises(BadRequest):
        PATHS.find("GET", raw)


def test_another_method_is_told_which_ones_there_are() -> None:
    with pytest.raises(MethodNotAllowed) as refused:
        PATHS.find("DELETE", "/w/demo/scripts/get/p/f/a")
    assert refused.value.status == 405
    assert refused.value.headers["Allow"] == "GET, HEAD, POST"


def test_head_means_get() -> None:
    assert PATHS.find("HEAD", "/users/whoami")[0] is WHOAMI


def test_a_literal_with_another_method_does_not_hide_a_parameter() -> None:
    special = a_route("/users/special", "POST")
    paths = Paths([special, PERSON])
    assert paths.find("GET", "/users/special")[0] is PERSON
    assert paths.find("POST", "/users/special")[0] is special


def test_the_same_route_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="twice"):
        Paths([PERSON, a_route("/users/{other}")])


def test_every_refusal_has_a_sentence() -> None:
    for raw in ("/nothing", "/users/%00"):
        with pytest.raises(HttpError) as refused:
            PATHS.find("GET", raw)
        assert refused.value.message.endswith(".")
