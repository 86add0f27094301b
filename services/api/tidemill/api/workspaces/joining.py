"""How people come into a workspace: added by an admin, or invited and willing."""

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import Conflict, NotFound
from tidemill.api.http.route import Call
from tidemill.api.users import rules
from tidemill.api.users import store as user_store
from tidemill.api.users.people import NobodyByThatEmail
from tidemill.api.workspaces import store
from tidemill.api.workspaces.schemas import AcceptInvite, DeclineInvite, NewInvite, NewMember, NoInvite


class NoSuchInvite(NotFound):
    """There is no such invitation."""


class AlreadyThere(Conflict):
    """This person is a member already, or another member has this username."""


async def add(call: Call) -> web.Response:
    """Make a person a member of this workspace."""
    wanted: NewMember = call.body
    email = rules.normal_email(wanted.email)
    username = wanted.username or rules.username_from(email)
    rules.refuse_bad_username(username)
    rules.refuse_both(is_admin=wanted.is_admin, operator=wanted.operator)
    async with call.ctx.outbox.transaction() as tx:
        if not await user_store.person_exists(tx, email):
            raise NobodyByThatEmail
        added = await store.add_member(
            tx,
            call.workspace,
            username=username,
            email=email,
            is_admin=wanted.is_admin,
            operator=wanted.operator,
        )
        if not added:
            raise AlreadyThere
        await store.take_invite(tx, call.workspace, email)
        told = {"username": username, "is_admin": wanted.is_admin, "operator": wanted.operator}
        await tx.say(call.audit("Created", email, told))
    return text(f"user {email} added as {username}")


async def invite(call: Call) -> web.Response:
    """Let somebody choose whether to become a member."""
    wanted: NewInvite = call.body
    email = rules.normal_email(wanted.email)
    rules.refuse_bad_email(email)
    rules.refuse_both(is_admin=wanted.is_admin, operator=wanted.operator)
    async with call.ctx.outbox.transaction() as tx:
        if not await store.add_invite(
            tx, call.workspace, email=email, is_admin=wanted.is_admin, operator=wanted.operator
        ):
            raise AlreadyThere
        told = {"invited": email, "is_admin": wanted.is_admin, "operator": wanted.operator}
        await tx.say(call.audit("Updated", call.workspace, told))
    return text(f"user {email} invited")


async def take_back(call: Call) -> web.Response:
    """Take an invitation back."""
    wanted: NoInvite = call.body
    email = rules.normal_email(wanted.email)
    async with call.ctx.outbox.transaction() as tx:
        if await store.take_invite(tx, call.workspace, email) is None:
            raise NoSuchInvite
        await tx.say(call.audit("Updated", call.workspace, {"no_longer_invited": email}))
    return text(f"invitation of {email} deleted")


async def list_pending(call: Call) -> web.Response:
    """Answer who is invited here and has not answered."""
    return json(await store.invites_here(call.ctx.database, call.workspace))


async def list_own(call: Call) -> web.Response:
    """Answer where the viewer is invited."""
    return json(await store.invites_of_person(call.ctx.database, call.viewer.email))


async def accept(call: Call) -> web.Response:
    """Join a workspace as what the invitation says."""
    wanted: AcceptInvite = call.body
    email = call.viewer.email
    username = wanted.username or rules.username_from(email)
    rules.refuse_bad_username(username)
    async with call.ctx.outbox.transaction() as tx:
        found = await store.take_invite(tx, wanted.workspace_id, email)
        if found is None:
            raise NoSuchInvite
        if not await store.add_member(
            tx,
            found.workspace_id,
            username=username,
            email=email,
            is_admin=found.is_admin,
            operator=found.operator,
        ):
            raise AlreadyThere
        await tx.say(call.audit("Created", email, {"username": username}, workspace=found.workspace_id))
    return text(f"joined {found.workspace_id} as {username}")


async def decline(call: Call) -> web.Response:
    """Turn an invitation down."""
    wanted: DeclineInvite = call.body
    async with call.ctx.outbox.transaction() as tx:
        if await store.take_invite(tx, wanted.workspace_id, call.viewer.email) is None:
            raise NoSuchInvite
        await tx.say(call.audit("Delete", call.viewer.email, workspace=wanted.workspace_id))
    return text(f"declined to join {wanted.workspace_id}")
