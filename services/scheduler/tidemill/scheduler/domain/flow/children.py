"""Loops and branches: containers whose bodies are jobs of their own, and how their ends become one result.

A parallel loop is a window that slides over its values: as many jobs as can run soon, refilled by the decision that
hears of ends, so that ten thousand values are never ten thousand rows at once.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from msgspec import UnsetType

from tidemill.scheduler.domain.flow.asks import ListOf, ResultOf, Slots, Unanswered
from tidemill.scheduler.domain.flow.changes import Start, StepRow, Take
from tidemill.scheduler.domain.flow.jobs import (
    EMPTY_LIST,
    NO_ARGS,
    Asking,
    Seen,
    answered,
    ask,
    error,
    failed_at_once,
    is_simple,
    named,
    number,
    plain_job,
    result_of,
    seen_by,
    transformed,
)
from tidemill.scheduler.domain.flow.progress import Ended, Step, StepState
from tidemill.shared.flow import DEFAULT_BRANCH, Body, BranchAll, BranchOne, ForLoop, Module, WhileLoop
from tidemill.shared.script import FLOW_TAG, JobKind, Outcome

if TYPE_CHECKING:
    from tidemill.scheduler.domain.flow.engine import Decision

AT_ONCE = 200
"""The most children that run at a time, and the most that one decision starts."""
MOST_AT_ONCE = 100_000
"""The most that a loop may ask for; an expression may answer more."""

_GOOD = (Outcome.SUCCESS, Outcome.SKIPPED)


def has_children(module: Module) -> bool:
    """Return whether the step counts children; a branchone has one job, like a plain step."""
    return isinstance(module.value, ForLoop | WhileLoop | BranchAll)


def begin(decision: "Decision", row: StepRow, module: Module, seen: Seen, pause: timedelta) -> Asking:
    """Enter a container: find out what it goes over, and start its first children."""
    items: Sequence[msgspec.Raw] = ()
    match module.value:
        case ForLoop(iterator=iterator, parallelism=parallelism):
            given = yield from named(module.id, "iterator", transformed(iterator, seen))
            items = _list(module, given)
            row = msgspec.structs.replace(row, total=len(items), items=given)
            if module.value.parallel:
                most = yield from number(module.id, "parallelism", parallelism, seen)
                row = msgspec.structs.replace(
                    row, parallelism=None if most is None else int(min(max(most, 1), MOST_AT_ONCE))
                )
        case BranchAll(branches=branches):
            row = msgspec.structs.replace(row, total=len(branches))
        case _:
            pass
    decision.note(at_step=row.no)
    if row.total == 0:
        row = msgspec.structs.replace(row, state=StepState.SUCCESS, result=EMPTY_LIST)
        decision.put(decision.rested(row, pause))
        return
    yield from _go_on(decision, row, module, items, (), seen, pause)


def decide(decision: "Decision", step: Step) -> Asking:
    """Hear of children that have ended, start others, and close the container after the last."""
    happened = decision.happened
    if not happened.ended and step.started > step.ended:
        return
    module = decision.module(step.no)
    row = StepRow(**msgspec.structs.asdict(step))
    decision.note(
        take=[
            Take(
                attempt=step.attempt,
                index=ended.index or 0,
                state=StepState.SUCCESS if ended.outcome in _GOOD else StepState.FAILURE,
            )
            for ended in happened.ended
        ]
    )
    seen = seen_by(step)
    try:
        yield from _go_on(decision, row, module, happened.items, happened.ended, seen, timedelta(0))
    except Unanswered as wrong:
        _fail(decision, row, module, error(wrong.name, str(wrong), module.id))


def _go_on(
    decision: "Decision",
    row: StepRow,
    module: Module,
    items: Sequence[msgspec.Raw],
    ended: Sequence[Ended],
    seen: Seen,
    pause: timedelta,
) -> Asking:
    value = module.value
    assert isinstance(value, ForLoop | WhileLoop | BranchAll)
    parallel = bool(value.parallel) and not isinstance(value, WhileLoop)
    first = row.started
    window = 1 if not parallel else min(row.parallelism or AT_ONCE, AT_ONCE)
    asked = not parallel
    heard = deque(ended)
    starts = 0
    stop = False
    while True:
        while heard:
            child = heard.popleft()
            place = (child.index or 0) - first
            item: msgspec.Raw | None = None
            if isinstance(value, ForLoop):
                item = items[place] if items and place >= 0 else decision.happened.item
            its = msgspec.structs.replace(seen, own={"iter": _iteration(child.index or 0, item)})
            row, stops = yield from _hear(row, module, value, child, its, parallel=parallel)
            stop = stop or stops
        closed = stop or row.ended == row.total or (not parallel and row.failed > 0)
        room = row.started - row.ended < window and row.started != row.total and starts < AT_ONCE
        if closed or not room:
            break
        new = yield from _child(decision, row, module, items[row.started - first] if items else None, seen, pause)
        if not asked:
            # Not before there is a child to know the tag of: the window is never smaller than one.
            window = min(window, max(1, 2 * (yield Slots(new.tag))))
            asked = True
        row = msgspec.structs.replace(row, started=row.started + 1)
        starts += 1
        decision.add(new)
        if new.answered:
            assert not isinstance(new.result, UnsetType)
            outcome = new.outcome or Outcome.SUCCESS
            heard.append(Ended(job_id=new.id, index=new.step_index, outcome=outcome, result=new.result))
    if closed:
        yield from _close(decision, row, module)
        return
    decision.put(row)
    if row.started == row.ended:
        decision.again()


def _hear(
    row: StepRow, module: Module, value: ForLoop | WhileLoop | BranchAll, child: Ended, seen: Seen, *, parallel: bool
) -> Asking:
    """Return the row with one more child ended, and whether that ends the container."""
    row = msgspec.structs.replace(row, ended=row.ended + 1)
    if child.outcome not in _GOOD:
        if not _tolerated(value, child.index or 0):
            # Whoever cancels wants neither another try nor the failure module.
            known = child.handled or child.outcome is Outcome.CANCELED
            row = msgspec.structs.replace(row, failed=row.failed + 1, handled=row.handled or known)
            # Not the first that was heard of: what the flow comes to must not hang on who was faster.
            if row.failed_index is None or (child.index or 0) < row.failed_index:
                row = msgspec.structs.replace(row, failed_index=child.index, failed_job=child.job_id)
            return row, False
        # Only its own rule ends a while loop, one whose body always fails as well.
        return row, isinstance(value, WhileLoop) and (yield from _stops(module, row, child, seen))
    if child.stopped and isinstance(value, BranchAll):
        row = msgspec.structs.replace(row, stopped=True)
    return row, not parallel and (bool(child.stopped) or (yield from _stops(module, row, child, seen)))


def _close(decision: "Decision", row: StepRow, module: Module) -> Asking:
    if row.failed:
        assert row.failed_job is not None
        result = ResultOf(row.failed_job)
        pause = None if row.handled else (yield from decision.pause_before_retry(row, module, result))
        if pause is not None:
            again = StepRow(
                no=row.no, module=row.module, state=StepState.STARTED, attempt=row.attempt + 1, names=row.names
            )
            try:
                yield from begin(decision, again, module, seen_by(row), pause)
            except Unanswered as wrong:
                _fail(decision, again, module, error(wrong.name, str(wrong), module.id))
            return
        decision.put(msgspec.structs.replace(row, state=StepState.FAILURE, job_id=row.failed_job))
    elif decision.happened.too_large:
        _fail(decision, row, module, error("ResultTooLarge", "the list of the results is too large", module.id))
    else:
        decision.note(collect=[row.no])
        decision.put(msgspec.structs.replace(row, state=StepState.SUCCESS))
    decision.again()


def _fail(decision: "Decision", row: StepRow, module: Module, what: msgspec.Raw) -> None:
    decision.started(row, failed_at_once(decision.new_job(module, row.no, attempt=row.attempt), what))


def _stops(module: Module, row: StepRow, child: Ended, seen: Seen) -> Asking:
    """Return whether a loop's own rule ends it after this iteration."""
    if module.stop_after_if is None or not isinstance(module.value, ForLoop | WhileLoop):
        return False
    return (
        yield from named(
            module.id,
            "stop_after_if",
            ask(
                seen.truth(module.stop_after_if.expr, result=result_of(child), all_iters=ListOf(row.no), params=NO_ARGS)
            ),
        )
    )


def _child(
    decision: "Decision", row: StepRow, module: Module, item: msgspec.Raw | None, seen: Seen, pause: timedelta
) -> Asking:
    index = row.started
    new = decision.new_job(
        module, row.no, attempt=row.attempt, index=index, pause=pause if index == row.ended else timedelta(0)
    )
    value = module.value
    own: dict[str, msgspec.Raw] = {}
    branch = None
    if isinstance(value, BranchAll):
        modules, branch = value.branches[index].modules, index
    else:
        assert isinstance(value, ForLoop | WhileLoop)
        modules = value.modules
        own["iter"] = _iteration(index, item)
        if "iter" in decision.own:
            own["iter_parent"] = decision.own["iter"]
    if not modules:
        return answered(new, msgspec.Raw(msgspec.json.encode(own)) if own else EMPTY_LIST)
    seen = msgspec.structs.replace(seen, own=own)
    return (yield from body_job(decision, module, modules, new, seen, branch=branch))


def body_job(
    decision: "Decision",
    module: Module,
    modules: Sequence[Module],
    new: Start,
    seen: Seen,
    *,
    branch: int | None = None,
) -> Asking:
    """Return the job of a body: its one simple step itself, else one that walks through it."""
    progress = decision.progress
    if len(modules) == 1 and is_simple(modules[0]):
        (only,) = modules
        new = msgspec.structs.replace(new, step_id=only.id)
        try:
            return (yield from plain_job(decision.walk, progress, only, new, seen))
        except Unanswered as wrong:
            return failed_at_once(new, error(wrong.name, str(wrong), only.id))
    what = "loop" if branch is None else "branch"
    return msgspec.structs.replace(
        new,
        kind=JobKind.FLOW_NODE,
        path=f"{progress.path or ''}/{module.id}/{what}-{new.step_index or branch or 0}".lstrip("/"),
        hash=progress.flow_version,
        entrypoint=str(Body(module.id, branch)),
        tag=FLOW_TAG,
        priority=module.priority or progress.priority or None,
        args=msgspec.Raw(msgspec.json.encode({**decision.own, **seen.own})),
    )


def choose(module: Module, value: BranchOne, seen: Seen) -> Asking:
    """Return the number and the modules of the first case that is true, else of the default."""
    for no, case in enumerate(value.branches):
        if (yield from named(module.id, f"branch {no}", ask(seen.truth(case.expr)))):
            return no, case.modules
    return DEFAULT_BRANCH, value.default


def modules_of_branch(value: BranchOne, branch: int | None) -> Sequence[Module]:
    """Return the modules of a branch that was chosen."""
    return value.default if branch is None or branch == DEFAULT_BRANCH else value.branches[branch].modules


def culprit(module: Module, step: Step) -> str:
    """Return the module that has failed as this step: a body's one simple step stands for the whole body."""
    match module.value:
        case BranchOne() as value:
            modules = modules_of_branch(value, step.branch)
        case BranchAll(branches=branches) if step.failed_index is not None:
            modules = branches[step.failed_index].modules
        case ForLoop(modules=modules) | WhileLoop(modules=modules):
            pass
        case _:
            return module.id
    return modules[0].id if len(modules) == 1 and is_simple(modules[0]) else module.id


def _tolerated(value: ForLoop | WhileLoop | BranchAll, index: int) -> bool:
    if isinstance(value, BranchAll):
        return bool(value.branches[index].skip_failure)
    return bool(value.skip_failures)


def _iteration(index: int, item: msgspec.Raw | None) -> msgspec.Raw:
    value: Mapping[str, object] = {"index": index, "value": index if item is None else item}
    return msgspec.Raw(msgspec.json.encode(value))


def _list(module: Module, given: msgspec.Raw) -> Sequence[msgspec.Raw]:
    try:
        return msgspec.json.decode(given, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        raise Unanswered("IteratorError", f"step {module.id}, iterator: it must be a list") from None
