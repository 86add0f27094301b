"""Lists stay fast with a hundred thousand jobs."""

import time
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house

pytestmark = pytest.mark.slow

MANY = 100_000
_FILL = """
    WITH made AS (
        INSERT INTO queue.job (id, born, workspace_id, kind, path, hash, language, args, tag, priority, envs, due_at,
                               visible_to_owner, created_at, created_by, permissioned_as, email, permissions)
        SELECT gen_random_uuid(), now() - n * interval '1 microsecond', 'w', 'script', 'u/ann/s' || n % 10, 'h',
               'python3', json_build_object('n', n, 'who', 'somebody'), 'python3', 0, '{}', now(), true, now(),
               'ann', 'u/ann', 'e', '{}'
        FROM generate_series(1, $1::int) n RETURNING id, born)
    INSERT INTO queue.finished_job (id, born, outcome, result, started_at, finished_at, worker, claims, labels)
    SELECT id, born, 'success', json_build_object('ok', true), now(), now(), 'worker', 1,
           CASE WHEN extract(microseconds FROM born)::int % 1000 = 0 THEN ARRAY['rare'] END
    FROM made
"""


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.queue.look.execute(_FILL, MANY, timeout=120)
        await it.queue.look.execute("ANALYZE queue.job, queue.finished_job, queue.live_job")
        yield it


@pytest.mark.parametrize(
    ("path", "filters", "seconds"),
    [
        ("jobs/list", {}, 0.3),
        ("jobs/list", {"label": "nobody,nothing"}, 0.3),
        ("jobs/list", {"label": "rare"}, 0.3),
        ("jobs/list", {"label": "!rare"}, 0.3),
        ("jobs/list", {"created_by": "!bob", "job_kinds": "!flow"}, 0.3),
        ("jobs/list", {"args": '{"n": 5}'}, 1),
        ("jobs/list", {"args": '{"n": -1}'}, 1),
        ("jobs/list", {"result": '{"ok": false}'}, 3),
        ("jobs/list", {"worker": "nobody"}, 3),
        ("jobs/queue/list", {}, 0.3),
        ("jobs/completed/count", {}, 0.5),
    ],
)
async def test_a_page_of_many_jobs_comes_in_time(
    api: House, path: str, filters: dict[str, str], seconds: float
) -> None:
    await api.get("ann", path)
    began = time.monotonic()
    await api.get("ann", f"{path}?{urlencode(filters)}")
    took = time.monotonic() - began
    assert took < seconds
