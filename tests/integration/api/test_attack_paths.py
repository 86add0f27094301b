"""A1: no path leads outside, however it is written, in any route that takes one."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.api.conftest import Answer, Client
from tests.integration.api.ground import GREET, Ground, a_ground, good_request
from tests.support.database import DatabaseUrls
from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.route import Route

TAKING_ONE = [route for route in OWN_ROUTES if set(route.parameters) - {"workspace"}]

OUTSIDE = [
    "../../../../proc/self/environ",
    "..",
    ".",
    "u/boss/../../../../etc/passwd",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    ".%2e/.%2e/etc/passwd",
    "..%2fetc%2fpasswd",
    "..%5c..%5cetc%5cpasswd",
    "..\\..\\etc\\passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "u/boss//etc/passwd",
    "....//....//etc/passwd",
    "u/boss/greet%00.py",
    "u/boss/greet%0a",
    "%c0%ae%c0%ae%c0%afetc/passwd",
    "%ff%fe",
]
"""Each is refused before any handler sees it."""

LITERAL = [
    "%252e%252e%252fetc%252fpasswd",
    "%25252e%25252e",
    "..;",
    "...",
    "file:%2f%2fetc%2fpasswd".replace("%2f", "%252f"),
    "~root",
    "$HOME",
    "%ef%bc%8e%ef%bc%8e",
    "%e2%80%ae",
]
"""Each is an odd name and nothing else: decoded once, it stays what it is."""


@pytest.fixture(scope="module")
async def ground(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with a_ground(database_urls, tmp_path_factory.mktemp("home")) as ground:
        yield ground


async def ask(ground: Ground, route: Route, name: str, written: str, body: Any = None) -> Answer:
    """Call a route with one part of its path written so, and all else as it should be."""
    plot = ground.shared
    named = {**plot.named(route), name: written}
    return await plot.who.call(route.method, route.path.replace("...}", "}").format(**named), body)


def refuse_what_is_not_ours(ground: Ground, answer: Answer) -> None:
    """Fail when an answer shows anything of the machine."""
    for each in ("root:", "PATH=", "TIDEMILL_", ground.api.password, str(ground.api.home)):
        assert each not in answer.text


@pytest.mark.parametrize("route", TAKING_ONE, ids=lambda route: route.name)
async def test_a1_no_path_leads_outside(ground: Ground, route: Route) -> None:
    """A1: dot segments, encoded, absolute, with backslashes, NUL or broken text: refused, and nothing is shown."""
    for name in set(route.parameters) - {"workspace"}:
        for written in OUTSIDE:
            answer = await ask(ground, route, name, written)
            assert answer.status in (400, 404), f"{written}: {answer.status} {answer.text}"
            assert answer.content_type == "text/plain"
            refuse_what_is_not_ours(ground, answer)


@pytest.mark.parametrize("route", TAKING_ONE, ids=lambda route: route.name)
async def test_a1_an_odd_name_stays_a_name(ground: Ground, route: Route) -> None:
    """A1: what only a second decoding would turn into a path is never decoded twice."""
    _, good = await good_request(ground, route)
    for name in set(route.parameters) - {"workspace"}:
        for written in LITERAL:
            answer = await ask(ground, route, name, written, good.body)
            assert answer.status < 500, f"{written}: {answer.status} {answer.text}"
            refuse_what_is_not_ours(ground, answer)


PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "u/boss/../../x",
    "u/boss/..",
    "u/boss/a..b",
    "u/boss/./x",
    "u//boss/x",
    "u\\boss\\x",
    "u/boss/x\n",
    "u/boss/%2e%2e/x",
    "f/../x/y",
    "u/boss/" + "x" * 300,
]


@pytest.mark.parametrize("path", PATHS)
async def test_a1_nothing_is_stored_under_a_path_that_leads_outside(ground: Ground, path: str) -> None:
    """A1, A2: what can't be read is refused when it is written as well."""
    plot = ground.shared
    script = {"path": path, "content": GREET, "language": "python3", "summary": "", "description": ""}
    answer = await plot.who.post(f"/w/{plot.workspace}/scripts/create", script)
    assert answer.status in (400, 422), answer.text
    stored = await ground.api.look.fetchval("SELECT count(*) FROM platform.script WHERE path = $1", path)
    assert stored == 0


async def test_a1_a_workspace_is_no_path_either(ground: Ground) -> None:
    """A1: the first part of every path is not different."""
    boss: Client = ground.shared.who
    for written in OUTSIDE:
        answer = await boss.get(f"/w/{written}/users/whoami")
        assert answer.status in (400, 404), f"{written}: {answer.status} {answer.text}"
