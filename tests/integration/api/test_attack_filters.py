"""A8, A9 and A29: what is asked for by name, filter and page stays within what one may see and what can be answered."""

import secrets
import uuid
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from tests.integration.api.conftest import Answer, Client
from tests.integration.api.ground import Ground, a_ground, a_job, good_request
from tests.support.database import DatabaseUrls
from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.paging import MOST
from tidemill.api.http.route import Route
from tidemill.api.jobs import browse
from tidemill.api.jobs.schemas import LONGEST_PAGE

INJECTIONS = [
    "'",
    '"',
    "' OR '1'='1",
    "') OR ('1'='1",
    "'; DROP TABLE platform.person; --",
    "\\' OR 1=1 --",
    "1) UNION SELECT email FROM platform.person --",
    "%",
    "_",
    "\\",
    '{"a": 1}',
    "(SELECT pg_sleep(20))",
    "(a+)+$",
    "x" * 5000,
]
TOO_MUCH = ["0", "-1", "1000000000", "99999999999999999999", "1e9", "NaN", "ten"]

LISTS = [route for route in OWN_ROUTES if route.method == "GET" and route.query is not None]
PAGED = [route for route in LISTS if route.query and "per_page" in route.query.__struct_encode_fields__]
LONGER = {"GET /w/{workspace}/jobs/queue/list": 100_000}
"""Where a request may ask for more than the most of a page; what it gets is a page all the same."""
NOT_DEEP = {
    "GET /w/{workspace}/jobs/list",
    "GET /w/{workspace}/jobs/queue/list",
    "GET /w/{workspace}/jobs/completed/list",
    "GET /w/{workspace}/jobs/list_filtered_uuids",
    "GET /w/{workspace}/jobs/queue/list_filtered_uuids",
    "GET /w/{workspace}/jobs/completed/export",
    "GET /w/{workspace}/jobs/queue/export",
}
"""Lists of jobs, which may be so long that only a cursor leads into their depth."""
OF_A_JOB = [route for route in OWN_ROUTES if route.resource == "job:{id}"]


@pytest.fixture(scope="module")
async def ground(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    async with a_ground(database_urls, tmp_path_factory.mktemp("home")) as ground:
        yield ground


async def filtered(ground: Ground, route: Route, **query: str) -> Answer:
    plot = ground.shared
    path = route.path.replace("...}", "}").format(**plot.named(route))
    written = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return await plot.who.get(f"{path}?{written}")


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.name)
async def test_a9_no_filter_is_more_than_a_value(ground: Ground, route: Route) -> None:
    """A9: what looks like SQL, a pattern or JSON finds what a name that is not there finds, and breaks nothing."""
    assert route.query is not None
    for name in route.query.__struct_encode_fields__:
        neutral = await filtered(ground, route, **{name: f"nothing-{secrets.token_hex(4)}"})
        for value in INJECTIONS:
            answer = await filtered(ground, route, **{name: value})
            assert answer.status < 500, f"{name}={value}: {answer.text}"
            if neutral.status == answer.status == 200 and isinstance(neutral.json, list):
                assert len(answer.json) <= len(neutral.json), f"{name}={value}"
    assert await ground.api.look.fetchval("SELECT count(*) > 0 FROM platform.person")


@pytest.mark.parametrize("route", PAGED, ids=lambda route: route.name)
async def test_a29_no_page_is_larger_than_a_page(ground: Ground, route: Route) -> None:
    """A29: what asks for more than a page, or for none, is refused by its name; so is a page too deep to walk to."""
    most = LONGER.get(route.name, MOST)
    for value in (*TOO_MUCH, str(most + 1)):
        answer = await filtered(ground, route, per_page=value)
        assert answer.status == 400, f"{value}: {answer.status} {answer.text}"
        assert "per_page" in answer.text
    assert (await filtered(ground, route, per_page=str(most))).status == 200
    deep = await filtered(ground, route, page="1000000000", per_page=str(most))
    if route.name in NOT_DEEP:
        assert deep.status == 400
        assert "parameter page " in deep.text
    else:
        assert (deep.status, deep.json) == (200, [])


def test_a29_what_pages_in_another_way_is_a_route() -> None:
    assert {route.name for route in PAGED} > NOT_DEEP > LONGER.keys()


async def test_a29_who_asks_for_all_that_waits_gets_a_page_of_it(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A29: clients ask for a hundred thousand waiting jobs at once; they get a bounded page, and where it goes on."""
    plot = await ground.plot()
    jobs = [await a_job(plot.who, plot.workspace, "?scheduled_in_secs=3600") for _ in range(3)]
    monkeypatch.setattr(browse, "LONGEST_PAGE", 2)
    first = await plot.who.get(f"/w/{plot.workspace}/jobs/queue/list?per_page=100000")
    assert [each["id"] for each in first.json] == jobs[:0:-1]
    following = first.headers["Link"].removeprefix("</api").removesuffix('>; rel="next"')
    assert [each["id"] for each in (await plot.who.get(following)).json] == jobs[:1]


def test_a29_a_page_of_what_waits_is_no_longer_than_ten_thousand() -> None:
    assert LONGEST_PAGE == 10_000


@pytest.mark.parametrize("route", OF_A_JOB, ids=lambda route: route.name)
async def test_a8_a_job_of_another_workspace_is_not_there(ground: Ground, route: Route) -> None:
    """A8: the answer for a job elsewhere is letter by letter that for a job that never was."""
    theirs, ours = ground.shared, await ground.plot()
    _, good = await good_request(ground, route)
    assert theirs.workspace != ours.workspace
    boss = await ground.api.person("ann", workspace=ours.workspace, is_admin=True)
    absent = str(uuid.UUID(hex=f"{theirs.job.replace('-', '')[:20]}{secrets.token_hex(6)}"))

    async def told(who: Client, job: str) -> tuple[int, str]:
        path = route.path.format(**{**good.named, "workspace": ours.workspace, "id": job})
        answer = await who.call(route.method, path, None if good.body is None else {})
        return answer.status, answer.text.replace(job, "JOB")

    for who in (boss, ours.who):
        assert await told(who, theirs.job) == await told(who, absent)
    assert (await theirs.who.get(f"/w/{theirs.workspace}/jobs_u/get/{theirs.job}")).status == 200
