"""People of the installation: made, changed, removed; and their passwords."""

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import Conflict, NotFound
from tidemill.api.http.policy import credential_of
from tidemill.api.http.route import Call
from tidemill.api.tokens import store as token_store
from tidemill.api.tokens.rules import digest
from tidemill.api.users import rules, store
from tidemill.api.users.schemas import EditPerson, NewPassword, NewPerson, PersonPage


class NobodyByThatEmail(NotFound):
    """There is nobody with this email."""


async def create(call: Call) -> web.Response:
    """Make a person."""
    wanted: NewPerson = call.body
    email = rules.normal_email(wanted.email)
    rules.refuse_bad_email(email)
    hashed = None if wanted.password is None else await call.ctx.passwords.hash(wanted.password)
    async with call.ctx.outbox.transaction() as tx:
        made = await store.add_person(
            tx,
            email,
            password_hash=hashed,
            super_admin=wanted.super_admin,
            name=wanted.name,
            company=wanted.company,
        )
        if not made:
            raise Conflict(f"There is somebody with the email {email} already.")
        await tx.say(call.audit("Created", email, {"super_admin": wanted.super_admin}))
    return text(f"created user {email}", 201)


async def update(call: Call) -> web.Response:
    """Change a person; who is disabled loses their sessions for good."""
    wanted: EditPerson = call.body
    email = rules.normal_email(call.params["email"])
    async with call.ctx.outbox.transaction() as tx:
        if wanted.is_super_admin is False or wanted.disabled:
            rules.refuse_last(email, await store.lock_superadmins(tx))
        if not await store.update_person(
            tx, email, super_admin=wanted.is_super_admin, name=wanted.name, disabled=wanted.disabled
        ):
            raise NobodyByThatEmail
        if wanted.disabled:
            await token_store.end_sessions(tx, email)
        changes = {"super_admin": wanted.is_super_admin, "name": wanted.name, "disabled": wanted.disabled}
        await tx.say(call.audit("Updated", email, {key: value for key, value in changes.items() if value is not None}))
    return text(f"updated user {email}")


async def delete(call: Call) -> web.Response:
    """Remove a person with all that is theirs alone."""
    email = rules.normal_email(call.params["email"])
    async with call.ctx.outbox.transaction() as tx:
        rules.refuse_last(email, await store.lock_superadmins(tx))
        if not await store.remove_person(tx, email):
            raise NobodyByThatEmail
        await tx.say(call.audit("Delete", email))
    return text(f"deleted user {email}")


async def list_all(call: Call) -> web.Response:
    """Answer the people of the installation."""
    page: PersonPage = call.query
    return json(await store.list_people(call.ctx.database, limit=page.per_page, offset=page.offset))


async def exists(call: Call) -> web.Response:
    """Answer whether there is somebody with this email."""
    return json(await store.person_exists(call.ctx.database, rules.normal_email(call.params["email"])))


async def set_own_password(call: Call) -> web.Response:
    """Change the viewer's own password; their other sessions end."""
    await _set_password(call, call.viewer.email)
    return text("password updated")


async def set_password_of(call: Call) -> web.Response:
    """Give somebody another password; their sessions end."""
    await _set_password(call, rules.normal_email(call.params["email"]))
    return text("password updated")


async def _set_password(call: Call, email: str) -> None:
    wanted: NewPassword = call.body
    hashed = await call.ctx.passwords.hash(wanted.password)
    credential = credential_of(call.request)
    assert credential is not None
    async with call.ctx.outbox.transaction() as tx:
        if not await store.set_password(tx, email, hashed):
            raise NobodyByThatEmail
        await token_store.end_sessions(tx, email, but=digest(credential.token))
        await tx.say(call.audit("Updated", email))
