"""Members of a workspace: listed, changed, taken out."""

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.route import Call
from tidemill.api.tokens import store as token_store
from tidemill.api.users import rules, store
from tidemill.api.users.handlers import NobodyByThatName
from tidemill.api.users.schemas import EditMember


async def list_here(call: Call) -> web.Response:
    """Answer the members of this workspace."""
    return json(await store.members(call.ctx.database, call.workspace))


async def get(call: Call) -> web.Response:
    """Answer one member of this workspace."""
    member = await store.member(call.ctx.database, call.workspace, call.params["username"])
    if member is None:
        raise NobodyByThatName
    return json(member)


async def update(call: Call) -> web.Response:
    """Change what a member is here; it counts from their next request on."""
    wanted: EditMember = call.body
    rules.refuse_both(is_admin=wanted.is_admin, operator=wanted.operator)
    username = call.params["username"]
    changes = {"is_admin": wanted.is_admin, "operator": wanted.operator, "disabled": wanted.disabled}
    async with call.ctx.outbox.transaction() as tx:
        if await store.update_member(tx, call.workspace, username, **changes) is None:
            raise NobodyByThatName
        told = {key: value for key, value in changes.items() if value is not None}
        await tx.say(call.audit("Updated", username, told))
    return text(f"updated user {username}")


async def delete(call: Call) -> web.Response:
    """Take a member out of this workspace, with the tokens that they have bound to it."""
    await _remove(call, call.params["username"])
    return text(f"deleted user {call.params['username']}")


async def leave(call: Call) -> web.Response:
    """Take the viewer out of this workspace."""
    await _remove(call, call.viewer.username)
    return text(f"left workspace {call.workspace}")


async def _remove(call: Call, username: str) -> None:
    async with call.ctx.outbox.transaction() as tx:
        email = await store.remove_member(tx, call.workspace, username)
        if email is None:
            raise NobodyByThatName
        await token_store.remove_of_person_here(tx, email, call.workspace)
        await tx.say(call.audit("Delete", username))
