"""Pages of long lists: each costs what it shows, however deep it lies, and together they show everything once.

What a page costs is counted in the buffers that Postgres touches for it, not in time.
"""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tidemill.api.http.route import Viewer
from tidemill.api.jobs import rules, store
from tidemill.api.jobs.schemas import ListQuery

MANY = 100_000
_FILL = """
    WITH made AS (
        INSERT INTO queue.job (id, born, workspace_id, kind, path, hash, language, args, tag, priority, envs, due_at,
                               visible_to_owner, created_at, created_by, permissioned_as, email, permissions)
        SELECT gen_random_uuid(), now() - n * interval '1 microsecond', 'w', 'script', 'u/ann/s' || n % 10, 'h',
               'python3', json_build_object('n', n), 'python3', 0, '{}', now(), true, now(), 'ann', 'u/ann', 'e', '{}'
        FROM generate_series(1, $1::int) n RETURNING id, born)
    INSERT INTO queue.finished_job (id, born, outcome, result, started_at, finished_at, worker, claims, labels)
    SELECT id, born, 'success', '{}', now(), now(), 'worker', 1,
           CASE WHEN extract(microseconds FROM born)::int % 1000 = 0 THEN ARRAY['rare'] END
    FROM made
"""
ANN = Viewer(email="ann@example.com", username="ann", is_member=True)
ROOT = replace(ANN, username="root", is_admin=True)


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.queue.look.execute(_FILL, MANY, timeout=120)
        await it.queue.look.execute("VACUUM (ANALYZE) queue.job, queue.finished_job, queue.live_job", timeout=120)
        yield it


class Explaining:
    """Runs a statement as the api's login and keeps what it has cost instead of what it found.

    Postgres plans a prepared statement for its values at first, and later, when it likes, for any values.
    """

    def __init__(self, api: House, mode: str) -> None:
        self._api = api
        self._mode = mode
        self.plan: Mapping[str, Any] = {}

    async def fetch(self, query: str, *values: Any) -> list[Any]:
        async with self._api.queue.api.acquire() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL plan_cache_mode = {self._mode}")
            await connection.execute(f"PREPARE listing AS {query}")
            filled = ", ".join([await self._literal(connection, each) for each in values])
            answer = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE listing({filled})")
            await connection.execute("DEALLOCATE listing")
        self.plan = json.loads(answer)[0]["Plan"]
        return []

    @staticmethod
    async def _literal(connection: Any, value: Any) -> str:
        if isinstance(value, list):
            literal = await connection.fetchval("SELECT quote_literal($1::text[])", value)
            return f"{literal}::text[]"
        text = None if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        literal = await connection.fetchval("SELECT quote_nullable($1::text)", text)
        return str(literal)

    @property
    def buffers(self) -> int:
        return int(self.plan["Shared Hit Blocks"] + self.plan["Shared Read Blocks"])


MODES = ["force_custom_plan", "force_generic_plan"]


async def cost(api: House, viewer: Viewer = ANN, *, mode: str, finished: bool | None = None, **query: Any) -> int:
    asked, explaining = ListQuery(**query), Explaining(api, mode)
    await store.listing(explaining, "w", asked, rules.listing(asked, finished=finished), viewer)  # type: ignore[arg-type]
    return explaining.buffers


async def deep(api: House) -> str:
    """Return a cursor behind most of the jobs."""
    row = await api.queue.look.fetchrow("SELECT id, born FROM queue.job ORDER BY born, id OFFSET 100 LIMIT 1")
    assert row is not None
    return rules.spell(rules.Cursor(born=row["born"], job_id=row["id"]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("finished", [None, True])
@pytest.mark.parametrize("viewer", [ANN, ROOT], ids=["ann", "root"])
async def test_a_page_behind_a_cursor_costs_the_same_everywhere(
    api: House, viewer: Viewer, finished: bool | None, mode: str
) -> None:
    first = await cost(api, viewer, mode=mode, finished=finished, per_page=30)
    last = await cost(api, viewer, mode=mode, finished=finished, per_page=30, cursor=await deep(api))
    assert first < 2_000
    assert last < 2_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("finished", [None, True])
async def test_a_deep_page_walks_over_ids_and_looks_only_at_its_own_jobs(
    api: House, finished: bool | None, mode: str
) -> None:
    """What lies before the page is read once, along one index; a look at each would touch a million."""
    deepest = await cost(api, ANN, mode=mode, finished=finished, per_page=30, page=MANY // 30)
    assert deepest < 10_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("filters", "most"),
    [
        ({"label": "nobody,nothing"}, 2_000),
        ({"label": "rare"}, 4_000),
        ({"label": "!rare"}, 10_000),
        ({"created_by": "!bob", "job_kinds": "!flow"}, 2_000),
        ({"success": True, "worker": "work*", "allow_wildcards": True}, 10_000),
        ({"args": '{"n": -1}'}, 10_000),
        ({"broad_filter": "nothing"}, 10_000),
        ({"concurrency_key": "nobody's"}, 10_000),
        ({"running": True}, 2_000),
    ],
)
async def test_a_filter_reads_no_more_than_it_has_to(
    api: House, filters: Mapping[str, Any], most: int, mode: str
) -> None:
    assert await cost(api, ANN, mode=mode, **filters) < most


async def test_links_lead_through_all_jobs_once(api: House) -> None:
    seen: list[str] = []
    where: str | None = "/w/w/jobs/list?per_page=1000&page=1&created_by=ann&token=ignored"
    pages = 0
    while where is not None:
        reply = await api.get("ann", where)
        seen += [each["id"] for each in reply.json]
        link = reply.headers.get("Link")
        where = None if link is None else link.removeprefix("</api").removesuffix('>; rel="next"')
        pages += 1
        assert where is None or ("created_by=ann" in where and "token" not in where and "page=1&" not in where)
        if pages == 5:
            break
    assert len(seen) == len(set(seen)) == 5000
    wanted = await api.queue.look.fetch("SELECT id FROM queue.job ORDER BY born DESC, id DESC LIMIT 5000")
    assert seen == [str(row["id"]) for row in wanted]


async def test_the_last_page_has_no_successor(api: House) -> None:
    reply = await api.get("ann", "jobs/list", per_page=1000, cursor=await deep(api))
    assert len(reply.json) == 100
    assert "Link" not in reply.headers


async def test_pages_by_number_go_on_as_clients_know_them(api: House) -> None:
    deepest = (await api.get("ann", "jobs/list", per_page=1000, page=MANY // 1000)).json
    ids = await api.queue.look.fetch("SELECT id FROM queue.job ORDER BY born DESC, id DESC OFFSET $1", MANY - 1000)
    assert [each["id"] for each in deepest] == [str(row["id"]) for row in ids]
    assert (await api.get("ann", "jobs/completed/list", per_page=1000, page=MANY // 1000 + 1)).json == []


async def test_a_page_lies_behind_no_more_jobs_than_are_walked_over(api: House) -> None:
    refused = await api.get("ann", "jobs/list", per_page=1000, page=10**9, status=400)
    assert "Link" in refused.text
    await api.get("ann", "jobs/list", per_page=1000, page=2, cursor=await deep(api), status=400)


@pytest.mark.parametrize("cursor", ["", "x", "1", "1.x", ".", "9" * 40 + "." + "0" * 32, "1." + "'" * 32])
async def test_attack_a_cursor_that_is_none_is_refused(api: House, cursor: str) -> None:
    for path in ("jobs/list", "jobs/queue/list", "jobs/list_filtered_uuids"):
        await api.get("ann", path, cursor=cursor, status=400)
