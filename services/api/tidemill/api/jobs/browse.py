"""Lists of jobs, newest first."""

from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.route import Call
from tidemill.api.jobs import rules, store
from tidemill.api.jobs.schemas import ListQuery


async def everything(call: Call) -> web.StreamResponse:
    """Answer one page of all jobs."""
    return await _page(call, finished=None)


async def unfinished(call: Call) -> web.StreamResponse:
    """Answer one page of the jobs that have not ended."""
    return await _page(call, finished=False)


async def finished(call: Call) -> web.StreamResponse:
    """Answer one page of the jobs that have ended."""
    return await _page(call, finished=True)


async def _page(call: Call, *, finished: bool | None) -> web.StreamResponse:
    query: ListQuery = call.query
    wanted = rules.listing(query, finished=finished)
    return json(await store.listing(call.ctx.database, call.workspace, query, wanted, call.viewer))
