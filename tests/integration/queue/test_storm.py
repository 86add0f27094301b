"""Whatever happens at once and whatever is lost on the way, each job ends exactly once and each limit holds."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.integration.queue.storm import Storm, Weather, weathered
from tests.support.database import DatabaseUrls
from tests.support.queue import Queue, a_job, queue_of

STORMS = settings(
    max_examples=6,
    deadline=None,
    # A storm is never the same twice: making it smaller tells nothing.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FAIR = Weather(seed=0, lost_answers=0, crashes=0, drains=0, cancels=0, children=0)

weathers = st.builds(
    Weather,
    seed=st.integers(0, 2**32),
    jobs=st.integers(10, 60),
    workers=st.integers(2, 10),
    schedulers=st.integers(1, 3),
    ceilings=st.lists(st.integers(1, 2), min_size=1, max_size=3),
    limited=st.sampled_from((0.3, 0.7, 1.0)),
    lost_answers=st.sampled_from((0.0, 0.1, 0.3)),
    crashes=st.sampled_from((0.0, 0.05, 0.2)),
    drains=st.sampled_from((0.0, 0.1)),
    cancels=st.sampled_from((0.0, 0.3, 1.0)),
)


@pytest.fixture(scope="module")
async def wide_queue(database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    """A queue with a connection for everybody."""
    async with queue_of(database_urls, connections=14) as queue:
        yield queue


@pytest.mark.slow
@STORMS
@given(weather=weathers)
@example(weather=FAIR)
@example(weather=replace(FAIR, limited=1.0, ceilings=(1,), workers=8))
@example(weather=Weather(seed=1, lost_answers=0.4, workers=8))
@example(weather=Weather(seed=2, cancels=1.0, limited=1.0, ceilings=(1, 2, 1), schedulers=3))
@example(weather=Weather(seed=3, crashes=0.4, drains=0.3, limited=0.8))
async def test_every_job_ends_exactly_once_in_any_storm(wide_queue: Queue, weather: Weather) -> None:
    await wide_queue.empty()
    storm = Storm(wide_queue, weather)
    await storm.pass_over()
    await weathered(storm)


@pytest.mark.parametrize("ceiling", [1, 2])
async def test_no_more_runs_of_a_key_overlap_than_its_ceiling_allows(wide_queue: Queue, ceiling: int) -> None:
    """Seen by the workers themselves, from the claim's answer until the end is said."""
    queue = wide_queue
    await queue.empty()
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    jobs = {
        await queue.request(a_job(limit_key=key, limit_ceiling=ceiling)): key for _ in range(15) for key in ("a", "b")
    }
    left = set(jobs)

    async def work() -> None:
        run = uuid.uuid4()
        while left:
            claim = await queue.claim(run=run)
            if claim is None:
                await asyncio.sleep(0.001)
                continue
            key = jobs[claim.job_id]
            running[key] += 1
            most[key] = max(most[key], running[key])
            await asyncio.sleep(0.002)
            running[key] -= 1
            assert await queue.finish(claim) == "done"
            left.discard(claim.job_id)

    async with asyncio.timeout(30):
        await asyncio.gather(*(work() for _ in range(8)))
    assert max(most.values()) <= ceiling
    assert await queue.look.fetchval("SELECT count(*) FROM queue.live_job") == 0
