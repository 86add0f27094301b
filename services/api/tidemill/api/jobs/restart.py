"""Taking up a flow that has ended: a new run that begins at one of its steps, with what was done before that one.

the job ──▶ its steps ──┐
                        ├──▶ rules: what is taken over ──▶ a request, with which the queue copies the rows
the flow's value ───────┘
"""

from collections.abc import Mapping
from typing import Literal
from uuid import UUID

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType, structs

from tidemill.api.flows.version import number_of
from tidemill.api.http.errors import Conflict, Forbidden, NotFound, Unprocessable
from tidemill.api.http.route import Call
from tidemill.api.jobs import args as arguments
from tidemill.api.jobs import look, rules, run, store
from tidemill.api.jobs.rules import Restart, Runnable
from tidemill.api.jobs.schemas import FlowPreview, RestartedFrom, RestartFlow
from tidemill.shared import flow as flows
from tidemill.shared.flow import BranchAll, Flow, ForLoop, Module, WhileLoop
from tidemill.shared.script import JobKind

_PREPROCESSOR_NO = -1
_RAW_NULL = msgspec.Raw(b"null")
_NOT_IN_A_PREVIEW: Mapping[str, str] = {
    "flow_version": "a preview runs the value that comes with it",
    "branch_chosen": "a branchone that is run again chooses its branch anew",
    "nested": "a flow is taken up at one of its own steps, not inside of a loop or a branch",
}


class StepDone(msgspec.Struct, frozen=True, kw_only=True):
    """How far a step has come in the run that is taken up."""

    no: int
    module: str
    state: Literal["started", "ended", "waiting", "success", "failure"]
    total: int | None = None
    ended: int = 0
    failed: int = 0
    has_items: bool = False


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The run that is taken up."""

    id: UUID
    kind: JobKind
    path: str | None
    hash: str | None
    tag: str
    code: str | None
    args: str
    steps: Mapping[int, StepDone]


_steps = msgspec.json.Decoder(list[StepDone])


async def flow(call: Call) -> web.StreamResponse:
    """Request a run that takes up one that has ended, and answer its id."""
    body: RestartFlow = call.body
    old = await _ended(call, look.job_id_of(call))
    runnable, value = await _runnable(call, old, body.flow_version)
    taken_up = begin(old, value, body.step_id, body.branch_or_iteration_n or 0)
    is_same = runnable.hash == old.hash
    taken_up = structs.replace(
        taken_up, flow_version=body.flow_version, keeps_approvals=is_same and _is_enough(value, taken_up.at)
    )
    # Its arguments have been through the preprocessor, and its result is not that of these arguments alone.
    runnable = structs.replace(runnable, restart=taken_up, entrypoint=None, cache_ttl_s=None)
    return await run.id_of(call, runnable, arguments.from_json(old.args.encode()))


async def by_preview(call: Call, body: FlowPreview, value: Flow) -> Restart | None:
    """Return what a preview takes up, if it does; raises an HttpError that names the field."""
    asked = body.restarted_from
    if asked is None or asked == RestartedFrom():
        return None
    for field, reason in _NOT_IN_A_PREVIEW.items():
        given: msgspec.Raw | UnsetType = getattr(asked, field)
        if given is not UNSET and given != _RAW_NULL:
            raise Unprocessable(f"The field restarted_from.{field} is not supported: {reason}.")
    if asked.flow_job_id is None or asked.step_id is None:
        raise Unprocessable("The field restarted_from needs a flow_job_id and a step_id.")
    old = await _ended(call, asked.flow_job_id)
    return begin(old, value, asked.step_id, asked.branch_or_iteration_n or 0)


def begin(old: Ended, value: Flow, step_id: str, kept: int) -> Restart:
    """Return where a run of this flow takes up another one; raises Unprocessable, naming what stands in the way."""
    at = next((no for no, module in enumerate(value.modules) if module.id == step_id), None)
    if at is None:
        raise Unprocessable(f"The field step_id names {step_id!r}, which is none of the flow's own steps.")
    if not old.steps:
        raise Unprocessable(f"No step of the job {old.id} has begun: run the flow anew.")
    preprocessed = old.steps.get(_PREPROCESSOR_NO)
    if preprocessed is not None and preprocessed.state != "success":
        raise Unprocessable(f"The preprocessor of the job {old.id} has not ended well: run the flow anew.")
    for no, module in enumerate(value.modules[:at]):
        if (why := _why_not(old.steps, no, module)) is not None:
            raise Unprocessable(f"The flow can't begin at {step_id}: before it comes {module.id}, and {why}.")
    if kept and at and value.modules[at - 1].suspend is not None:
        raise Unprocessable(
            f"The field branch_or_iteration_n is {kept}, but before the step {step_id} there is to be an approval:"
            " it is run again as a whole."
        )
    total = _kept(old.steps.get(at), value.modules[at], kept) if kept else None
    return Restart(flow_job_id=old.id, step_id=step_id, at=at, branch_or_iteration_n=kept or None, total=total)


def _is_enough(value: Flow, at: int) -> bool:
    """Return whether what was approved before a step stays so: who might have to say it again is not known any more."""
    suspend = value.modules[at - 1].suspend if at else None
    return suspend is None or suspend.demands_nothing


def _why_not(steps: Mapping[int, StepDone], no: int, module: Module) -> str | None:
    """Return why the result of a step can't be taken over."""
    step = steps.get(no)
    if step is None:
        return "that has not begun in the job"
    if step.module != module.id:
        return f"in the job it is {step.module} that stands there"
    # A failure that the flow has gone on behind was passed over; each other one was its end.
    if step.state == "success" or (step.state == "failure" and no + 1 in steps):
        return None
    return "that has not ended well in the job"


def _kept(step: StepDone | None, module: Module, kept: int) -> int | None:
    """Return how many branches there are now; raises Unprocessable when so many jobs of the step can't be kept."""
    where = f"The field branch_or_iteration_n is {kept}, but the step {module.id}"
    total: int | None = None
    is_same = step is not None and step.module == module.id
    match module.value:
        case ForLoop(parallel=True) | BranchAll(parallel=True):
            raise Unprocessable(f"{where} runs its jobs at the same time: it is run again as a whole.")
        case ForLoop():
            is_same = step is not None and is_same and step.has_items
        case WhileLoop():
            is_same = step is not None and is_same and not step.has_items and step.total is None
        case BranchAll(branches=branches):
            total = len(branches)
            is_same = step is not None and is_same and not step.has_items and step.total is not None
        case _:
            raise Unprocessable(f"{where} has neither iterations nor branches that are all taken.")
    # What has failed is run again.
    done = 0 if step is None or not is_same else step.ended - min(step.failed, 1)
    most = total if total is not None else step.total if step is not None else None
    if kept > done or (most is not None and kept >= most):
        raise Unprocessable(f"{where} has done {done} of {'its jobs' if most is None else most} there.")
    return total


async def _ended(call: Call, job_id: UUID) -> Ended:
    row = await store.restartable(call.ctx.database, call.workspace, job_id, call.viewer)
    if row is None:
        raise NotFound(f"There is no job {job_id}.")
    if row["kind"] not in (JobKind.FLOW, JobKind.FLOW_PREVIEW):
        raise Unprocessable(f"The job {job_id} is a {row['kind']}: only runs of flows are taken up.")
    if row["outcome"] is None:
        raise Conflict(f"The job {job_id} has not ended: cancel it first.")
    if row["deleted"]:
        raise Unprocessable(f"What the job {job_id} was given and has answered was erased.")
    return Ended(
        id=job_id,
        kind=JobKind(row["kind"]),
        path=row["path"],
        hash=row["hash"],
        tag=row["tag"],
        code=row["code"],
        args=row["args"],
        steps={step.no: step for step in _steps.decode(row["steps"])},
    )


async def _runnable(call: Call, old: Ended, version: int | None) -> tuple[Runnable, Flow]:
    """Return what runs and its value: the same again, or another version of the same flow."""
    if old.kind is JobKind.FLOW_PREVIEW:
        if version is not None:
            raise Unprocessable("The field flow_version is not allowed: the job is a preview, and has no versions.")
        if call.viewer.operator and not call.viewer.is_admin:
            raise Forbidden("An operator may not run code that is not deployed.")
        code = old.code or ""
        value = flows.read(code)
        preview = FlowPreview(value=msgspec.Raw(code.encode()), path=old.path, tag=old.tag)
        return rules.flow_preview(preview, value), value
    own = await _of_version(call, number_of(old.hash or ""))
    if version is None:
        return own
    other = await _of_version(call, version)
    if other[0].path != own[0].path:
        raise Unprocessable(f"The field flow_version names {version}, which is no version of {own[0].path}.")
    return other


async def _of_version(call: Call, version: int) -> tuple[Runnable, Flow]:
    runnable = await store.flow_by_version(call.ctx.database, call.workspace, version, call.viewer)
    value = await store.flow_value(call.ctx.database, call.workspace, version)
    if runnable is None or value is None:
        raise NotFound(f"There is no version {version}.")
    return runnable, flows.read(value)
