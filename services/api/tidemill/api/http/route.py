"""A route is one row of a table: path, policy, what it takes, what it answers, and the handler.

Everything that has to hold for every route is decided from these rows: who may call it (`policy.py`), what of the
request reaches the handler (`decode.py`), and the OpenAPI document (`openapi.py`). A row that lacks something can't be
built, so a route without a policy does not exist.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from tidemill.api.http.operations import OPERATIONS
from tidemill.api.tokens.scopes import KINDS, Scopes
from tidemill.shared.messages.audit import ActionKind, AuditRecorded

if TYPE_CHECKING:
    from tidemill.api.context import ApiContext

Action = Literal["read", "write", "run"]
ADMINS = "admins"
"""The workspace of the installation itself."""

_PARAMETER = re.compile(r"\{([a-z_]+)(\.\.\.)?\}")
_RESOURCE = re.compile(rf"|\{{[a-z_]+\}}|job:\{{[a-z_]+\}}|({'|'.join(sorted(KINDS))})(:\{{[a-z_]+\}})?")


class Who(StrEnum):
    """Who may call a route, from everybody to almost nobody."""

    ANYONE = "anyone"
    HOLDER = "holder"
    """Of a signed address: its handler checks the signature, or asks `policy.recognise` who it is."""
    PERSON = "person"
    """Any valid login."""
    MEMBER = "member"
    """Of the workspace in the path; operators too."""
    DEVELOPER = "developer"
    """A member who is no operator."""
    ADMIN = "admin"
    SUPERADMIN = "superadmin"
    JOB = "job"
    """A running job with its own token, of itself; the limits of the token that it was requested with don't matter."""


NEEDS_NO_LOGIN = (Who.ANYONE, Who.HOLDER)
_OF_A_WORKSPACE = (Who.MEMBER, Who.DEVELOPER, Who.ADMIN, Who.JOB)


@dataclass(frozen=True)
class Policy:
    """What a route is about, what it does there, and who may."""

    domain: str
    action: Action
    who: Who


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a status means, for the OpenAPI document; `kind` is the struct of a JSON answer."""

    says: str
    media: str = "text/plain"
    kind: Any = str


def answers_text(says: str) -> Answer:
    """Describe an answer of bare text."""
    return Answer(says=says)


def answers_json(kind: Any, says: str) -> Answer:
    """Describe a JSON answer."""
    return Answer(says=says, media="application/json", kind=kind)


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A field that clients know and we do not support yet: any other value than these is refused with the reason."""

    reason: str
    harmless: tuple[Any, ...] = (None, False, 0, "", [], {})


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Who is asking, and what they are in the workspace of the path (if it has one)."""

    email: str
    username: str
    is_admin: bool = False
    is_super_admin: bool = False
    operator: bool = False
    is_member: bool = False
    """False for a superadmin who looks into a workspace from outside."""
    job_id: UUID | None = None
    """Set when a job asks with its own token; it then acts as its `permissioned_as`, in its own workspace only."""
    job_workspace: str | None = None
    token_prefix: str = ""
    read_only: bool = False
    scopes: Scopes | None = None
    """What the token may do, None when it may do all that its person may."""
    token_ends: datetime | None = None

    @property
    def permissioned_as(self) -> str:
        """The identity that a job requested by this viewer runs as."""
        return f"u/{self.username}"

    @property
    def only_tags(self) -> Sequence[str] | None:
        """The tags of the only jobs that the token knows, None when it knows all."""
        return None if self.scopes is None else self.scopes.tags

    def permissions(self) -> dict[str, Any]:
        """Return what is stored with a job: it may do later what could be done with this token at this moment."""
        return {
            "username": self.username,
            "is_admin": self.is_admin,
            "operator": self.operator,
            "groups": ["all"],
            "folders": [],
            "scopes": None if self.scopes is None else list(self.scopes.texts),
            "token_ends": self.token_ends,
        }


NOBODY = Viewer(email="", username="anonymous")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One row of the route table."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    """As clients see it below /api; `{name}` is one segment, `{name...}` as many as there are."""
    handler: Callable[["Call"], Awaitable[web.StreamResponse]]
    policy: Policy
    summary: str
    answers: Mapping[int, Answer]
    query: type[msgspec.Struct] | None = None
    body: Any = None
    """The type of the JSON body, `X | None` where it may be left out; None when there is none or it is read raw."""
    tolerates: Mapping[str, str] = field(default_factory=dict)
    """Body fields and query parameters that are accepted and not used, with the reason."""
    refuses: Mapping[str, Refused] = field(default_factory=dict)
    """Body fields and query parameters that are accepted only while they ask for nothing."""
    resource: str = ""
    """What a scoped token needs for one thing: `{path}`, or for jobs `scripts:{path}`, `scripts`, or `job:{id}` of one
    that is there. Without it only a scope without paths covers the route: lists, previews, what is named by a hash."""
    within_run: bool = False
    """True for what a job may do to all jobs of its own run, whatever else its scopes say."""
    in_person: bool = False
    """Only by a login or a token without limits: through it a job's or a scoped token could widen itself."""
    audited: str | None = None
    """The operation that the handler says as AuditRecorded in its transaction."""
    raw_body: str | None = None
    """The media type of a body that the handler reads raw, for the OpenAPI document."""
    keyed: bool = False
    """True where the header Idempotency-Key makes a repeated request the same one, for the OpenAPI document."""
    ours: bool = False
    """True where no existing client calls: unknown fields are refused."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or self.path.endswith("/"):
            raise ValueError(f"{self.path}: a path begins with a slash and does not end with one")
        if self.policy.who in _OF_A_WORKSPACE and "workspace" not in self.parameters:
            raise ValueError(f"{self.path}: {self.policy.who} needs a {{workspace}} in the path")
        # What a job tells of its own progress is nobody's act.
        if self.policy.action != "read" and self.audited is None and self.policy.who is not Who.JOB:
            raise ValueError(f"{self.method} {self.path}: what changes or runs something is audited")
        if self.audited is not None and self.audited not in OPERATIONS:
            raise ValueError(f"{self.path}: {self.audited} is no operation that clients know")
        if _RESOURCE.fullmatch(self.resource) is None or not set(_names(self.resource)) <= set(self.parameters):
            raise ValueError(f"{self.path}: {self.resource} is no resource of it")
        if not self.answers:
            raise ValueError(f"{self.path}: say what it answers")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path, in order."""
        return _names(self.path)

    @property
    def name(self) -> str:
        """What the route is called in documents, logs and metrics."""
        return f"{self.method} {self.path}"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name, _ in _PARAMETER.findall(text))


@dataclass(frozen=True, kw_only=True)
class Call:
    """One authorised request, as its handler gets it."""

    ctx: "ApiContext"
    route: Route
    viewer: Viewer
    workspace: str
    """Empty when the path names none."""
    params: Mapping[str, str]
    query: Any
    """An instance of `route.query`."""
    body: Any
    """An instance of `route.body`."""
    request: web.Request
    read_body: Callable[[], Awaitable[bytes]]

    async def raw_body(self) -> bytes:
        """Return the body as it came, for routes that decode it themselves; raises TooLarge beyond the limit."""
        return await self.read_body()

    def audit(
        self,
        kind: ActionKind,
        resource: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        operation: str | None = None,
        workspace: str | None = None,
        span: str | None = None,
    ) -> AuditRecorded:
        """Return the event of this call, to be said in the transaction that does what it tells."""
        what = operation or self.route.audited
        assert what is not None
        job = self.viewer.job_id
        return AuditRecorded(
            workspace_id=self.workspace if workspace is None else workspace,
            at=self.ctx.clock.now(),
            username=self.viewer.username,
            email=self.viewer.email,
            operation=what,
            action_kind=kind,
            resource=resource,
            parameters=dict(parameters or {}),
            span=span or (None if job is None else str(job)),
        )
