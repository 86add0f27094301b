"""What the routes of tokens do."""

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import Forbidden, NotFound, Unprocessable
from tidemill.api.http.route import Call
from tidemill.api.tokens import rules, store
from tidemill.api.tokens.schemas import NewToken, TokenPage


async def create(call: Call) -> web.Response:
    """Answer the new token, the only time it is shown."""
    wanted: NewToken = call.body
    viewer = call.viewer
    if wanted.expiration is not None and wanted.expiration <= call.ctx.clock.now():
        raise Unprocessable("The field expiration is not allowed: it is in the past.")
    if viewer.job_id is not None and wanted.expiration is None:
        raise Unprocessable("The field expiration is missing: a token that a job makes has to end.")
    if viewer.job_workspace is not None and wanted.workspace_id not in (None, viewer.job_workspace):
        raise Forbidden("A job may only make tokens for its own workspace.")
    # What a job makes may never reach further than the job itself.
    workspace = viewer.job_workspace or wanted.workspace_id
    secret = rules.mint()
    async with call.ctx.outbox.transaction() as tx:
        if workspace is not None and not await store.may_bind(
            tx, workspace, viewer.email, is_super_admin=viewer.is_super_admin
        ):
            raise Unprocessable(f"The field workspace_id is not allowed: you are not a member of {workspace}.")
        await store.add(
            tx,
            secret,
            email=viewer.email,
            label=wanted.label,
            workspace=workspace,
            read_only=bool(wanted.read_only),
            expires_at=wanted.expiration,
        )
        parameters = {"label": wanted.label or "", "read_only": bool(wanted.read_only)}
        await tx.say(call.audit("Created", secret.prefix, parameters, workspace=workspace or ""))
    return text(secret.text, 201)


async def list_own(call: Call) -> web.Response:
    """Answer the viewer's own tokens, newest first."""
    page: TokenPage = call.query
    tokens = await store.list_of_person(
        call.ctx.database,
        call.viewer.email,
        workspace=call.viewer.job_workspace,
        limit=page.per_page,
        offset=page.offset,
    )
    return json(tokens)


async def delete(call: Call) -> web.Response:
    """Revoke one of the viewer's own tokens."""
    prefix = call.params["token_prefix"]
    async with call.ctx.outbox.transaction() as tx:
        if not await store.remove_by_prefix(tx, call.viewer.email, prefix, workspace=call.viewer.job_workspace):
            raise NotFound("You have no token with this prefix.")
        await tx.say(call.audit("Delete", prefix, workspace=call.viewer.job_workspace or ""))
    return text(f"deleted token {prefix}")
