"""What a job does about its own steps: keeps what has come of one, and calls functions of its script as jobs."""

from uuid import UUID

import msgspec
from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import BadRequest, Forbidden
from tidemill.api.http.policy import credential_of
from tidemill.api.http.route import Call
from tidemill.api.jobs import look, rules
from tidemill.api.workflows import store
from tidemill.api.workflows.schemas import InlineStep, Kept, Task, TaskQuery
from tidemill.chassis.outbox import to_say
from tidemill.shared import tags
from tidemill.shared.ids import new_job_id
from tidemill.shared.script import FLOW_TAG

_FAILED = b'"__wmill_error"'


async def keep(call: Call) -> web.StreamResponse:
    """Keep what a step inside the job has come to, so that it is known when the job's code runs from the top again."""
    body: InlineStep = call.body
    token, job_id = _own(call)
    kept = await store.keep_step(
        call.ctx.database, token, job_id, body.key, body.result, body.started_at, body.duration_ms
    )
    written = kept.encode()
    return json(Kept(failure=msgspec.Raw(written)) if _FAILED in written else Kept())


async def call_task(call: Call) -> web.StreamResponse:
    """Request a job of one function of the job's own script and answer its id."""
    body: Task = call.body
    query: TaskQuery = call.query
    token, job_id = _own(call)
    entrypoint = call.params["entrypoint"]
    if not entrypoint.isidentifier():
        raise BadRequest(f"{entrypoint!r} is the name of no function.")
    if not bytes(body.args).lstrip().startswith(b"{"):
        raise BadRequest("The field args must be an object.")
    if query.tag is not None:
        if (wrong := tags.why_not(query.tag)) is not None:
            raise BadRequest(f"The tag {wrong}.")
        if query.tag == FLOW_TAG:
            raise BadRequest(f"The tag {FLOW_TAG} is only for flows.")
        rules.refuse_tag(call.viewer, query.tag)
    child = new_job_id()
    audit = call.audit("Execute", entrypoint, {"job": str(job_id)}, span=str(child))
    said = await store.call_task(
        call.ctx.database, token, job_id, child, entrypoint, body.args, query.tag, to_say([audit])
    )
    call.ctx.outbox.publish_soon(said)
    return text(str(child), status=201)


def _own(call: Call) -> tuple[str, UUID]:
    """Return the token of the job that asks and its id; raises Forbidden where it asks about another."""
    credential = credential_of(call.request)
    job_id = look.job_id_of(call)
    if credential is None or job_id != call.viewer.job_id:
        raise Forbidden("A job may do this for itself alone.")
    return credential.token, job_id
