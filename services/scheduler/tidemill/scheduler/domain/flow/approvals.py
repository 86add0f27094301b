"""Waiting for approvals: the place behind a step that suspends the flow."""

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from tidemill.scheduler.domain.flow.asks import Known, Unanswered
from tidemill.scheduler.domain.flow.changes import StepRow
from tidemill.scheduler.domain.flow.jobs import Asking, Seen, error, failed_at_once, named, transformed
from tidemill.scheduler.domain.flow.progress import NULL, Step, StepState
from tidemill.shared.flow import Module, Suspend

if TYPE_CHECKING:
    from tidemill.scheduler.domain.flow.engine import Decision

PATIENCE = timedelta(minutes=30)
_LONGEST = timedelta(days=3650)


class Conditions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who may approve, and what they are asked for."""

    user_auth_required: bool = False
    user_groups_required: list[str] = []
    self_approval_disabled: bool = False
    hide_cancel: bool = False
    resume_form: msgspec.Raw = NULL


def needed(suspend: Suspend) -> int:
    """Return how many approvals a step waits for."""
    return 1 if suspend.required_events is None else suspend.required_events


def park(decision: "Decision", step: Step, module: Module) -> Asking:
    """Let the flow wait before the next place; what approvers have said before counts."""
    assert module.suspend is not None
    no = step.no + 1
    after = decision.walk.modules[no] if no < len(decision.walk.modules) else module
    try:
        conditions = yield from _conditions(module, module.suspend, Seen(before=no))
    except Unanswered as wrong:
        yield from decision.fail(step.no, error(wrong.name, str(wrong), module.id))
        return
    patience = (
        PATIENCE
        if module.suspend.timeout is None
        else timedelta(seconds=min(module.suspend.timeout, _LONGEST.total_seconds()))
    )
    decision.put(
        StepRow(
            no=no,
            module=after.id,
            state=StepState.WAITING,
            job_id=step.job_id,
            needed=needed(module.suspend),
            since=decision.happened.now,
            until=decision.happened.now + patience,
            conditions=msgspec.Raw(msgspec.json.encode(conditions)),
        )
    )
    decision.note(at_step=no)
    decision.again()


def decide(decision: "Decision", step: Step) -> Asking:
    """Go on when enough have approved; the first refusal and the end of the patience fail the flow, or do not."""
    module = decision.module(step.no - 1)
    assert module.suspend is not None
    said = decision.happened.resumed
    approved = [each for each in said if each.approved]
    refusal = next((each for each in said if not each.approved), None)
    if refusal is not None:
        who = f" by {refusal.approver}" if refusal.approver else ""
        yield from _refused(decision, step, module, "SuspendedDisapproved", f"the flow was refused{who}")
    elif len(approved) >= (step.needed or 0):
        decision.note(spend=step.no)
        names: dict[str, Known] = {
            "resume": approved[-1].value if approved else msgspec.Raw(b"null"),
            "resumes": msgspec.Raw(msgspec.json.encode([each.value for each in approved])),
            "approvers": msgspec.Raw(msgspec.json.encode([each.approver or "anonymous" for each in approved])),
        }
        yield from decision.go_on_behind(step.no - 1, names)
    elif step.until is not None and decision.happened.now >= step.until:
        why = f"only {len(approved)} of {step.needed} approvals came in time"
        yield from _refused(decision, step, module, "SuspendedTimedOut", why)
    else:
        decision.note(wake_at=step.until)


def _refused(decision: "Decision", step: Step, module: Module, name: str, why: str) -> Asking:
    assert module.suspend is not None
    what = error(name, why, module.id)
    decision.note(spend=step.no)
    if module.suspend.continue_on_disapprove_timeout:
        yield from decision.go_on_behind(step.no - 1, {"resume": what})
        return
    # A job that shows what happened where the flow stood.
    new = failed_at_once(decision.new_job(module, step.no), what)
    decision.add(new)
    decision.put(StepRow(no=step.no, module=step.module, state=StepState.FAILURE, job_id=new.id))
    yield from decision.fail(step.no - 1, what)


def _conditions(module: Module, suspend: Suspend, seen: Seen) -> Asking:
    groups: list[str] = []
    if suspend.user_groups_required is not None:
        given = yield from named(module.id, "user_groups_required", transformed(suspend.user_groups_required, seen))
        try:
            groups = msgspec.json.decode(given, type=list[str] | None) or []
        except msgspec.ValidationError:
            raise Unanswered(
                "InputTransformError", f"step {module.id}, user_groups_required: it must be a list"
            ) from None
    return Conditions(
        user_auth_required=bool(suspend.user_auth_required),
        user_groups_required=groups,
        self_approval_disabled=bool(suspend.self_approval_disabled),
        hide_cancel=bool(suspend.hide_cancel),
        resume_form=NULL if suspend.resume_form is None else suspend.resume_form.schema,
    )
