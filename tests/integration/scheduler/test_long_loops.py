"""A loop over thousands of values costs neither rows nor memory for all of them at once."""

import gc
import tracemalloc

import pytest

from tests.support.flows import Stage, expr, flow, loop, step

COUNT = 2000
SLOTS = 8
LONG = 4000

pytestmark = pytest.mark.slow


async def test_a_long_loop_is_never_more_than_its_window(stage: Stage) -> None:
    body = step("w", f"lambda x: 'x' * {LONG}", x=expr("flow_input.iter.value"))
    value = flow(loop("l", list(range(COUNT)), body, parallel=True), step("last", "lambda: 'done'"))
    gc.collect()
    tracemalloc.start()
    try:
        ended = await stage.end_of(await stage.request(value), 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (ended.outcome, ended.result, stage.ran["w"]) == ("success", "done", COUNT)
    assert peak < COUNT * LONG / 2, "the results went through memory"
    most = await stage.queue.look.fetchval(
        "SELECT max(unfinished) FROM (SELECT sum(change) OVER (ORDER BY at, change) AS unfinished FROM ("
        " SELECT j.created_at AS at, 1 AS change FROM queue.job j WHERE j.parent_job = $1 AND j.step_id = 'w'"
        " UNION ALL SELECT f.finished_at, -1 FROM queue.job j JOIN queue.finished_job f USING (id)"
        " WHERE j.parent_job = $1 AND j.step_id = 'w') moments) counted",
        ended.id,
    )
    assert most == 2 * SLOTS
    listed = await stage.queue.look.fetchval(
        "SELECT json_array_length(result) FROM queue.flow_step WHERE flow_id = $1 AND module = 'l'", ended.id
    )
    assert listed == COUNT
