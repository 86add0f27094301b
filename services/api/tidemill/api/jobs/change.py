"""Changing single jobs: letting one enter the line at once, and forgetting what one has left behind."""

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import Conflict, Forbidden
from tidemill.api.http.route import Call
from tidemill.api.jobs import look, store
from tidemill.chassis.outbox import to_say


async def run_now(call: Call) -> web.StreamResponse:
    """Let a job that waits for its time enter the line, and answer its id."""
    job_id = look.job_id_of(call)
    brief = await store.brief(call.ctx.database, call.workspace, job_id, call.viewer)
    if brief is None:
        raise look.missing(call)
    if not brief.may_cancel:
        raise Forbidden("You may look at this job but not change when it runs.")
    audit = call.audit("Execute", str(job_id), span=str(job_id))
    answer, said = await store.run_now(call.ctx.database, call.workspace, job_id, to_say([audit]))
    if answer != "entered":
        raise Conflict(f"The job {job_id} does not wait for its time.")
    call.ctx.outbox.publish_soon(said)
    return text(str(job_id))


async def forget(call: Call) -> web.StreamResponse:
    """Forget what a job that has ended was given, answered and printed, and answer what is left of it."""
    job_id = look.job_id_of(call)
    audit = call.audit("Delete", str(job_id), span=str(job_id))
    forgotten, said = await store.forget(call.ctx.database, call.workspace, job_id, to_say([audit]))
    if not forgotten:
        raise look.unfinished(call)
    call.ctx.outbox.publish_soon(said)
    job = await store.job(call.ctx.database, call.workspace, job_id, call.viewer, with_logs=True, with_code=True)
    if job is None:
        raise look.missing(call)
    return json(job)
