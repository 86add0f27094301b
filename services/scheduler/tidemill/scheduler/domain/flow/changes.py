"""What follows for the rows of a flow: what `queue.advance_flow` writes down, in its own words."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.scheduler.domain.flow.progress import Step, StepState
from tidemill.shared.script import JobKind, Outcome


class Take(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a child was heard."""

    attempt: int
    index: int
    state: StepState


class StepRow(Step, frozen=True, kw_only=True):
    """A step as it is from now on; what is left out of `items` and `result` stays as it was."""

    outcome: Outcome | None = None
    items: msgspec.Raw | UnsetType = UNSET
    result: msgspec.Raw | UnsetType = UNSET


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A new job of the flow. An `answered` one ends at once, with `outcome` and `result`."""

    id: UUID
    kind: JobKind
    step_id: str
    step_no: int
    step_index: int | None = None
    step_attempt: int = 0
    language: str = ""
    path: str | None = None
    hash: str | None = None
    code: str | None = None
    lock: str | None = None
    code_hash: str | None = None
    entrypoint: str | None = None
    tag: str = ""
    priority: int | None = None
    envs: Sequence[str] = ()
    timeout_s: int | None = None
    limit_key: str | None = None
    limit_ceiling: int | None = None
    due_in_ms: int | None = None
    erase_after_s: int | None = None
    cache_key: str | None = None
    """Of an answered one: where its answer comes from."""
    cache_ttl_s: int | None = None
    same_worker: bool = False
    args: msgspec.Raw = msgspec.Raw(b"{}")
    args_of: UUID | None = None
    answered: bool = False
    outcome: Outcome | None = None
    result: msgspec.Raw | UnsetType = UNSET


class End(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the flow ends: with this result, that of a job, or that of a step."""

    outcome: Outcome
    result: msgspec.Raw | UnsetType = UNSET
    result_job: UUID | None = None
    result_step: int | None = None
    stopped: bool = False
    handled: bool = False


class Changes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that one decision changes."""

    take: Sequence[Take] = ()
    steps: Sequence[StepRow] = ()
    start: Sequence[Start] = ()
    collect: Sequence[int] = ()
    spend: int | None = None
    stop: str | None = None
    at_step: int | None = None
    wake_at: datetime | None = None
    args: msgspec.Raw | UnsetType = UNSET
    early: msgspec.Raw | UnsetType = UNSET
    end: End | None = None
