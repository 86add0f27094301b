"""Requesting jobs of flows, and waiting for their results."""

from aiohttp import web
from msgspec import structs

from tidemill.api.flows import reading, references
from tidemill.api.flows.version import number_of
from tidemill.api.http.errors import NotFound
from tidemill.api.http.route import Call
from tidemill.api.jobs import restart, rules, run, store
from tidemill.api.jobs.rules import Runnable
from tidemill.api.jobs.schemas import FlowPayloadQuery, FlowPreview, FlowRunQuery, FlowWaitQuery
from tidemill.shared.flow import PREPROCESSOR


async def path(call: Call) -> web.StreamResponse:
    """Request a job of the flow at a path and answer its id."""
    flow = await _by_path(call)
    return await run.id_of(call, flow, await _args(call, flow))


async def version(call: Call) -> web.StreamResponse:
    """Request a job of one version of a flow and answer its id."""
    flow = await _by_version(call)
    return await run.id_of(call, flow, await _args(call, flow))


async def preview(call: Call) -> web.StreamResponse:
    """Request a job of the flow in the body and answer its id."""
    body: FlowPreview = call.body
    return await run.id_of(call, await previewed(call, body), run.written_args(call, body.args))


async def wait_for_path(call: Call) -> web.StreamResponse:
    """Run the flow at a path and answer its result."""
    flow = await _by_path(call)
    return await run.result_of(call, flow, await _args(call, flow))


async def wait_for_version(call: Call) -> web.StreamResponse:
    """Run one version of a flow and answer its result."""
    flow = await _by_version(call)
    return await run.result_of(call, flow, await _args(call, flow))


async def wait_for_preview(call: Call) -> web.StreamResponse:
    """Run the flow in the body and answer its result."""
    body: FlowPreview = call.body
    return await run.result_of(call, await previewed(call, body), run.written_args(call, body.args))


async def previewed(call: Call, body: FlowPreview) -> Runnable:
    """Return what a preview runs; raises an HttpError, naming what is wrong, where it can't be run."""
    checked = await reading.read(bytes(body.value))
    runnable = rules.flow_preview(body, checked.flow)
    runnable = structs.replace(runnable, restart=await restart.by_preview(call, body, checked.flow))
    await call.ctx.expressions.check(checked.expressions)
    absent = await references.check(call.ctx.database, call.workspace, runnable.path, checked, call.viewer)
    for module, missing in absent.items():
        raise references.absent_flow(module, missing)
    return runnable


async def _by_path(call: Call) -> Runnable:
    flow = await store.flow_by_path(call.ctx.database, call.workspace, call.params["path"], call.viewer)
    if flow is None:
        raise NotFound(f"There is no flow at {call.params['path']}.")
    return _entered(call, flow)


async def _by_version(call: Call) -> Runnable:
    wanted = number_of(call.params["version"])
    flow = await store.flow_by_version(call.ctx.database, call.workspace, wanted, call.viewer)
    if flow is None:
        raise NotFound(f"There is no version {wanted}.")
    return _entered(call, flow)


async def _args(call: Call, flow: Runnable) -> str:
    """Return what was sent as arguments, or for a preprocessor the event that the request is."""
    return await run.sent_args(call) if flow.entrypoint is None else await run.sent_event(call)


def _entered(call: Call, flow: Runnable) -> Runnable:
    """Return the flow with where it begins: at its preprocessor, if it has one, unless that is to be left out."""
    query: FlowRunQuery | FlowWaitQuery | FlowPayloadQuery = call.query
    if query.skip_preprocessor or not flow.has_preprocessor:
        return flow
    return structs.replace(flow, entrypoint=PREPROCESSOR)
