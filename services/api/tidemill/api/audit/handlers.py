"""Reading the audit log."""

from aiohttp import web

from tidemill.api.audit import rules, store
from tidemill.api.audit.schemas import AuditFilter
from tidemill.api.http.answer import json
from tidemill.api.http.errors import NotFound
from tidemill.api.http.route import Call

_HIGHEST = 2**63 - 1


class NoSuchEntry(NotFound):
    """There is no such entry that you may see."""


async def list_entries(call: Call) -> web.Response:
    """Answer what was done, newest first."""
    wanted: AuditFilter = call.query
    reach = rules.reach_of(call.viewer, call.workspace, all_workspaces=wanted.all_workspaces)
    return json(await store.list_entries(call.ctx.database, reach, wanted))


async def get_entry(call: Call) -> web.Response:
    """Answer one entry."""
    number = call.params["id"]
    if not (number.isascii() and number.isdigit()) or int(number[:20]) > _HIGHEST:
        raise NoSuchEntry
    reach = rules.reach_of(call.viewer, call.workspace)
    found = await store.entry(call.ctx.database, reach, int(number))
    if found is None:
        raise NoSuchEntry
    return json(found)
