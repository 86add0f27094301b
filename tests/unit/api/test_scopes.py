"""What a scope means, and that no scope ever reaches further than it says."""

import pytest
from aiohttp import web

from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.route import Call, Policy, Route, Who, answers_text
from tidemill.api.tokens.scopes import NotAScope, Scope, Scopes, Use, parse, scopes_of

HEAD = Use(domain="scripts", action="read", path="f/a/x")
RUN = Use(domain="jobs", action="run", kind="scripts", path="f/a/x")
RUN_BY_HASH = Use(domain="jobs", action="run", kind="scripts")
PREVIEW = Use(domain="jobs", action="run")
FOLLOW = Use(domain="jobs", action="read", kind="scripts", path="f/a/x", follows_job=True)
FOLLOW_PREVIEW = Use(domain="jobs", action="read", follows_job=True)
CANCEL = Use(domain="jobs", action="write", kind="scripts", path="f/a/x")
LIST_JOBS = Use(domain="jobs", action="read")
USES = {
    "head": HEAD,
    "run": RUN,
    "run by hash": RUN_BY_HASH,
    "preview": PREVIEW,
    "follow": FOLLOW,
    "follow a preview": FOLLOW_PREVIEW,
    "cancel": CANCEL,
    "list jobs": LIST_JOBS,
}


def limits(*texts: str) -> Scopes:
    scopes = scopes_of(texts)
    assert scopes is not None
    return scopes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scripts:read", Scope(domain="scripts", action="read")),
        ("users:*", Scope(domain="users", action="*")),
        ("scripts:write:f/a/x,u/ann/*", Scope(domain="scripts", action="write", paths=("f/a/x", "u/ann/*"))),
        ("scripts:read:*", Scope(domain="scripts", action="read")),
        ("jobs:run", Scope(domain="jobs", action="run")),
        ("jobs:run:scripts", Scope(domain="jobs", action="run", kind="scripts")),
        ("jobs:run:flows:f/a/*", Scope(domain="jobs", action="run", kind="flows", paths=("f/a/*",))),
        ("jobs:read:f/a/x", Scope(domain="jobs", action="read", paths=("f/a/x",))),
        ("jobs:run:scripts:*", Scope(domain="jobs", action="run", kind="scripts")),
    ],
)
def test_a_scope_is_taken_apart(text: str, expected: Scope) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "jobs",
        "jobs:",
        "jobs:fly",
        "jobs:execute",
        "Jobs:run",
        "nothing:read",
        "mcp:all",
        "scripts:run",
        "scripts:read:",
        "scripts:read:f/a/",
        "scripts:read:/f/a",
        "scripts:read:f//a",
        "scripts:read:f/*/x",
        "scripts:read:f/a*",
        "scripts:read:f/a/**",
        "scripts:read:f/a/../b",
        "scripts:read:f/a,",
        "scripts:read:f/a b",
        "jobs:run:scripts:",
        "jobs:run:scripts:flows:f/a",
        "if_jobs:filter_tags:gpu",
        "if_jobs:read",
        " jobs:run",
        "jobs:run\n",
        "scripts:read:f/a\n",
        "*:read",
    ],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(NotAScope):
        parse(text)


@pytest.mark.parametrize("texts", [None, (), ("*",), ("jobs:run", "*")])
def test_nothing_and_everything_limit_nothing(texts: tuple[str, ...] | None) -> None:
    assert scopes_of(texts) is None


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("jobs:run:scripts:f/a/x", {"run", "follow"}),
        ("jobs:run:scripts:f/a/*", {"run", "follow"}),
        ("jobs:run:scripts:f/a/x,f/a/y", {"run", "follow"}),
        ("jobs:run:scripts:f/a/y", set()),
        ("jobs:run:scripts:f/a", set()),
        ("jobs:run:scripts:f/a/x/*", set()),
        ("jobs:run:flows:f/a/x", set()),
        ("jobs:run:scripts", {"run", "run by hash", "follow"}),
        ("jobs:run:scripts:*", {"run", "run by hash", "follow"}),
        ("jobs:run", {"run", "run by hash", "preview", "follow", "follow a preview"}),
        ("jobs:read", {"follow", "follow a preview", "list jobs"}),
        ("jobs:read:f/a/x", {"follow"}),
        ("jobs:write", {"cancel", "follow", "follow a preview", "list jobs"}),
        ("jobs:write:scripts:f/a/x", {"cancel", "follow"}),
        ("jobs:*", set(USES) - {"head"}),
        ("scripts:read:f/a/x", {"head"}),
        ("scripts:write:f/*", {"head"}),
        ("scripts:read:f/ab/*", set()),
        ("users:*", set()),
    ],
)
def test_each_scope_allows_this_and_nothing_else(scope: str, allowed: set[str]) -> None:
    assert {name for name, use in USES.items() if limits(scope).allow(use)} == allowed


CHAIN = (
    "jobs:run:scripts:f/a/x",
    "jobs:run:scripts:f/a/*",
    "jobs:run:scripts:f/*",
    "jobs:run:scripts",
    "jobs:run",
    "jobs:*",
)


@pytest.mark.parametrize("at", range(len(CHAIN)))
def test_a_token_contains_what_is_narrower_and_nothing_wider(at: int) -> None:
    own = limits(CHAIN[at])
    assert all(own.contain(limits(each)) for each in CHAIN[: at + 1])
    assert not any(own.contain(limits(each)) for each in CHAIN[at + 1 :])


@pytest.mark.parametrize(
    ("own", "wanted", "contained"),
    [
        (("jobs:run", "scripts:read"), ("scripts:read:f/a/x", "jobs:run:scripts"), True),
        (("jobs:run", "scripts:read"), ("scripts:read", "scripts:write"), False),
        (("scripts:write:f/a/*",), ("scripts:read:f/a/b/*",), True),
        (("scripts:write:f/a/*",), ("scripts:read:f/a/x,f/b/x",), False),
        (("jobs:run:scripts:f/a/x",), ("jobs:read:scripts:f/a/x",), False),
        (("jobs:run:scripts:f/a/x",), ("jobs:run:flows:f/a/x",), False),
        (("jobs:read",), ("jobs:run",), False),
    ],
)
def test_several_scopes_are_weighed_together(own: tuple[str, ...], wanted: tuple[str, ...], contained: bool) -> None:
    assert limits(*own).contain(limits(*wanted)) is contained


def test_what_contains_allows_all_that_is_contained() -> None:
    texts = [*CHAIN, "jobs:read", "jobs:write", "jobs:read:f/a/x", "scripts:read", "scripts:write:f/a/*", "users:*"]
    for own in map(limits, texts):
        for wanted in map(limits, texts):
            if own.contain(wanted):
                assert all(own.allow(use) for use in USES.values() if wanted.allow(use)), (own, wanted)


def test_a_route_with_a_path_in_it_tells_scopes_so() -> None:
    silent = {
        route.name
        for route in OWN_ROUTES
        if not route.resource
        and ("{path...}" in route.path or (route.policy.domain == "jobs" and "{id}" in route.path))
    }
    # Its path may carry a file extension, so that one path can mean another.
    assert silent == {"GET /w/{workspace}/scripts/raw/p/{path...}"}


async def nothing(_: Call) -> web.StreamResponse:
    return web.Response()


@pytest.mark.parametrize("resource", ["{other}", "jobs:{path}", "scripts:{path}/x", "scripts:", "job:", "x"])
def test_a_resource_that_its_route_does_not_have_can_not_be_named(resource: str) -> None:
    with pytest.raises(ValueError, match="is no resource of it"):
        Route(
            method="GET",
            path="/things/{path...}",
            handler=nothing,
            policy=Policy("scripts", "read", Who.PERSON),
            summary="",
            answers={200: answers_text("")},
            resource=resource,
        )


@pytest.mark.parametrize(
    "texts",
    [("if_jobs:filter_tags:",), ("if_jobs:filter_tags:a b",), ("if_jobs:filter_tags:a", "if_jobs:filter_tags:b")],
)
def test_a_filter_of_tags_names_some_once(texts: tuple[str, ...]) -> None:
    with pytest.raises(NotAScope):
        scopes_of(texts)


def test_a_filter_of_tags_narrows_what_is_granted_and_grants_nothing() -> None:
    alone, beside = limits("if_jobs:filter_tags:gpu,cpu"), limits("jobs:read", "if_jobs:filter_tags:gpu")
    assert alone.tags == ("gpu", "cpu")
    assert alone.allow(RUN)
    assert beside.allow(LIST_JOBS)
    assert not beside.allow(RUN)
    assert limits("*", "if_jobs:filter_tags:gpu").tags == ("gpu",)


def test_a_filter_of_tags_is_never_lost_or_widened() -> None:
    one, both = limits("if_jobs:filter_tags:gpu"), limits("if_jobs:filter_tags:gpu,cpu")
    assert both.contain(one)
    assert not one.contain(both)
    assert not one.contain(limits("jobs:read"))
    assert one.contain(limits("jobs:read", "if_jobs:filter_tags:gpu"))
    assert not limits("jobs:read", "if_jobs:filter_tags:gpu").contain(one)
