"""Lists of jobs, newest first, and counts."""

from datetime import timedelta

import msgspec
from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.decode import TOKEN_PARAMETER
from tidemill.api.http.errors import Forbidden
from tidemill.api.http.route import ADMINS, Call
from tidemill.api.jobs import rules, store
from tidemill.api.jobs.schemas import (
    LONGEST_PAGE,
    CompletedCount,
    EndedCountQuery,
    ListQuery,
    QueueCount,
    QueueCountQuery,
    TagCountQuery,
)


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
    return await _page(call, finished=None, ids_only=True)


async def unfinished_ids(call: Call) -> web.StreamResponse:
    """Answer the ids of one page of the jobs that have not ended."""
    return await _page(call, finished=False, ids_only=True)


async def count_unfinished(call: Call) -> web.StreamResponse:
    """Answer how many jobs have not ended."""
    query: QueueCountQuery = call.query
    where = _where(call, all_workspaces=query.all_workspaces)
    length, suspended = await store.count_unfinished(call.ctx.database, where, call.viewer.only_tags)
    return json(QueueCount(database_length=length, suspended=suspended))


async def count_finished(call: Call) -> web.StreamResponse:
    """Answer how many jobs have ended."""
    count = await store.count_finished(call.ctx.database, call.workspace, call.viewer.only_tags)
    return json(CompletedCount(database_length=count))


async def count_ended(call: Call) -> web.StreamResponse:
    """Answer how many jobs have ended in one way."""
    query: EndedCountQuery = call.query
    seconds = query.completed_after_s_ago
    count = await store.count_ended(
        call.ctx.database,
        _where(call, all_workspaces=query.all_workspaces),
        call.viewer.only_tags,
        [each.strip() for each in query.tags.split(",")] if query.tags else None,
        success=query.success,
        within_last=None if seconds is None else timedelta(seconds=seconds),
    )
    return json(count)


async def count_ended_by_tag(call: Call) -> web.StreamResponse:
    """Answer how many jobs have ended lately, by their tags."""
    query: TagCountQuery = call.query
    lately = timedelta(seconds=query.horizon_secs)
    return json(await store.count_ended_by_tag(call.ctx.database, query.workspace_id, call.viewer.only_tags, lately))


async def _page(call: Call, *, finished: bool | None, ids_only: bool = False) -> web.StreamResponse:
    query: ListQuery = call.query
    query = msgspec.structs.replace(query, per_page=min(query.per_page, LONGEST_PAGE))
    rules.refuse_order(query)
    where = _where(call, all_workspaces=query.all_workspaces)
    wanted = rules.listing(query, finished=finished)
    jobs, following = await store.listing(call.ctx.database, where, query, wanted, call.viewer)
    answer = json([each.id for each in jobs] if ids_only else jobs)
    if following is not None:
        answer.headers["Link"] = link_to(call, following)
    return answer


def link_to(call: Call, following: rules.Cursor) -> str:
    """Return the header that says where the next page is, relative to this server, without the token of this one."""
    here = call.request.rel_url.without_query_params("cursor", "page", TOKEN_PARAMETER)
    return f'<{here.update_query(cursor=rules.spell(following))}>; rel="next"'


def _where(call: Call, *, all_workspaces: bool) -> str:
    """Return the workspace that is looked at, or an empty text for all; raises Forbidden."""
    if all_workspaces and not (call.viewer.is_super_admin and call.workspace == ADMINS):
        raise Forbidden(f"Only a superadmin sees all workspaces, from the workspace {ADMINS}.")
    return "" if all_workspaces else call.workspace
