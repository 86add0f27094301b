"""What the routes of tokens do."""

from collections.abc import Sequence
from datetime import datetime

from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import Forbidden, NotFound, Unprocessable
from tidemill.api.http.route import Call, Viewer
from tidemill.api.tokens import rules, store
from tidemill.api.tokens.schemas import NewLabel, NewScopes, NewToken, TokenPage
from tidemill.api.tokens.scopes import NotAScope, scopes_of


class NoSuchToken(NotFound):
    """You have no token with this prefix."""


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
    scopes = _wanted(viewer, wanted.scopes)
    _refuse_longer(viewer, wanted.expiration)
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
            scopes=scopes,
        )
        parameters = {"label": wanted.label or "", "read_only": bool(wanted.read_only), "scopes": scopes or []}
        await tx.say(call.audit("Created", secret.prefix, parameters, workspace=workspace or ""))
    return text(secret.text, 201)


async def list_own(call: Call) -> web.Response:
    """Answer the viewer's own tokens, newest first."""
    page: TokenPage = call.query
    tokens = await store.list_of_person(
        call.ctx.database,
        _reach(call.viewer),
        limit=page.per_page,
        offset=page.offset,
    )
    return json(tokens)


async def delete(call: Call) -> web.Response:
    """Revoke one of the viewer's own tokens."""
    prefix = call.params["token_prefix"]
    async with call.ctx.outbox.transaction() as tx:
        if not await store.remove_by_prefix(tx, _reach(call.viewer), prefix):
            raise NoSuchToken
        await tx.say(call.audit("Delete", prefix, workspace=call.viewer.job_workspace or ""))
    return text(f"deleted token {prefix}")


async def update_label(call: Call) -> web.Response:
    """Call one of the viewer's own tokens something else."""
    wanted: NewLabel = call.body
    prefix = call.params["token_prefix"]
    async with call.ctx.outbox.transaction() as tx:
        if not await store.update_label(tx, _reach(call.viewer), prefix, wanted.label):
            raise NoSuchToken
        await tx.say(call.audit("Updated", prefix, {"label": wanted.label or ""}))
    return text(f"updated label of token {prefix}")


async def update_scopes(call: Call) -> web.Response:
    """Limit one of the viewer's own tokens anew."""
    wanted: NewScopes = call.body
    prefix = call.params["token_prefix"]
    scopes = _wanted(call.viewer, wanted.scopes)
    async with call.ctx.outbox.transaction() as tx:
        if not await store.update_scopes(tx, _reach(call.viewer), prefix, scopes):
            raise NoSuchToken
        await tx.say(call.audit("Updated", prefix, {"scopes": scopes or []}))
    return text(f"updated scopes of token {prefix}")


def _reach(viewer: Viewer) -> store.Reach:
    return store.Reach(
        email=viewer.email,
        workspace=viewer.job_workspace,
        scopes=None if viewer.scopes is None else viewer.scopes.texts,
    )


def _wanted(viewer: Viewer, texts: Sequence[str] | None) -> Sequence[str] | None:
    """Return the scopes to be kept; raises Unprocessable for what is none, Forbidden for more than the viewer's own."""
    try:
        scopes = scopes_of(texts)
    except NotAScope as error:
        raise Unprocessable(f"The field scopes is not allowed: {error}.") from None
    if viewer.scopes is not None and (scopes is None or not viewer.scopes.contain(scopes)):
        raise Forbidden("A token with scopes makes none that may do more than itself.")
    return texts or None


def _refuse_longer(viewer: Viewer, expiration: datetime | None) -> None:
    limited = viewer.scopes is not None or viewer.job_id is not None
    if not limited or viewer.token_ends is None:
        return
    if expiration is None or expiration > viewer.token_ends:
        raise Forbidden(
            "A token with scopes, or a job that it has requested, makes none that lasts longer than the token."
            if viewer.scopes is not None
            else "A job makes no token that lasts longer than the one that it was requested with."
        )
