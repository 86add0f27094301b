"""How far jobs say they are, and what was measured of them."""

from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.errors import Conflict, Forbidden
from tidemill.api.http.route import Call
from tidemill.api.jobs import look
from tidemill.api.jobs import store as jobs
from tidemill.api.metrics import store
from tidemill.api.metrics.schemas import JobMetrics, JobProgress, MetricMetadata, ScalarMetric
from tidemill.chassis.outbox import to_say

_MEMORY = MetricMetadata(id="memory_peak_kb", name="Peak of the memory, in KiB")


async def set_progress(call: Call) -> web.StreamResponse:
    """Note how far a job is; a job may only tell its own."""
    body: JobProgress = call.body
    job_id = look.job_id_of(call)
    brief = await jobs.brief(call.ctx.database, call.workspace, job_id, call.viewer)
    if brief is None:
        raise look.missing(call)
    if not brief.may_cancel or call.viewer.job_id not in (None, job_id):
        raise Forbidden("You may look at this job but not tell how far it is.")
    audit = call.audit("Updated", str(job_id), {"percent": str(body.percent)}, span=str(job_id))
    answer, said = await store.tell(call.ctx.database, call.workspace, job_id, body.percent, to_say([audit]))
    if answer == "ended":
        raise Conflict(f"The job {job_id} has ended.")
    if answer != "kept":
        raise look.missing(call)
    call.ctx.outbox.publish_soon(said)
    return json(body.percent)


async def get_progress(call: Call) -> web.StreamResponse:
    """Answer how far a job that has not ended says it is, null when it has not said."""
    return json((await _numbers(call)).progress)


async def get_metrics(call: Call) -> web.StreamResponse:
    """Answer what was measured of a job: how much memory it took, once it has ended."""
    peak = (await _numbers(call)).memory_peak_kb
    known = [] if peak is None else [ScalarMetric(metric_id=_MEMORY.id, value=peak)]
    return json(JobMetrics(metrics_metadata=[_MEMORY] if known else [], scalar_metrics=known, timeseries_metrics=[]))


async def _numbers(call: Call) -> store.Numbers:
    brief = await jobs.brief(call.ctx.database, call.workspace, look.job_id_of(call), call.viewer)
    found = None if brief is None else await store.numbers(call.ctx.database, call.workspace, look.job_id_of(call))
    if found is None:
        raise look.missing(call)
    return found
