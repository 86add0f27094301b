"""The one place that decides who is asking and whether they may: driven by the route table, deny by default.

credential  Authorization: Bearer, else ?token=, else the cookie `token`
token       one row by its SHA-256, or a job's token checked by the queue; nothing is cached, so a revoked token,
            a disabled person and an ended job are refused with their next request
decision    `refusal()`, pure: policy, method and viewer in, the error out (or None)
scopes      `beyond_scopes()`, pure as well: what the request does to what, against the token's scopes
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never
from uuid import UUID

import msgspec
from aiohttp import web
from asyncpg import Record

from tidemill.api.http.decode import TOKEN_PARAMETER
from tidemill.api.http.errors import Forbidden, HttpError, NotFound, Unauthorized
from tidemill.api.http.origin import is_cross_site, refuse_cross_site
from tidemill.api.http.route import NEEDS_NO_LOGIN, NOBODY, Action, Policy, Route, Viewer, Who
from tidemill.api.tokens.rules import digest, is_job_token
from tidemill.api.tokens.scopes import KINDS, Use, scopes_of
from tidemill.chassis.sql import load

if TYPE_CHECKING:
    from tidemill.api.context import ApiContext

QUERIES = load("tidemill.api.http", "queries.sql")
COOKIE = "token"

_READING = ("GET", "HEAD", "OPTIONS")
_LONGEST_TOKEN = 512
_JOB = "job"
_NOT_VALID = "This token is not valid: it is unknown, expired or revoked."


class Source(StrEnum):
    """How a token came to us."""

    BEARER = "bearer"
    QUERY = "query"
    COOKIE = "cookie"


@dataclass(frozen=True)
class Credential:
    """A token as it was sent."""

    token: str
    source: Source


@dataclass(frozen=True, kw_only=True)
class Asking:
    """A viewer together with what the token and the workspace allow."""

    viewer: Viewer
    workspace_exists: bool = False
    token_workspace: str | None = None


class _Snapshot(msgspec.Struct, frozen=True):
    """What was stored with a job of its identity's rights, and of the limits of the token that requested it."""

    username: str = ""
    is_admin: bool = False
    operator: bool = False
    scopes: list[str] | None = None
    token_ends: datetime | None = None


def credential_of(request: web.Request, *, in_query: bool = True) -> Credential | None:
    """Return the token of a request; what was sent on purpose comes before what a browser sends by itself."""
    scheme, _, value = request.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return Credential(value.strip(), Source.BEARER)
    if in_query and (value := request.query.get(TOKEN_PARAMETER, "").strip()):
        return Credential(value, Source.QUERY)
    if value := request.cookies.get(COOKIE, "").strip():
        return Credential(value, Source.COOKIE)
    return None


async def authorise(ctx: "ApiContext", route: Route, params: Mapping[str, str], request: web.Request) -> Viewer:
    """Return who may make this call; raises Unauthorized, Forbidden or NotFound."""
    if route.policy.who in NEEDS_NO_LOGIN:
        return NOBODY
    credential = credential_of(request)
    if credential is None:
        raise Unauthorized
    if credential.source is Source.COOKIE and not _only_reads(route.policy, request.method):
        refuse_cross_site(request, ctx.settings)
    workspace = params.get("workspace")
    asking = await _identify(ctx, credential.token, workspace)
    if asking is None:
        raise Unauthorized(_NOT_VALID)
    refused = refusal(route.policy, request.method, workspace, asking)
    if refused is not None and workspace is not None and not asking.workspace_exists:
        refused = await _if_archived(ctx, workspace, asking) or refused
    if refused is None:
        refused = await _of_scopes(ctx, route, params, asking.viewer)
    if refused is not None:
        raise refused
    return asking.viewer


async def recognise(ctx: "ApiContext", route: Route, params: Mapping[str, str], request: web.Request) -> Viewer | None:
    """Return the member or superadmin who makes a call that needs no login, or None when there is none.

    None as well when a login is not good for this call: it counts as none. A job's token is no person's login, and
    neither is what the route itself takes by the name of one.
    """
    takes = () if route.query is None else route.query.__struct_encode_fields__
    credential = credential_of(request, in_query=TOKEN_PARAMETER not in takes)
    workspace = params.get("workspace")
    if credential is None or is_job_token(credential.token):
        return None
    if credential.source is Source.COOKIE and is_cross_site(request, ctx.settings):
        return None
    asking = await _identify(ctx, credential.token, workspace)
    if asking is None or refusal(replace(route.policy, who=Who.MEMBER), request.method, workspace, asking) is not None:
        return None
    return None if await _of_scopes(ctx, route, params, asking.viewer) is not None else asking.viewer


async def may(ctx: "ApiContext", route: Route, params: Mapping[str, str], viewer: Viewer, action: Action) -> bool:
    """Return whether a token allows to do more with what a request is about than its route itself does."""
    if viewer.read_only and action != "read":
        return False
    return await _of_scopes(ctx, route, params, viewer, action) is None


def refusal(policy: Policy, method: str, workspace: str | None, asking: Asking) -> HttpError | None:
    """Return why this call is refused, or None when it is allowed."""
    viewer = asking.viewer
    if asking.token_workspace is not None and asking.token_workspace != workspace:
        # 401 outside of any workspace: the CLI then asks who it is within the workspace.
        kind = Unauthorized if workspace is None else Forbidden
        return kind(f"This token is only for the workspace {asking.token_workspace}.")
    if viewer.job_workspace is not None and workspace not in (None, viewer.job_workspace):
        return Forbidden("A job's token is only for the job's own workspace.")
    if viewer.read_only and not _only_reads(policy, method):
        return Forbidden("This token may only read.")
    if workspace is not None and policy.who not in NEEDS_NO_LOGIN:
        if viewer.is_super_admin and not asking.workspace_exists:
            return NotFound(f"There is no workspace {workspace}.")
        if not (viewer.is_member or viewer.is_super_admin):
            return Forbidden(f"There is no workspace {workspace}, or you are not a member of it.")
    return _lacking(policy.who, viewer)


def beyond_scopes(route: Route, viewer: Viewer, use: Use) -> HttpError | None:
    """Return why the token's scopes do not cover this, or None when they do or there are none."""
    if route.in_person and viewer.job_id is not None:
        return Forbidden("A job's token may not do this.")
    if viewer.scopes is None or route.policy.who is Who.JOB:
        return None
    if route.in_person:
        return Forbidden("A token with scopes may not do this.")
    if viewer.scopes.allow(use):
        return None
    needed = ":".join(filter(None, (use.domain, use.action, use.kind, use.path)))
    return Forbidden(f"This token lacks scope: this needs {needed}.")


async def _if_archived(ctx: "ApiContext", workspace: str, asking: Asking) -> HttpError | None:
    """Return the reason why those who belong there can't enter a workspace; to everybody else it is just not there."""
    viewer = asking.viewer
    if asking.token_workspace not in (None, workspace) or viewer.job_workspace is not None:
        return None
    if await ctx.database.fetchval(QUERIES.is_archived, workspace, viewer.email, viewer.is_super_admin):
        return Forbidden(
            f"The workspace {workspace} is archived: nothing runs in it until a superadmin opens it again."
        )
    return None


async def _of_scopes(
    ctx: "ApiContext", route: Route, params: Mapping[str, str], viewer: Viewer, action: Action | None = None
) -> HttpError | None:
    kind, name = _resource(route, params)
    tags = viewer.only_tags
    if tags is not None and kind == _JOB and name is not None:
        tagged = await _job_of(ctx, params["workspace"], name, viewer)
        if tagged is not None and tagged["tag"] not in tags:
            return NotFound(f"There is no job {name}.")
    use = Use(
        domain=route.policy.domain,
        action=action or route.policy.action,
        kind=kind if kind in KINDS else "",
        path=name if kind != _JOB else None,
    )
    refused = beyond_scopes(route, viewer, use)
    if refused is None or viewer.scopes is None or kind != _JOB or name is None:
        return refused
    # Whose job it is and of which path, only its row knows; asked for only when that may make a difference.
    job = await _job_of(ctx, params["workspace"], name, viewer)
    if job is None:
        return refused
    if not route.in_person and job["of_own_run"] and (use.action == "read" or route.within_run):
        return None
    follows = use.action == "read" and job["created_by"] == viewer.username
    kind = "" if job["path"] is None else f"{job['kind']}s"
    known = [replace(use, kind=kind, path=job["path"], follows_job=follows)]
    if use.action == "read" and job["flow_path"] is not None:
        known.append(replace(use, kind="flows", path=job["flow_path"], follows_job=follows))
    # The first refusal, which does not tell the path.
    return refused if all(beyond_scopes(route, viewer, each) is not None for each in known) else None


def _resource(route: Route, params: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the kind and the name of what a request is about, as far as its route tells."""
    before, brace, name = route.resource.partition("{")
    return before.removesuffix(":"), params[name.removesuffix("}")] if brace else None


async def _job_of(ctx: "ApiContext", workspace: str, name: str, viewer: Viewer) -> Record | None:
    try:
        job = UUID(name)
    except ValueError:
        return None
    return await ctx.database.fetchrow(QUERIES.job_of, workspace, job, viewer.job_id)


def _lacking(who: Who, viewer: Viewer) -> HttpError | None:
    match who:
        case Who.ANYONE | Who.HOLDER | Who.PERSON | Who.MEMBER:
            return None
        case Who.DEVELOPER:
            allowed = viewer.is_admin or not viewer.operator
            return None if allowed else Forbidden("An operator may not do this.")
        case Who.ADMIN:
            return None if viewer.is_admin else Forbidden("Only an admin of the workspace may do this.")
        case Who.SUPERADMIN:
            return None if viewer.is_super_admin else Forbidden("Only a superadmin may do this.")
        case Who.JOB:
            return None if viewer.job_id is not None else Forbidden("Only a running job may do this of itself.")
        case _:
            assert_never(who)


def _only_reads(policy: Policy, method: str) -> bool:
    return method in _READING and policy.action == "read"


async def _identify(ctx: "ApiContext", token: str, workspace: str | None) -> Asking | None:
    if len(token) > _LONGEST_TOKEN or not (token.isascii() and token.isprintable()):
        return None
    if is_job_token(token):
        return await _job(ctx, token, workspace)
    hashed = digest(token)
    row = await ctx.database.fetchrow(QUERIES.person_by_token, hashed, workspace)
    if row is None:
        return None
    ctx.token_usage.note(hashed)
    member = row["username"] is not None
    return Asking(
        viewer=Viewer(
            email=row["email"],
            # Outside of their workspaces superadmins go by their email.
            username=row["username"] if member else row["email"],
            is_admin=row["is_admin"] or row["super_admin"],
            is_super_admin=row["super_admin"],
            operator=row["operator"] and not row["super_admin"],
            is_member=member,
            token_prefix=row["prefix"],
            read_only=row["read_only"],
            scopes=scopes_of(row["scopes"]),
            token_ends=row["expires_at"],
        ),
        workspace_exists=row["workspace_exists"],
        token_workspace=row["token_workspace"],
    )


async def _job(ctx: "ApiContext", token: str, workspace: str | None) -> Asking | None:
    row = await ctx.database.fetchrow(QUERIES.job_by_token, token)
    if row is None:
        return None
    rights = msgspec.json.decode(row["permissions"] or "{}", type=_Snapshot)
    return Asking(
        viewer=Viewer(
            email=row["email"],
            username=rights.username or row["permissioned_as"].partition("/")[2],
            is_admin=rights.is_admin,
            operator=rights.operator,
            is_member=True,
            job_id=row["job_id"],
            job_workspace=row["workspace_id"],
            scopes=scopes_of(rights.scopes),
            token_ends=rights.token_ends,
        ),
        workspace_exists=workspace == row["workspace_id"],
    )
