"""How far a flow has come, and what has happened since that was written down."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from tidemill.shared.flow import Flow, Module
from tidemill.shared.script import JobKind, Outcome

NULL = msgspec.Raw(b"null")
PREPROCESSOR_NO = -1
FAILURE_NO = 32000
"""The places of the two modules that stand apart."""
_TAG_FILTER = "if_jobs:filter_tags:"


class StepState(StrEnum):
    """Where a step stands; `waiting` is the place before which approvals are awaited."""

    STARTED = "started"
    ENDED = "ended"
    WAITING = "waiting"
    SUCCESS = "success"
    FAILURE = "failure"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step, as its row says: a plain one has a job, a loop or branchall counts children."""

    no: int
    module: str
    state: StepState
    attempt: int = 0
    job_id: UUID | None = None
    failed_job: UUID | None = None
    """The first child, by its index, that failed and was not to be passed over."""
    failed_index: int | None = None
    failed_retries: Sequence[UUID] = ()
    total: int | None = None
    started: int = 0
    ended: int = 0
    failed: int = 0
    branch: int | None = None
    parallelism: int | None = None
    skipped: bool | None = None
    stopped: bool | None = None
    handled: bool | None = None
    needed: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    conditions: msgspec.Raw = NULL
    names: msgspec.Raw = NULL
    """What only this step sees, such as what its approvers have said."""


class Rights(msgspec.Struct, frozen=True, kw_only=True):
    """What the token that asked for the flow was limited to."""

    scopes: Sequence[str] | None = None

    def allow_tag(self, tag: str) -> bool:
        """Return whether jobs of this tag may be run."""
        filters = [each.removeprefix(_TAG_FILTER) for each in self.scopes or () if each.startswith(_TAG_FILTER)]
        return all(tag in each.split(",") for each in filters)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One job that walks through a flow or a body of it, and the step that it has come to."""

    id: UUID
    workspace_id: str
    kind: JobKind
    scope_job: UUID
    """The innermost flow of its own: where the value is known and beyond which no results are seen."""
    path: str | None = None
    flow_version: str | None = None
    body: str | None = None
    own_args: msgspec.Raw = NULL
    """Of a body: the iteration that it is."""
    permissioned_as: str = ""
    permissions: Rights = Rights()
    depth: int = 0
    """How many other flows it runs inside of."""
    tag: str = ""
    priority: int = 0
    timeout_s: int | None = None
    deadline_at: datetime | None = None
    preprocess: bool = False
    begin_at: int | None = None
    """Set where another run is taken up and nothing has begun here: at this place, right behind `step`."""
    step: Step | None = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A job of the current step that has ended; its result is null here if it is large, or if it is null."""

    job_id: UUID
    outcome: Outcome
    index: int | None = None
    result: msgspec.Raw = NULL
    stopped: bool | None = None
    """It ended early by a stop that concerns what is around it."""
    handled: bool | None = None
    """It failed and the failure module has run inside it."""


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """What an approver has said."""

    resume_id: int
    approved: bool
    value: msgspec.Raw
    approver: str | None = None


class Happened(msgspec.Struct, frozen=True, kw_only=True):
    """What is new, and what the decision depends on besides."""

    now: datetime
    canceled: bool = False
    children_live: bool = False
    ended: Sequence[Ended] = ()
    items: Sequence[msgspec.Raw] = ()
    """The next values of a loop, from the first that was not started on."""
    item: msgspec.Raw = NULL
    """The value before these, which was started on last."""
    resumed: Sequence[Resumed] = ()
    too_large: bool = False
    """The list of the current step's results was refused by the database as too large."""
    luck: float = 0.5
    """A random number between 0 and 1, for pauses."""


class Walk(msgspec.Struct, frozen=True):
    """What one job walks through."""

    flow: Flow
    modules: Sequence[Module]
    locks: Mapping[str, str] = {}
    """Locks of the code inside the flow, by module, as far as they were found after it was saved."""
