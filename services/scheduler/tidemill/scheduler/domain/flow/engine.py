"""What a flow does next: a pure decision about one job that walks through the modules of a flow or of a body inside it.

    next_steps(walk, progress, happened) ──▶ questions (expressions, versions, slots) ──▶ changes

    enter a place ─▶ skipped, answered, or its jobs start ─▶ (they end) ─▶ tried again
         ▲                                                        ├──▶ failed ─▶ the failure module, or the end
         └── approvals, sleep ◀── stopped early? ◀── its result ◀─┘

Loops and branches are jobs of their own for each iteration and branch (`children.py`), and those walk by this very
function; so a decision is always about one flat list of modules. What it needs to know it asks: a generator yields the
questions and returns the changes. One decision moves one step; where more can be done at once it asks to be woken.
"""

import re
from collections.abc import Callable, Generator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from tidemill.scheduler.domain import retry
from tidemill.scheduler.domain.flow import approvals, children
from tidemill.scheduler.domain.flow.asks import Ask, Known, ListOf, ResultOf, Unanswered, Value
from tidemill.scheduler.domain.flow.changes import Changes, End, Start, StepRow
from tidemill.scheduler.domain.flow.jobs import (
    EMPTY_LIST,
    NO_ARGS,
    Asking,
    Seen,
    answered,
    args_of,
    ask,
    erased_after,
    error,
    failed_at_once,
    inputs,
    kept,
    named,
    number,
    plain_job,
    result_of,
    seen_by,
    with_step,
)
from tidemill.scheduler.domain.flow.progress import (
    FAILURE_NO,
    PREPROCESSOR_NO,
    Happened,
    Progress,
    Step,
    StepState,
    Walk,
)
from tidemill.shared.flow import (
    BranchAll,
    BranchOne,
    ForLoop,
    Module,
    RawScript,
    Retry,
    Script,
    Stop,
    SubFlow,
    WhileLoop,
)
from tidemill.shared.script import JobKind, Outcome

_NAMED = re.compile(r"""\bresults\s*(?:\??\.\s*([A-Za-z0-9_]+)|(?:\?\.)?\[\s*["']([^"']+)["']\s*\])""")
"""The steps that an expression refers to."""
_STOPPED = "the flow was stopped early"


def next_steps(
    walk: Walk, progress: Progress, happened: Happened, mint: Callable[[], UUID]
) -> Generator[Ask, Any, Changes]:
    """Return what follows for a flow from what has happened; nothing when that is nothing new.

    `mint` makes the ids of new jobs.
    """
    if happened.canceled:
        return Changes() if happened.children_live else Changes(end=End(outcome=Outcome.CANCELED))
    if progress.deadline_at is not None and happened.now >= progress.deadline_at:
        return _too_late(progress, happened)
    decision = Decision(walk, progress, happened, mint)
    yield from decision.decide()
    return decision.changes()


def _too_late(progress: Progress, happened: Happened) -> Changes:
    why = f"the flow took longer than its {progress.timeout_s} s"
    if happened.children_live:
        return Changes(stop=why)
    return Changes(end=End(outcome=Outcome.FAILURE, result=error("ExecutionErr", why)))


class Decision:
    """One decision while it is made."""

    def __init__(self, walk: Walk, progress: Progress, happened: Happened, mint: Callable[[], UUID]) -> None:
        self.walk = walk
        self.progress = progress
        self.happened = happened
        self._mint = mint
        self.own: Mapping[str, msgspec.Raw] = (
            msgspec.json.decode(progress.own_args, type=dict[str, msgspec.Raw] | None) or {}
        )
        """What this body is one of: its iteration, and the one around that."""
        self._changes: dict[str, Any] = {}

    def changes(self) -> Changes:
        """Return what was decided."""
        return Changes(**self._changes)

    def note(self, **more: Any) -> None:
        """Add to what is decided."""
        self._changes.update(more)

    def add(self, new: Start) -> None:
        """Start one more job."""
        self.note(start=[*self._changes.get("start", ()), new])

    def put(self, row: StepRow) -> None:
        """Write down a step as it is from now on."""
        steps = [each for each in self._changes.get("steps", ()) if each.no != row.no]
        self.note(steps=[*steps, row])

    def again(self) -> None:
        """Come back at once: the next step is one of its own."""
        self.note(wake_at=self.happened.now)

    def decide(self) -> Asking:
        """Decide by where the current step stands."""
        step = self.progress.step
        if self.progress.begin_at is not None:
            yield from self._take_up(self.progress.begin_at, step)
        elif step is None:
            yield from self._begin()
        elif step.state is StepState.WAITING:
            yield from approvals.decide(self, step)
        elif step.until is not None and self.happened.now < step.until:
            self.note(wake_at=step.until)
        elif step.no == PREPROCESSOR_NO and step.state is StepState.SUCCESS:
            yield from self.enter(0)
        elif step.state is StepState.SUCCESS:
            yield from self.after(step, self._result_of(step), self.module(step.no))
        elif step.state is StepState.FAILURE:
            yield from self.failed(step, self._result_of(step))
        elif step.state is StepState.ENDED:
            yield from self._job_ended(step)
        elif not children.has_children(self.module(step.no)):
            return
        else:
            yield from children.decide(self, step)

    def module(self, no: int) -> Module:
        """Return the module of a place."""
        flow = self.walk.flow
        apart = {PREPROCESSOR_NO: flow.preprocessor_module, FAILURE_NO: flow.failure_module}
        found = apart[no] if no in apart else self.walk.modules[no]
        assert found is not None
        return found

    # ---- entering a place

    def _begin(self) -> Asking:
        flow = self.walk.flow
        if self.progress.kind is not JobKind.FLOW_NODE and flow.skip_expr:
            try:
                skip = yield from named("flow", "skip_expr", ask(Seen(before=0).truth(flow.skip_expr)))
            except Unanswered as wrong:
                self.end(Outcome.FAILURE, result=error(wrong.name, str(wrong)))
                return
            if skip:
                self.end(Outcome.SKIPPED, result=msgspec.Raw(msgspec.json.encode(_STOPPED)))
                return
        if self.progress.preprocess and flow.preprocessor_module is not None:
            yield from self._start(PREPROCESSOR_NO, flow.preprocessor_module, Seen(before=PREPROCESSOR_NO))
        else:
            yield from self.enter(0)

    def _take_up(self, no: int, before: Step | None) -> Asking:
        """Begin where another run is taken up; what approvers have said there is said here, and no more than that."""
        module = self.module(no - 1) if no > 0 else None
        if before is None or module is None or module.suspend is None or approvals.needed(module.suspend) < 1:
            yield from self.enter(no)
        else:
            yield from approvals.park(self, before, module)

    def enter(self, no: int, names: Mapping[str, Known] | None = None, pause: timedelta = timedelta(0)) -> Asking:
        """Go to a place; behind the last one the flow ends well."""
        if no == len(self.walk.modules):
            if no == 0:
                self.end(Outcome.SUCCESS, result=(yield Value(source="flow_input", before=0)))
            else:
                self.end(Outcome.SUCCESS, result_step=no - 1)
            return
        yield from self._start(no, self.module(no), Seen(before=no, names=names or {}), pause=pause)

    def _start(
        self, no: int, module: Module, seen: Seen, *, pause: timedelta = timedelta(0), attempt: int = 0
    ) -> Asking:
        new = self.new_job(module, no, attempt=attempt, pause=pause)
        row = StepRow(no=no, module=module.id, state=StepState.STARTED, attempt=attempt, names=kept(seen))
        try:
            match module.value:
                case _ if module.skip_if is not None and (yield from self._skips(module, module.skip_if.expr, seen)):
                    new = answered(new, (yield seen.value("previous_result")))
                    row = msgspec.structs.replace(row, skipped=True)
                case _ if module.mock is not None and module.mock.enabled:
                    new = answered(new, module.mock.return_value)
                case ForLoop() | WhileLoop() | BranchAll():
                    yield from children.begin(self, row, module, seen, pause)
                    return
                case BranchOne():
                    branch, modules = yield from children.choose(module, module.value, seen)
                    row = msgspec.structs.replace(row, branch=branch)
                    new = (
                        (yield from children.body_job(self, module, modules, new, seen, branch=branch))
                        if modules
                        else answered(new, EMPTY_LIST)
                    )
                case _:
                    new = yield from plain_job(self.walk, self.progress, module, new, seen)
        except Unanswered as wrong:
            new = failed_at_once(new, error(wrong.name, str(wrong), module.id))
        self.started(row, new)

    def _skips(self, module: Module, source: str, seen: Seen) -> Asking:
        params = NO_ARGS
        if "params" in source and isinstance(module.value, RawScript | Script | SubFlow):
            params = yield from inputs(module.id, module.value.input_transforms, seen)
        return (yield from named(module.id, "skip_if", ask(seen.truth(source, params=params))))

    def started(self, row: StepRow, new: Start) -> None:
        """Write down a step that has one job, or had one that ended at once."""
        if new.answered:
            state = StepState.SUCCESS if new.outcome is Outcome.SUCCESS else StepState.FAILURE
            row = msgspec.structs.replace(row, state=state)
            if row.no == PREPROCESSOR_NO and isinstance(new.result, msgspec.Raw):
                self.note(args=_as_args(new.result))
            row = self.rested(row, timedelta(milliseconds=new.due_in_ms or 0))
        row = msgspec.structs.replace(row, job_id=new.id)
        self.note(at_step=row.no)
        self.add(new)
        self.put(row)

    def rested(self, row: StepRow, pause: timedelta) -> StepRow:
        """Return the row of a step that needed no worker: the flow goes on behind it at once, or after the pause."""
        if not pause:
            self.again()
            return row
        until = self.happened.now + pause
        self.note(wake_at=until)
        return msgspec.structs.replace(row, until=until)

    def new_job(
        self, module: Module, no: int, *, attempt: int = 0, index: int | None = None, pause: timedelta = timedelta(0)
    ) -> Start:
        """Return a job of a step that does not know yet what it runs."""
        return Start(
            id=self._mint(),
            kind=JobKind.IDENTITY,
            step_id=module.id,
            step_no=no,
            step_index=index,
            step_attempt=attempt,
            due_in_ms=round(pause / timedelta(milliseconds=1)) or None,
            erase_after_s=erased_after(module),
            same_worker=bool(self.walk.flow.same_worker),
        )

    # ---- a job or a whole step has ended

    def _job_ended(self, step: Step) -> Asking:
        if not self.happened.ended:
            return
        (ended,) = self.happened.ended
        module = self.module(step.no)
        result = result_of(ended)
        if ended.outcome is Outcome.SUCCESS or ended.outcome is Outcome.SKIPPED:
            yield from self.after(msgspec.structs.replace(step, stopped=ended.stopped), result, module)
        else:
            step = msgspec.structs.replace(step, handled=ended.handled)
            if ended.outcome is not Outcome.CANCELED and (yield from self._tries_again(step, module, result)):
                return
            yield from self.failed(step, result, canceled=ended.outcome is Outcome.CANCELED)

    def _tries_again(self, step: Step, module: Module, result: Known) -> Asking:
        pause = yield from self.pause_before_retry(step, module, result)
        if pause is None:
            return False
        retries = [*step.failed_retries, _job(step)]
        attempt = step.attempt + 1
        row = StepRow(
            no=step.no,
            module=step.module,
            state=StepState.STARTED,
            attempt=attempt,
            failed_retries=retries,
            names=step.names,
        )
        new = self.new_job(module, step.no, attempt=attempt, pause=pause)
        seen = seen_by(step)
        try:
            if isinstance(module.value, BranchOne):
                # The branch that was chosen once is gone through again.
                modules = children.modules_of_branch(module.value, step.branch)
                row = msgspec.structs.replace(row, branch=step.branch)
                new = yield from children.body_job(self, module, modules, new, seen, branch=step.branch)
            else:
                new = msgspec.structs.replace(new, args_of=_job(step))
                new = yield from plain_job(self.walk, self.progress, module, new, seen)
        except Unanswered as wrong:
            new = failed_at_once(new, error(wrong.name, str(wrong), module.id))
        self.started(row, new)
        return True

    def pause_before_retry(self, step: Step, module: Module, result: Known) -> Asking:
        """Return how long a failed step waits until it is tried again, or None when it is not."""
        pause = retry.pause(module.retry, step.attempt, self.happened.luck)
        if pause is None:
            return None
        assert isinstance(module.retry, Retry)
        if module.retry.retry_if is not None:
            seen = Seen(before=step.no)
            try:
                rule = module.retry.retry_if.expr
                names: dict[str, Known] = {"result": result, "params": args_of(module, step.job_id)}
                if "error" in rule:
                    names["error"] = yield Value(source="result.error", before=seen.before, names=names)
                wanted = yield from named(module.id, "retry_if", ask(seen.truth(rule, **names)))
            except Unanswered:
                # Whether it is to be tried again is not known: it has failed once, and that stands.
                return None
            if not wanted:
                return None
        return pause

    def after(self, step: Step, result: Known, module: Module) -> Asking:
        """Go on behind a step that has a result, be it an error that is passed over."""
        done = row_of(step, StepState.FAILURE if step.state is StepState.FAILURE else StepState.SUCCESS)
        if step.no == PREPROCESSOR_NO:
            yield from self._preprocessed(done, result)
            return
        if step.no == FAILURE_NO:
            yield from self._failure_module_ended(done, result)
            return
        self.put(done)
        if not (yield from self._answers_early(step, result, module)):
            return
        if step.stopped:
            self.end(Outcome.SUCCESS, result_step=step.no, stopped=self.progress.kind is JobKind.FLOW_NODE)
            return
        if (yield from self._stops(step, module, result)):
            return
        # Nobody is asked about what has failed.
        failed = step.state is StepState.FAILURE
        if module.suspend is not None and approvals.needed(module.suspend) > 0 and not failed:
            yield from approvals.park(self, step, module)
            return
        yield from self.go_on_behind(step.no)

    def go_on_behind(self, no: int, names: Mapping[str, Known] | None = None) -> Asking:
        """Enter the place behind a step, after its sleep."""
        module = self.module(no)
        pause = timedelta(0)
        if module.sleep is not None and no + 1 < len(self.walk.modules):
            try:
                seconds = yield from number(module.id, "sleep", module.sleep, Seen(before=no + 1, names=names or {}))
            except Unanswered as wrong:
                yield from self.fail(no, error(wrong.name, str(wrong), module.id))
                return
            pause = timedelta(seconds=min(max(seconds or 0, 0), timedelta(days=365).total_seconds()))
        yield from self.enter(no + 1, names, pause)

    def _answers_early(self, step: Step, result: Known, module: Module) -> Asking:
        """Answer those who wait for the flow, if this is the step that does so; False means that this has failed."""
        wanted = self.walk.flow.early_return
        if not wanted or self.progress.kind is JobKind.FLOW_NODE:
            return True
        modules = [each.id for each in self.walk.modules]
        seen = Seen(before=step.no + 1)
        if wanted in modules:
            if wanted == module.id:
                self.note(early=(yield Value(source="result", before=seen.before, names={"result": result})))
            return True
        named_steps = {one or other for one, other in _NAMED.findall(wanted)}
        if module.id in named_steps and not named_steps.intersection(modules[step.no + 1 :]):
            try:
                self.note(early=(yield from named("flow", "early_return", ask(seen.value(wanted)))))
            except Unanswered as wrong:
                yield from self.fail(step.no, error(wrong.name, str(wrong), module.id))
                return False
        return True

    def _stops(self, step: Step, module: Module, result: Known) -> Asking:
        """Decide whether the flow ends early here; that of a loop's iteration was asked after each of them."""
        rules = {"stop_after_if": module.stop_after_if, "stop_after_all_iters_if": module.stop_after_all_iters_if}
        if isinstance(module.value, ForLoop | WhileLoop):
            del rules["stop_after_if"]
        seen = Seen(before=step.no + 1, names={"params": args_of(module, step.job_id)})
        for key, rule in rules.items():
            if rule is None:
                continue
            try:
                stops = yield from named(module.id, key, ask(seen.truth(rule.expr, result=result, all_iters=result)))
            except Unanswered as wrong:
                yield from self.fail(step.no, error(wrong.name, str(wrong), module.id))
                return True
            if stops:
                yield from self._stop(rule, step.no, module, result, seen)
                return True
        return False

    def _stop(self, rule: Stop, no: int, module: Module, result: Known, seen: Seen) -> Asking:
        inside = self.progress.kind is JobKind.FLOW_NODE
        if rule.error_message is not None and not rule.skip_if_stopped:
            more: dict[str, msgspec.Raw] = {}
            if rule.error_include_result:
                more["result"] = yield Value(source="result", before=seen.before, names={"result": result})
            message = rule.error_message or f"stop_after_if of step {module.id} was true"
            self.end(Outcome.FAILURE, result=error("EarlyStopError", f"Flow early stop: {message}", module.id, **more))
        elif inside:
            # The iteration ends here; the loop around it goes on only if the rest is merely to be skipped.
            self.end(Outcome.SUCCESS, result_step=no, stopped=not rule.skip_if_stopped)
        else:
            self.end(Outcome.SKIPPED if rule.skip_if_stopped else Outcome.SUCCESS, result_step=no)

    def _preprocessed(self, done: StepRow, result: Known) -> Asking:
        made = yield Value(source="result", before=PREPROCESSOR_NO, names={"result": result})
        self.put(done)
        self.note(args=_as_args(made))
        # The first step is another decision, which reads the arguments anew.
        self.again()

    # ---- something went wrong

    def failed(self, step: Step, result: Known, *, canceled: bool = False) -> Asking:
        """Go on behind a step that has failed for good: past it, to the failure module, or to the end."""
        module = self.module(step.no)
        row = row_of(step, StepState.FAILURE)
        if step.no == PREPROCESSOR_NO:
            self.put(row)
            self.end(Outcome.FAILURE, result=(yield from self._error(step, result)))
        elif step.no == FAILURE_NO:
            self.put(row)
            self.end(Outcome.FAILURE, result=(yield from self._error(step, result)), handled=True)
        elif module.continue_on_error:
            yield from self.after(msgspec.structs.replace(step, state=StepState.FAILURE), result, module)
        elif step.handled:
            # What the failure module has answered below is the answer of all that is around it.
            self.put(row)
            how = {"result_job": result.job_id} if isinstance(result, ResultOf) else {"result": result}
            self.end(Outcome.FAILURE, handled=True, **how)
        else:
            self.put(row)
            yield from self.fail(step.no, (yield from self._error(step, result)), known=canceled)

    def fail(self, no: int, what: msgspec.Raw, *, known: bool | None = False) -> Asking:
        """Let the flow fail with an error, by way of the failure module unless one below has seen it."""
        failure = self.walk.flow.failure_module
        if failure is None or known or no == FAILURE_NO:
            self.end(Outcome.FAILURE, result=what, handled=bool(known))
            return
        inner = msgspec.json.decode(what, type=dict[str, msgspec.Raw])["error"]
        names = {"error": inner, "previous_result": what}
        yield from self._start(FAILURE_NO, failure, Seen(before=max(no, 0) + 1, names=names))

    def _failure_module_ended(self, done: StepRow, result: Known) -> Asking:
        made = yield Value(source="result", before=FAILURE_NO, names={"result": result})
        self.put(done)
        outcome = Outcome.SUCCESS if _recovers(made) else Outcome.FAILURE
        self.end(outcome, result=made, handled=outcome is Outcome.FAILURE)

    def _error(self, step: Step, result: Known) -> Asking:
        module = self.module(step.no)
        return with_step(
            (yield Value(source="result", before=step.no, names={"result": result})), children.culprit(module, step)
        )

    def end(self, outcome: Outcome, *, handled: bool = False, **how: Any) -> None:
        """End the flow; that its failure module has run is for those around it that share the module."""
        handled = handled and self.progress.kind is JobKind.FLOW_NODE
        self.note(end=End(outcome=outcome, handled=handled, **how))

    def _result_of(self, step: Step) -> Known:
        return ListOf(step.no) if step.job_id is None else ResultOf(step.job_id)


def row_of(step: Step, state: StepState) -> StepRow:
    """Return a step's row with another state."""
    return StepRow(**{**msgspec.structs.asdict(step), "state": state})


def _as_args(made: msgspec.Raw) -> msgspec.Raw:
    """Return what a preprocessor has made as arguments."""
    return made if bytes(made).lstrip()[:1] == b"{" else msgspec.Raw(msgspec.json.encode({"value": made}))


def _job(step: Step) -> UUID:
    assert step.job_id is not None
    return step.job_id


def _recovers(result: msgspec.Raw) -> bool:
    try:
        return msgspec.json.decode(result, type=dict[str, msgspec.Raw]).get("recover") == msgspec.Raw(b"true")
    except msgspec.MsgspecError:
        return False
