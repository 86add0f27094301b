"""What the routes of workspaces do."""

from collections.abc import Mapping
from uuid import UUID

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import Conflict, NotFound
from tidemill.api.http.route import ADMINS, Call
from tidemill.api.jobs import cancel
from tidemill.api.jobs import store as jobs
from tidemill.api.jobs.store import Canceled
from tidemill.api.users.rules import username_from
from tidemill.api.workspaces import rules, store
from tidemill.api.workspaces.schemas import CreateWorkspace, UserWorkspaceList, WorkspaceExists, WorkspacePage
from tidemill.chassis.outbox import SayingTransaction


class NoSuchWorkspace(NotFound):
    """There is no such workspace."""


async def exists(call: Call) -> web.Response:
    """Answer whether the id is taken."""
    asked: WorkspaceExists = call.body
    return json(await store.exists(call.ctx.database, asked.id))


async def create(call: Call) -> web.Response:
    """Make a workspace with the viewer as its admin."""
    wanted: CreateWorkspace = call.body
    username = wanted.username or username_from(call.viewer.email)
    rules.refuse_bad(wanted, username)
    async with call.ctx.outbox.transaction() as tx:
        if not await store.add(tx, wanted.id, name=wanted.name, owner=call.viewer.email, color=wanted.color):
            raise Conflict(f"There is a workspace {wanted.id} already.")
        await store.add_member(tx, wanted.id, username=username, email=call.viewer.email, is_admin=True)
        await tx.say(call.audit("Created", wanted.id, {"name": wanted.name}, workspace=wanted.id))
    return text(f"Created workspace {wanted.id}", 201)


async def list_own(call: Call) -> web.Response:
    """Answer the workspaces that the viewer may enter."""
    return json(await store.list_of_person(call.ctx.database, call.viewer.email, only=call.viewer.job_workspace))


async def list_memberships(call: Call) -> web.Response:
    """Answer the viewer's workspaces with what they are there."""
    found = await store.memberships(call.ctx.database, call.viewer.email, only=call.viewer.job_workspace)
    return json(UserWorkspaceList(email=call.viewer.email, workspaces=list(found)))


async def list_all(call: Call) -> web.Response:
    """Answer every workspace of the installation."""
    page: WorkspacePage = call.query
    return json(await store.list_all(call.ctx.database, limit=page.per_page, offset=page.offset))


async def get_name(call: Call) -> web.Response:
    """Answer the name that people read."""
    name = await store.name_of(call.ctx.database, call.workspace)
    if name is None:
        raise NoSuchWorkspace
    return text(name)


async def archive(call: Call) -> web.Response:
    """Close this workspace: nobody enters it, no token and no job acts in it, until it is opened again."""
    rules.refuse_closing(call.workspace)
    return await _set_archived(call, call.workspace, archived=True)


async def unarchive(call: Call) -> web.Response:
    """Open a workspace again."""
    return await _set_archived(call, call.params["id"], archived=False)


async def delete(call: Call) -> web.Response:
    """Remove a workspace with all that belongs to it; its unfinished jobs are canceled."""
    workspace = call.params["id"]
    rules.refuse_closing(workspace)
    async with call.ctx.outbox.transaction() as tx:
        if not await store.remove(tx, workspace):
            raise NoSuchWorkspace
        canceled = await _close(call, tx, workspace, "the workspace was deleted")
        # Told in the installation's own log: there is nobody left to read the workspace's.
        await tx.say(call.audit("Delete", workspace, workspace=ADMINS))
    _tell(call, canceled)
    return text(f"Deleted workspace {workspace}")


async def _set_archived(call: Call, workspace: str, *, archived: bool) -> web.Response:
    canceled: Mapping[UUID, Canceled] = {}
    async with call.ctx.outbox.transaction() as tx:
        if not await store.set_archived(tx, workspace, archived=archived):
            raise NoSuchWorkspace
        if archived:
            canceled = await _close(call, tx, workspace, "the workspace was archived")
        else:
            await jobs.open_workspace(tx, workspace)
        await tx.say(call.audit("Updated", workspace, workspace=workspace))
    _tell(call, canceled)
    return text(f"{'Archived' if archived else 'Unarchived'} workspace {workspace}")


async def _close(call: Call, tx: SayingTransaction, workspace: str, reason: str) -> Mapping[UUID, Canceled]:
    canceled, said = await jobs.close_workspace(tx, workspace, call.viewer.username, reason)
    if said is not None:
        tx.said.append(said)
    return canceled


def _tell(call: Call, canceled: Mapping[UUID, Canceled]) -> None:
    for job_id, how in canceled.items():
        cancel.tell(call.ctx, job_id, how)
