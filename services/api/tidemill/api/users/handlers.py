"""Who am I, and who is that."""

from aiohttp import web

from tidemill.api.http.answer import json, or_unset, text
from tidemill.api.http.errors import NotFound
from tidemill.api.http.route import Call
from tidemill.api.users import store
from tidemill.api.users.schemas import GlobalUserInfo, User


class NobodyByThatName(NotFound):
    """Nobody has this username in this workspace."""


async def whoami(call: Call) -> web.Response:
    """Answer the person behind the token; a job's token is no superadmin, whoever it runs as."""
    viewer = call.viewer
    person = await store.person(call.ctx.database, viewer.email)
    return json(
        GlobalUserInfo(
            email=viewer.email,
            super_admin=viewer.is_super_admin,
            name=person.name if person else or_unset(None),
            company=person.company if person else or_unset(None),
        )
    )


async def whoami_here(call: Call) -> web.Response:
    """Answer what the viewer is in this workspace."""
    viewer = call.viewer
    since = await store.member_since(call.ctx.database, call.workspace, viewer.email)
    return json(
        User(
            email=viewer.email,
            username=viewer.username,
            is_admin=viewer.is_admin,
            is_super_admin=viewer.is_super_admin,
            created_at=since.created_at if since else call.ctx.clock.now(),
            operator=viewer.operator,
            name=or_unset(since.name if since else None),
            groups=tuple(viewer.permissions()["groups"]),
            non_member=or_unset(None if viewer.is_member else True),
        )
    )


async def username_to_email(call: Call) -> web.Response:
    """Answer the email behind a username."""
    email = await store.email_of_username(call.ctx.database, call.workspace, call.params["username"])
    if email is None:
        raise NobodyByThatName
    return text(email)
