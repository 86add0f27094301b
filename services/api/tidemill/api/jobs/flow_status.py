"""How far a flow has come, as clients are told: rendered from its rows in the queue and the modules it walks through.

    no row ─────────── WaitingForPriorSteps        started ── WaitingForExecutor, then InProgress
    waiting ────────── WaitingForEvents            ended ──── as its outcome is
    success, failure ─ Success, Failure

Pure. A step of many jobs is told by its children; everything else by its one job.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.shared.flow import (
    DEFAULT_BRANCH,
    FAILURE,
    Body,
    BranchAll,
    BranchOne,
    Flow,
    ForLoop,
    Module,
    NoSuchBody,
    WhileLoop,
    modules_of,
)

PREPROCESSOR_NO = -1
FAILURE_NO = 32_000
"""The places of the steps that stand apart."""
Listed = Annotated[msgspec.Raw, msgspec.Meta(description="any JSON")]
_NULL = msgspec.Raw(b"null")
_ENDED_WELL = ("success", "skipped")
_BEGUN = ("running", "suspended")


class Children(msgspec.Struct, frozen=True):
    """The jobs of a loop or of branches, in the order of their index: what is not known yet is null."""

    ids: list[UUID] = []
    success: list[bool | None] = []
    started_at: list[datetime | None] = []
    duration_ms: list[int | None] = []


class Approver(msgspec.Struct, frozen=True, kw_only=True):
    """One who has approved."""

    resume_id: int
    approver: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `queue.flow_step` with what hangs on it; `job_state` is that of its job while that has not ended."""

    no: int
    module: str
    state: Literal["started", "ended", "waiting", "success", "failure"]
    attempt: int = 0
    job_id: UUID | None = None
    job_state: str | None = None
    outcome: str | None = None
    failed_retries: list[UUID] | None = None
    total: int | None = None
    started: int = 0
    branch: int | None = None
    items: msgspec.Raw = _NULL
    skipped: bool | None = None
    needed: int | None = None
    until: datetime | None = None
    approved: int | None = None
    approvers: list[Approver] | None = None
    children: Children | None = None


class RestartedFrom(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which run was taken up, and where."""

    flow_job_id: UUID
    step_id: str
    branch_or_iteration_n: int | UnsetType = UNSET
    flow_version: int | UnsetType = UNSET


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """What a job of a flow walks through, and its steps by their places; without a flow nobody knows it any more."""

    flow: Flow | None
    body: Body
    steps: Mapping[int, Step]
    at_step: int | None = None
    outcome: str | None = None
    restarted_from: RestartedFrom | None = None

    @property
    def parked(self) -> Step | None:
        """The step before which it waits for approvals."""
        step = None if self.outcome or self.at_step is None else self.steps.get(self.at_step)
        return step if step is not None and step.state == "waiting" else None


class ModuleState(StrEnum):
    """How far a step is."""

    WAITING_FOR_PRIOR_STEPS = "WaitingForPriorSteps"
    WAITING_FOR_EVENTS = "WaitingForEvents"
    WAITING_FOR_EXECUTOR = "WaitingForExecutor"
    IN_PROGRESS = "InProgress"
    SUCCESS = "Success"
    FAILURE = "Failure"


class Iterator(msgspec.Struct, frozen=True, kw_only=True):
    """Which iteration was begun last, and the list where it is short."""

    index: int
    itered: Listed | UnsetType = UNSET
    itered_len: int | UnsetType = UNSET


class Durations(msgspec.Struct, frozen=True):
    """When each iteration began and how long it took."""

    started_at: list[datetime | None]
    duration_ms: list[int | None]


class BranchChosen(msgspec.Struct, frozen=True, kw_only=True):
    """The branch that was taken; the default has no number."""

    type: Literal["branch", "default"]
    branch: int | UnsetType = UNSET


class BranchOfAll(msgspec.Struct, frozen=True, kw_only=True):
    """Which branch was begun last, of how many."""

    branch: int
    len: int


class ModuleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far one step is; `job` of a loop is the job that it began last."""

    type: ModuleState
    id: str
    job: UUID | UnsetType = UNSET
    count: int | UnsetType = UNSET
    iterator: Iterator | UnsetType = UNSET
    flow_jobs: list[UUID] | UnsetType = UNSET
    flow_jobs_success: list[bool | None] | UnsetType = UNSET
    flow_jobs_duration: Durations | UnsetType = UNSET
    branch_chosen: BranchChosen | UnsetType = UNSET
    branchall: BranchOfAll | UnsetType = UNSET
    parallel: bool | UnsetType = UNSET
    while_loop: bool | UnsetType = UNSET
    approvers: list[Approver] | UnsetType = UNSET
    failed_retries: list[UUID] | UnsetType = UNSET
    skipped: bool | UnsetType = UNSET
    parent_module: str | UnsetType = UNSET


class RetryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The tries of the current step that have failed."""

    fail_count: int
    failed_jobs: list[UUID]


class FlowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a flow is: one module each, from the beginning."""

    step: int
    modules: list[ModuleStatus]
    failure_module: ModuleStatus
    preprocessor_module: ModuleStatus | UnsetType = UNSET
    retry: RetryStatus | UnsetType = UNSET
    restarted_from: RestartedFrom | UnsetType = UNSET


_restarted = msgspec.json.Decoder(RestartedFrom)
_steps = msgspec.json.Decoder(list[Step])


def read(rows: str) -> Mapping[int, Step]:
    """Return the steps of a flow by their places, from the JSON list of their rows."""
    return {step.no: step for step in _steps.decode(rows)}


def restarted_from(text: str | None) -> RestartedFrom | None:
    """Return which run was taken up, from what the job was asked for with."""
    return None if text is None else _restarted.decode(text)


def render(walk: Walk) -> FlowStatus:
    """Return how far a flow is."""
    modules = _modules(walk)
    length = len(modules) or 1 + max((no for no in walk.steps if no < FAILURE_NO), default=-1)
    steps = {no: step for no, step in walk.steps.items() if no < length}
    if walk.parked is not None and walk.parked.no == length > 0:
        # Behind the last module: that is where it is seen to wait.
        steps[length - 1] = walk.parked
    preprocessor = walk.steps.get(PREPROCESSOR_NO)
    return FlowStatus(
        step=_current(walk, length),
        modules=[_module(walk, steps.get(no), modules[no] if no < len(modules) else None) for no in range(length)],
        failure_module=_failure_module(walk),
        preprocessor_module=UNSET if preprocessor is None else _module(walk, preprocessor, None),
        retry=_retry(walk),
        restarted_from=_or_unset(walk.restarted_from),
    )


def still_needed(parked: Step) -> int:
    """Return how many more approvals a flow waits for."""
    return max((parked.needed or 1) - (parked.approved or 0), 0)


def _modules(walk: Walk) -> Sequence[Module]:
    if walk.flow is None:
        return ()
    try:
        return modules_of(walk.flow, walk.body)
    except NoSuchBody:
        return ()


def _current(walk: Walk, length: int) -> int:
    """Return the place that clients are told: behind all modules for the failure module and after a good end."""
    if walk.outcome in _ENDED_WELL or FAILURE_NO in walk.steps:
        return length
    if walk.at_step is not None:
        return min(walk.at_step, length)
    return max(walk.steps, default=0)


def _failure_module(walk: Walk) -> ModuleStatus:
    step = walk.steps.get(FAILURE_NO)
    if step is None:
        return ModuleStatus(type=ModuleState.WAITING_FOR_PRIOR_STEPS, id=FAILURE)
    failed = [no for no, each in walk.steps.items() if no < FAILURE_NO and each.state == "failure"]
    parent = walk.steps[max(failed)].module if failed else UNSET
    return msgspec.structs.replace(_module(walk, step, None), parent_module=parent)


def _retry(walk: Walk) -> RetryStatus | UnsetType:
    step = None if walk.at_step is None or walk.outcome else walk.steps.get(walk.at_step)
    if step is None or step.state not in ("started", "ended") or not step.failed_retries:
        return UNSET
    return RetryStatus(fail_count=len(step.failed_retries), failed_jobs=step.failed_retries)


def _module(walk: Walk, step: Step | None, module: Module | None) -> ModuleStatus:
    if step is None:
        return ModuleStatus(type=ModuleState.WAITING_FOR_PRIOR_STEPS, id="" if module is None else module.id)
    state = _state(walk, step, module)
    if state is ModuleState.WAITING_FOR_PRIOR_STEPS:
        return ModuleStatus(type=state, id=step.module)
    if state is ModuleState.WAITING_FOR_EVENTS:
        return ModuleStatus(type=state, id=step.module, job=_or_unset(step.job_id), count=step.needed or 1)
    status = ModuleStatus(
        type=state,
        id=step.module,
        job=_or_unset(step.job_id),
        approvers=_or_unset(step.approvers),
        failed_retries=_or_unset(step.failed_retries),
        skipped=_or_unset(step.skipped),
        branch_chosen=_branch_chosen(step, module),
    )
    return _with_children(status, step, module) if _has_children(step, module) else status


def _state(walk: Walk, step: Step, module: Module | None) -> ModuleState:
    match step.state:
        case "success":
            return ModuleState.SUCCESS
        case "failure":
            return ModuleState.FAILURE
        case "waiting":
            # What a flow waited for when it was stopped was never begun.
            return ModuleState.WAITING_FOR_PRIOR_STEPS if walk.outcome else ModuleState.WAITING_FOR_EVENTS
        case "ended" if step.outcome in _ENDED_WELL:
            return ModuleState.SUCCESS
        case "ended" if not _may_be_tried_again(walk, module):
            return ModuleState.FAILURE
        case _ if walk.outcome:
            return ModuleState.FAILURE
        case "started" if not _has_children(step, module) and step.job_state not in (None, *_BEGUN):
            return ModuleState.WAITING_FOR_EXECUTOR
        case _:
            return ModuleState.IN_PROGRESS


def _may_be_tried_again(walk: Walk, module: Module | None) -> bool:
    """Return whether a failure may be none in a moment: who follows a flow takes a failed step for its end."""
    return walk.outcome is None and module is not None and module.retry is not None


def _has_children(step: Step, module: Module | None) -> bool:
    """Return whether a step is told by its children: one that was skipped or never began has a job instead."""
    if step.total is not None or step.started > 0:
        return True
    return step.job_id is None and module is not None and isinstance(module.value, ForLoop | WhileLoop | BranchAll)


def _with_children(status: ModuleStatus, step: Step, module: Module | None) -> ModuleStatus:
    children = step.children or Children()
    status = msgspec.structs.replace(
        status,
        job=step.job_id or (children.ids[-1] if children.ids else UNSET),
        flow_jobs=children.ids,
        flow_jobs_success=children.success,
        flow_jobs_duration=Durations(children.started_at, children.duration_ms),
    )
    if status.type is not ModuleState.IN_PROGRESS or module is None or step.started < 1:
        return status
    last = step.started - 1
    match module.value:
        case BranchAll(parallel=parallel, branches=branches):
            of_all = BranchOfAll(branch=last, len=step.total if step.total is not None else len(branches))
            return msgspec.structs.replace(status, branchall=of_all, parallel=bool(parallel))
        case WhileLoop():
            return msgspec.structs.replace(status, iterator=Iterator(index=last), while_loop=True)
        case ForLoop(parallel=parallel):
            items = UNSET if step.items == _NULL else step.items
            iterator = Iterator(index=last, itered=items, itered_len=_or_unset(step.total))
            return msgspec.structs.replace(status, iterator=iterator, parallel=bool(parallel))
        case _:
            return status


def _branch_chosen(step: Step, module: Module | None) -> BranchChosen | UnsetType:
    if step.branch is None or (module is not None and not isinstance(module.value, BranchOne)):
        return UNSET
    if step.branch == DEFAULT_BRANCH:
        return BranchChosen(type="default")
    return BranchChosen(type="branch", branch=step.branch)


def _or_unset(value: Any) -> Any:
    return value or UNSET
