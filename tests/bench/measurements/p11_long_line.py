"""P11: the same calls with an empty queue and with 100,000 jobs waiting in it.

The installation's own worker takes Bash jobs only, so the long line of Python jobs stays; it is claimed from by a
worker that this measurement plays itself, over one connection. For each job claimed another one is asked for.
"""

import time
import uuid

import msgspec

from tests.bench.figures import TIMES, Figure, Latency, Measured, Table, spread
from tests.bench.progress import tell
from tests.bench.sizes import Sizes
from tests.bench.subject import Subject, subject
from tests.support.installation import Shape
from tests.support.queue import Queue, a_job, queue_of

PATH = "u/admin/bench_bash"
SCRIPT = "echo 1\n"


class Round(msgspec.Struct, frozen=True):
    """The latencies with one length of the line."""

    claim: Latency
    list_runs: Latency
    other_job: Latency
    """A whole Bash job meanwhile."""


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Measure with an empty line, then with a long one."""
    async with (
        subject(shape, {"TIDEMILL_WORKER_TAGS": "bash"}) as it,
        queue_of(it.cluster.urls, connections=2) as queue,
    ):
        await it.installation.save_script(PATH, SCRIPT, "bash")
        await one_round(it, queue, min(20, sizes.samples))
        empty = await one_round(it, queue, min(200, sizes.samples))
        tell(f"p11 {shape}: {sizes.line} jobs get in line")
        await it.admin.execute(_FILL, it.installation.workspace, sizes.line, timeout=300)
        full = await one_round(it, queue, min(200, sizes.samples))
        waiting = await it.admin.fetchval("SELECT count(*) FROM queue.live_job WHERE state = 'queued'")
        if waiting < sizes.line:
            raise RuntimeError(f"only {waiting} of {sizes.line} jobs still wait")
    rows = [
        (name, *(f"{getattr(one, name).p50} / {one_p95(one, name)}" for one in (empty, full)))
        for name in ("claim", "list_runs", "other_job")
    ]
    return Measured(
        measurement="p11",
        shape=shape,
        figures=[
            Figure("claim p50, long line against empty", ratio(full.claim.p50, empty.claim.p50), TIMES),
            Figure("list runs p95, long line against empty", ratio(full.list_runs.p95, empty.list_runs.p95), TIMES),
            Figure("claim p50", full.claim.p50, "ms"),
            Figure("list runs p95", full.list_runs.p95, "ms"),
        ],
        tables=[Table(f"With {sizes.line} jobs waiting, {shape}", ("p50 / p95, ms", "empty", "long line"), rows)],
    )


def one_p95(one: Round, name: str) -> float:
    latency: Latency = getattr(one, name)
    return latency.p95


def ratio(full: float, empty: float) -> float:
    """Return how many times as long it takes."""
    return round(full / empty, 2)


async def one_round(it: Subject, queue: Queue, times: int) -> Round:
    """Measure claims, the first page of runs and a whole job of another kind."""
    claims, lists, jobs = [], [], []
    url = it.url("jobs/list?per_page=30")
    await queue.start_worker("python3")
    async with queue.worker.acquire() as connection:
        for _ in range(times):
            await queue.request(a_job(workspace_id=it.installation.workspace))
            began = time.perf_counter()
            claim = await queue.claim("python3", by=connection)
            claims.append(time.perf_counter() - began)
            if claim is None:
                raise RuntimeError("a claim found no job")
            await queue.finish(claim, by=connection)
    await queue.retire_worker()
    for _ in range(times):
        began = time.perf_counter()
        async with it.session.get(url) as answer:
            await answer.read()
        lists.append(time.perf_counter() - began)
        if answer.status != 200:
            raise RuntimeError(f"list runs answered {answer.status}")
    for _ in range(times):
        began = time.perf_counter()
        await it.call_and_wait(PATH, {})
        jobs.append(time.perf_counter() - began)
    queue.run = uuid.uuid4()
    return Round(claim=spread(claims), list_runs=spread(lists), other_job=spread(jobs))


_FILL = """
    WITH asked AS (SELECT gen_random_uuid() AS id, n FROM generate_series(1, $2::bigint) n),
    filled AS (
        INSERT INTO queue.live_job (id, born, workspace_id, state, tag, urgency, rank, due_at, hinted_at)
        SELECT id, now(), $1, 'queued', 'python3', -(n % 3), n, now(), now() FROM asked RETURNING *)
    INSERT INTO queue.job (id, born, workspace_id, kind, path, language, args, tag, priority, envs, due_at,
                           visible_to_owner, created_at, created_by, permissioned_as, email, permissions)
    SELECT id, born, workspace_id, 'script', 'f/bench/waiting', 'python3', '{}', tag, -urgency, '{}', due_at,
           true, now(), 'admin', 'u/admin', 'admin@tidemill.local', '{}'
    FROM filled
"""
