"""Lists of jobs, newest first."""

from collections.abc import Sequence

from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.route import Call
from tidemill.api.jobs import rules, store
from tidemill.api.jobs.schemas import CompletedCount, Job, ListQuery, QueueCount


async def everything(call: Call) -> web.StreamResponse:
    """Answer one page of all jobs."""
    return await _page(call, finished=None)


async def unfinished(call: Call) -> web.StreamResponse:
    """Answer one page of the jobs that have not ended."""
    return await _page(call, finished=False)


async def finished(call: Call) -> web.StreamResponse:
    """Answer one page of the jobs that have ended."""
    return await _page(call, finished=True)


async def ids(call: Call) -> web.StreamResponse:
    """Answer the ids of one page of all jobs."""
    return json([each.id for each in await _jobs(call, finished=None)])


async def unfinished_ids(call: Call) -> web.StreamResponse:
    """Answer the ids of one page of the jobs that have not ended."""
    return json([each.id for each in await _jobs(call, finished=False)])


async def count_unfinished(call: Call) -> web.StreamResponse:
    """Answer how many jobs have not ended."""
    length, suspended = await store.count_unfinished(call.ctx.database, call.workspace)
    return json(QueueCount(database_length=length, suspended=suspended))


async def count_finished(call: Call) -> web.StreamResponse:
    """Answer how many jobs have ended."""
    return json(CompletedCount(database_length=await store.count_finished(call.ctx.database, call.workspace)))


async def _page(call: Call, *, finished: bool | None) -> web.StreamResponse:
    return json(await _jobs(call, finished=finished))


async def _jobs(call: Call, *, finished: bool | None) -> Sequence[Job]:
    query: ListQuery = call.query
    wanted = rules.listing(query, finished=finished)
    return await store.listing(call.ctx.database, call.workspace, query, wanted, call.viewer)
