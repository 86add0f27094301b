"""Values that the steps of a flow keep with it, by name."""

import msgspec
from aiohttp import web

from tidemill.api.flow_states import store
from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import BadRequest, Conflict, Forbidden, NotFound, TooLarge
from tidemill.api.http.route import Call
from tidemill.api.jobs import look
from tidemill.api.jobs import store as jobs
from tidemill.chassis.outbox import to_say

_LONGEST_KEY = 255


async def keep(call: Call) -> web.StreamResponse:
    """Keep a value with a flow that has not ended; an empty body is null."""
    flow_id, key = look.job_id_of(call), _key(call)
    value = _checked(call.body)
    brief = await jobs.brief(call.ctx.database, call.workspace, flow_id, call.viewer)
    if brief is None:
        raise look.missing(call)
    if not brief.may_cancel:
        raise Forbidden("You may look at this flow but not keep values with it.")
    audit = call.audit("Updated", str(flow_id), {"state": key}, span=str(flow_id))
    answer, said = await store.keep(call.ctx.database, call.workspace, flow_id, key, value, to_say([audit]))
    if answer == "no_flow":
        raise NotFound(f"The job {flow_id} is no flow.")
    if answer == "ended":
        raise Conflict(f"The flow {flow_id} has ended.")
    if answer == "too_much":
        raise TooLarge(f"A flow keeps at most {store.MOST} values of {store.LONGEST} bytes together.")
    call.ctx.outbox.publish_soon(said)
    return text(key)


async def kept(call: Call) -> web.StreamResponse:
    """Answer a value that is kept with a flow, null when there is none."""
    flow_id, key = look.job_id_of(call), _key(call)
    brief = await jobs.brief(call.ctx.database, call.workspace, flow_id, call.viewer)
    if brief is None or not await store.is_flow(call.ctx.database, call.workspace, flow_id):
        raise look.missing(call)
    value = await store.kept(call.ctx.database, flow_id, key)
    return json(msgspec.Raw((value or "null").encode()))


def _key(call: Call) -> str:
    key = call.params["key"]
    if len(key) > _LONGEST_KEY:
        raise BadRequest(f"The key must not be longer than {_LONGEST_KEY} characters.")
    return key


def _checked(value: msgspec.Raw | None) -> str:
    """Return a value as JSON text; raises BadRequest or TooLarge."""
    if value is None:
        return "null"
    body = bytes(value)
    if len(body) > store.LONGEST:
        raise TooLarge(f"A flow keeps at most {store.MOST} values of {store.LONGEST} bytes together.")
    try:
        msgspec.json.decode(body)
    except RecursionError:
        raise BadRequest("The value is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError):
        raise BadRequest("The value is not valid JSON.") from None
    return body.decode()
