"""Logging in and out: a session is a token with an end, in a cookie that scripts of a page can't read."""

from collections.abc import Mapping

from aiohttp import web

from tidemill.api.http.answer import text
from tidemill.api.http.errors import BadRequest, TooManyRequests, Unauthorized
from tidemill.api.http.origin import client_address, network_of, refuse_cross_site
from tidemill.api.http.policy import COOKIE, Credential, credential_of
from tidemill.api.http.route import Call
from tidemill.api.tokens import rules as tokens
from tidemill.api.tokens import store as token_store
from tidemill.api.users import rules, store
from tidemill.api.users.schemas import Login
from tidemill.shared.messages.audit import AuditRecorded

SESSION_LABEL = "session"


class WrongLogin(Unauthorized):
    """The email or the password is wrong."""


async def log_in(call: Call) -> web.Response:
    """Answer a new session's token, in the body and as a cookie."""
    ctx, wanted = call.ctx, call.body
    assert isinstance(wanted, Login)
    refuse_cross_site(call.request, ctx.settings)
    email = rules.normal_email(wanted.email)
    address = client_address(call.request, ctx.settings.trusted_networks())
    place = network_of(address)
    wait = ctx.guesses.wait_for(email, place)
    if wait is not None:
        if ctx.guesses.first_refusal(email, place):
            await _say_refused(call, email, address, "too many failed logins")
        raise TooManyRequests("Too many failed logins; try again later.", retry_after=wait)
    ctx.guesses.begin(email, place)
    stored = await store.password_hash_of(ctx.database, email)
    # Also for somebody unknown: the same work, so that time does not tell who exists.
    try:
        right = await ctx.passwords.verify(stored, wanted.password)
    except TooManyRequests:
        await _say_refused(call, email, address, "too many logins at once")
        raise
    if not right:
        await _say_refused(call, email, address, "wrong email or password")
        raise WrongLogin
    ctx.guesses.succeeded(email, place)
    secret = tokens.mint()
    ttl = ctx.settings.session_ttl
    async with ctx.outbox.transaction() as tx:
        await token_store.add(
            tx,
            secret,
            email=email,
            label=SESSION_LABEL,
            workspace=None,
            read_only=False,
            expires_at=ctx.clock.now() + ttl,
            is_session=True,
        )
        await tx.say(_event(call, email, "users.login", {"address": address}))
    response = text(secret.text)
    response.set_cookie(
        COOKIE,
        secret.text,
        max_age=int(ttl.total_seconds()),
        path="/",
        httponly=True,
        samesite="Lax",
        secure=ctx.settings.public_url.startswith("https://"),
    )
    return response


async def log_out(call: Call) -> web.Response:
    """Revoke the token that was sent and take the cookie back."""
    credential = credential_of(call.request)
    assert isinstance(credential, Credential)
    if call.viewer.job_id is not None:
        raise BadRequest("A job's token ends with its job.")
    async with call.ctx.outbox.transaction() as tx:
        await token_store.remove_by_hash(tx, tokens.digest(credential.token))
        await tx.say(call.audit("Execute", call.viewer.email))
    response = text("logged out")
    response.del_cookie(COOKIE, path="/")
    return response


async def _say_refused(call: Call, email: str, address: str, reason: str) -> None:
    async with call.ctx.outbox.transaction() as tx:
        await tx.say(_event(call, email, "users.login_failure", {"address": address, "reason": reason}))


def _event(call: Call, email: str, operation: str, parameters: Mapping[str, str]) -> AuditRecorded:
    return AuditRecorded(
        workspace_id="",
        at=call.ctx.clock.now(),
        username=email,
        email=email,
        operation=operation,
        action_kind="Execute",
        resource=email,
        parameters=dict(parameters),
    )
