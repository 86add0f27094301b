"""Looking at flows."""

from aiohttp import web

from tidemill.api.flows import store
from tidemill.api.flows.schemas import ListQuery
from tidemill.api.flows.version import number_of
from tidemill.api.http.answer import json
from tidemill.api.http.errors import NotFound
from tidemill.api.http.paging import Paged
from tidemill.api.http.route import Call


async def newest(call: Call) -> web.StreamResponse:
    """Answer the flow at a path."""
    flow = await store.newest(call.ctx.database, call.workspace, call.params["path"], call.viewer)
    if flow is None:
        raise NotFound(f"There is no flow at {call.params['path']}.")
    return json(flow)


async def version(call: Call) -> web.StreamResponse:
    """Answer a flow as one version of it says."""
    wanted = number_of(call.params["version"])
    flow = await store.version(call.ctx.database, call.workspace, wanted, call.viewer)
    if flow is None:
        raise NotFound(f"There is no version {wanted}.")
    return json(flow)


async def deployment_status(call: Call) -> web.StreamResponse:
    """Answer how far the locks of the newest version are."""
    status = await store.deployment_status(call.ctx.database, call.workspace, call.params["path"], call.viewer)
    if status is None:
        raise NotFound(f"There is no flow at {call.params['path']}.")
    return json(status)


async def listing(call: Call) -> web.StreamResponse:
    """Answer one page of flows, those with the newest versions first unless asked otherwise."""
    query: ListQuery = call.query
    return json(await store.listing(call.ctx.database, call.workspace, query, call.viewer))


async def exists(call: Call) -> web.StreamResponse:
    """Answer whether a flow is at a path."""
    return json(await store.exists(call.ctx.database, call.workspace, call.params["path"], call.viewer))


async def history(call: Call) -> web.StreamResponse:
    """Answer the versions of a flow, newest first."""
    path = call.params["path"]
    query: Paged = call.query
    return json(await store.history(call.ctx.database, call.workspace, path, query, call.viewer))


async def latest(call: Call) -> web.StreamResponse:
    """Answer the newest version of a flow."""
    path = call.params["path"]
    newest_first = await store.history(call.ctx.database, call.workspace, path, Paged(per_page=1), call.viewer)
    if not newest_first:
        raise NotFound(f"There is no flow at {path}.")
    return json(newest_first[0])


async def list_paths(call: Call) -> web.StreamResponse:
    """Answer all paths."""
    return json(await store.paths_of_flows(call.ctx.database, call.workspace, call.viewer))
