"""The rows of flows in memory: any number of schedulers, a worker, and messages that are lost, repeated, out of order.

    world = World(value, args, Random(7))
    assert world.run().result == [1, 2]

It does what load_flow, advance_flow and wake_flows do and drives the engine as schedulers do. It checks meanwhile that
nothing is done twice and that no window is exceeded.
"""

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec

from tests.unit.scheduler.flow_reference import GOOD, MISSING, Path, Said, Wrong, evaluate, ran, truthy
from tidemill.scheduler.domain.flow.asks import (
    ArgsOf,
    Ask,
    FindFlow,
    Known,
    ListOf,
    ResultOf,
    Slots,
    Target,
    Truth,
    Unanswered,
)
from tidemill.scheduler.domain.flow.asks import Value as Asked
from tidemill.scheduler.domain.flow.changes import Changes, Start, StepRow
from tidemill.scheduler.domain.flow.engine import next_steps
from tidemill.scheduler.domain.flow.progress import FAILURE_NO, NULL, Ended, Happened, Progress, Step, StepState, Walk
from tidemill.shared.flow import Body, Flow, Module, modules_of, read
from tidemill.shared.script import JobKind, Outcome

HEARD_AT_ONCE = 3


@dataclass
class Job:
    """One job as the hot table and the archive know it."""

    id: uuid.UUID
    kind: JobKind
    parent: "Job | None"
    scope: "Job"
    value: Mapping[str, Any] | None
    body: str | None
    args: Mapping[str, Any]
    path: Path
    code: str | None = None
    step_no: int | None = None
    index: int | None = None
    attempt: int = 0
    due_at: datetime | None = None
    version: int = 0
    at_step: int | None = None
    wake_at: datetime | None = None
    outcome: str | None = None
    result: Any = None
    steps: dict[int, "StepRow"] = field(default_factory=dict)
    children: dict[tuple[int, int, int], "Child"] = field(default_factory=dict)

    @property
    def is_flow(self) -> bool:
        """Whether schedulers walk it."""
        return self.value is not None


@dataclass
class Child:
    """One iteration or branch."""

    job: Job
    state: str
    stopped: bool | None = None
    handled: bool | None = None
    ended_at: int = 0


@dataclass
class Decided:
    """What one scheduler has decided and not yet written down."""

    job: Job
    version: int
    changes: Changes


class Stuck(AssertionError):
    """Nothing can be done and the flow has not ended."""


class World:
    """Any number of schedulers, one worker after the other, and messages that are lost, repeated and out of order."""

    def __init__(
        self,
        value: Mapping[str, Any],
        args: Mapping[str, Any],
        luck: Random,
        flows: Mapping[str, Any] | None = None,
        slots: int = 4,
        trouble: float = 0.15,
    ) -> None:
        self.flows = flows or {}
        self.luck = luck
        self.slots = slots
        self.trouble = trouble
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.jobs: dict[uuid.UUID, Job] = {}
        self.runs: Counter[Path] = Counter()
        self.said: list[Job] = []
        self.ready: list[Job] = []
        self.running: list[Job] = []
        self.decided: list[Decided] = []
        self.turns = 0
        self.most = 0
        """The most jobs that were unfinished at once."""
        self._ids = itertools.count(1)
        self._order = itertools.count(1)
        self._read: dict[int, tuple[Mapping[str, Any], Flow]] = {}
        self.root = Job(self._mint(), JobKind.FLOW_PREVIEW, None, None, value, None, args, ())  # type: ignore[arg-type]
        self.root.scope = self.root
        self.jobs[self.root.id] = self.root
        self.said.append(self.root)

    def _mint(self) -> uuid.UUID:
        return uuid.UUID(int=next(self._ids))

    def run(self, turns: int = 20_000) -> Said:
        """Let things happen until the flow has ended and nobody is at it any more."""
        while self.root.outcome is None or self.decided or self.said:
            self.turns += 1
            if self.turns > turns:
                raise Stuck(f"no end after {turns} turns")
            self._something_happens()
            self.most = max(self.most, sum(job.outcome is None for job in self.jobs.values()))
        self._check_the_end()
        return Said(self.root.outcome, self.root.result)

    def _unlucky(self) -> bool:
        return self.luck.random() < self.trouble

    def _something_happens(self) -> None:
        can = []
        if self.said:
            can.append(self._hear)
        if self.decided:
            can.append(self._write)
        if any(job.due_at is None or job.due_at <= self.now for job in self.ready):
            can.append(self._begin)
        if self.running:
            can.append(self._finish)
        if not can or self._unlucky():
            can.append(self._sweep)
        self.luck.choice(can)()

    # ---- what happens

    def _hear(self) -> None:
        """A scheduler takes a message: late, maybe, and maybe not for the last time."""
        job = self.said[self.luck.randrange(len(self.said))]
        if not self._unlucky():
            self.said.remove(job)
        self._decide(job)

    def _decide(self, job: Job) -> None:
        loaded = self._load(job)
        if loaded is None:
            return
        walk, progress, happened = loaded
        before = next(self._ids)
        changes = self._drive(job, walk, progress, happened, before)
        if self._unlucky():
            assert self._drive(job, walk, progress, happened, before) == changes, "the same progress, another decision"
        if changes != Changes():
            self.decided.append(Decided(job, job.version, changes))

    def _drive(self, job: Job, walk: Walk, progress: Progress, happened: Happened, first: int) -> Changes:
        ids = itertools.count(first * 1000)
        decision = next_steps(walk, progress, happened, lambda: uuid.UUID(int=next(ids)))
        try:
            ask = next(decision)
            while True:
                try:
                    answer = self._answer(job, progress, ask)
                except Unanswered as wrong:
                    ask = decision.throw(wrong)
                else:
                    ask = decision.send(answer)
        except StopIteration as made:
            changes: Changes = made.value
            return changes

    def _write(self) -> None:
        """A scheduler writes down what it has decided, unless it dies before; it may die right behind, too."""
        decided = self.decided.pop(self.luck.randrange(len(self.decided)))
        job = decided.job
        if self._unlucky():
            return
        if not self._advance(decided):
            if not self._unlucky():
                self.said.append(job)
            return
        if self._unlucky():
            # It has not heard that it was written, and tries once more.
            assert not self._advance(decided), "one decision was written down twice"
        again = job.wake_at is not None and job.wake_at <= self.now
        if again and not self._unlucky():
            self.said.append(job)

    def _begin(self) -> None:
        due = [job for job in self.ready if job.due_at is None or job.due_at <= self.now]
        job = self.luck.choice(due)
        self.ready.remove(job)
        self.running.append(job)

    def _finish(self) -> None:
        job = self.running.pop(self.luck.randrange(len(self.running)))
        assert job.code is not None
        outcome, result = ran(job.code, job.args, self.runs[job.path])
        self.runs[job.path] += 1
        self._end(job, outcome, result)

    def _sweep(self) -> None:
        """`wake_flows`; when nothing is left to be done, time goes by first."""
        flows = [job for job in self.jobs.values() if job.is_flow and job.outcome is None]
        if not (self.said or self.decided or self.running):
            times = [job.due_at for job in self.ready if job.due_at is not None]
            times += [job.wake_at for job in flows if job.wake_at is not None]
            if not self.ready or all(job.due_at is not None and job.due_at > self.now for job in self.ready):
                self.now = max([self.now, *([min(times)] if times else [])])
        found = [
            job
            for job in flows
            if (job.wake_at is not None and job.wake_at <= self.now)
            or job.version == 0
            or any(step.state == "ended" for step in job.steps.values())
            or any(child.state == "ended" for child in job.children.values())
        ]
        self.said += found
        idle = not (self.said or self.decided or self.running or self.ready)
        if idle and self.root.outcome is None:
            raise Stuck("nothing is left that could move the flow")

    # ---- what load_flow does

    def _flow(self, value: Mapping[str, Any]) -> Flow:
        if id(value) not in self._read:
            self._read[id(value)] = (value, read(json.dumps(value)))
        return self._read[id(value)][1]

    def _walk(self, job: Job) -> Walk:
        assert job.value is not None
        flow = self._flow(job.value)
        return Walk(flow=flow, modules=modules_of(flow, Body.parse(job.body)))

    def _load(self, job: Job) -> tuple[Walk, Progress, Happened] | None:
        if job.outcome is not None:
            return None
        row = None if job.at_step is None else job.steps[job.at_step]
        step = None
        ended: list[Ended] = []
        items: list[msgspec.Raw] = []
        item = NULL
        if row is not None:
            step = Step(**{name: getattr(row, name) for name in Step.__struct_fields__})
        if row is not None and row.state == "ended":
            assert row.job_id is not None
            ended = [self._ended(self.jobs[row.job_id], None, row.stopped, row.handled)]
        elif row is not None and row.state == "started" and row.job_id is None:
            heard = [
                (child.ended_at, index, child)
                for (no, attempt, index), child in job.children.items()
                if no == row.no and attempt == row.attempt and child.state == "ended"
            ]
            ended = [
                self._ended(child.job, index, child.stopped, child.handled)
                for _, index, child in sorted(heard, key=lambda each: each[:2])[:HEARD_AT_ONCE]
            ]
            if row.items is not msgspec.UNSET:
                every = msgspec.json.decode(row.items, type=list[msgspec.Raw])
                items = every[row.started : row.started + 200]
                item = every[row.started - 1] if row.started > 0 else NULL
        progress = Progress(
            id=job.id,
            workspace_id="w",
            kind=job.kind,
            scope_job=job.scope.id,
            body=job.body,
            own_args=_raw(job.args) if job.kind is JobKind.FLOW_NODE else NULL,
            step=step,
        )
        happened = Happened(now=self.now, ended=ended, items=items, item=item, luck=self.luck.random())
        return self._walk(job), progress, happened

    def _ended(self, job: Job, index: int | None, stopped: bool | None, handled: bool | None) -> Ended:
        assert job.outcome is not None
        large = self._unlucky()
        result = NULL if large else _raw(job.result)
        return Ended(
            job_id=job.id, outcome=Outcome(job.outcome), index=index, result=result, stopped=stopped, handled=handled
        )

    # ---- what advance_flow does

    def _advance(self, decided: Decided) -> bool:
        job, changes = decided.job, decided.changes
        if job.outcome is not None or job.version != decided.version:
            return False
        for take in changes.take:
            child = job.children[job.at_step or 0, take.attempt, take.index]
            assert child.state == "ended"
            child.state = take.state
        for row in changes.steps:
            old = job.steps.get(row.no)
            if old is not None:
                kept = {name: getattr(old, name) for name in ("items", "result")}
                row = msgspec.structs.replace(
                    row, **{name: value for name, value in kept.items() if getattr(row, name) is msgspec.UNSET}
                )
            job.steps[row.no] = row
        for start in changes.start:
            self._place(job, start)
        for no in changes.collect:
            job.steps[no] = msgspec.structs.replace(job.steps[no], result=_raw(self._collected(job, no)))
        assert changes.stop is None
        job.version += 1
        job.at_step = job.at_step if changes.at_step is None else changes.at_step
        job.wake_at = changes.wake_at
        self._check_the_window(job)
        end = changes.end
        if end is not None:
            if end.result is not msgspec.UNSET:
                result = json.loads(bytes(end.result))
            elif end.result_job is not None:
                result = self.jobs[end.result_job].result
            else:
                assert end.result_step is not None
                result = self._step_result(job.steps[end.result_step])
            self._tell_of_the_stop(job, stopped=end.stopped, handled=end.handled)
            self._end(job, end.outcome, result)
        return True

    def _place(self, flow: Job, start: Start) -> None:
        row = flow.steps[start.step_no]
        place = (*flow.path, row.module)
        where = start.step_index if start.step_index is not None else row.branch
        args = json.loads(bytes(start.args)) if start.args_of is None else self.jobs[start.args_of].args
        job = Job(start.id, start.kind, flow, flow.scope, None, None, args, place)
        if row.module != start.step_id:
            job.path = (*place, where, start.step_id)
        job.code, job.step_no, job.index, job.attempt = start.code, start.step_no, start.step_index, start.step_attempt
        if start.due_in_ms is not None:
            job.due_at = self.now + timedelta(milliseconds=start.due_in_ms)
        assert start.id not in self.jobs
        self.jobs[job.id] = job
        if start.step_index is not None:
            state = "started" if not start.answered else "failure" if start.outcome == "failure" else "success"
            key = (start.step_no, start.step_attempt, start.step_index)
            assert key not in flow.children, "a child was started twice"
            flow.children[key] = Child(job, state)
        if start.answered:
            assert start.result is not msgspec.UNSET
            job.outcome, job.result = str(start.outcome or "success"), json.loads(bytes(start.result))
        elif start.kind is JobKind.FLOW_NODE:
            job.value, job.body, job.path = flow.value, start.entrypoint, (*place, where)
            self._say(job)
        elif start.kind is JobKind.FLOW:
            job.value, job.scope = self.flows[start.path or ""], job
            self._say(job)
        else:
            self.ready.append(job)

    def _say(self, job: Job) -> None:
        if not self._unlucky():
            self.said.append(job)
        if self._unlucky():
            self.said.append(job)

    def _tell_of_the_stop(self, job: Job, *, stopped: bool, handled: bool) -> None:
        if job.parent is None or not (stopped or handled):
            return
        assert job.step_no is not None
        if job.index is None:
            row = job.parent.steps[job.step_no]
            job.parent.steps[job.step_no] = msgspec.structs.replace(row, stopped=stopped, handled=handled)
        else:
            child = job.parent.children[job.step_no, job.attempt, job.index]
            child.stopped, child.handled = stopped, handled

    def _end(self, job: Job, outcome: str, result: Any) -> None:
        assert job.outcome is None, "a job has ended twice"
        assert not any(each.parent is job and each.outcome is None for each in self.jobs.values()), "left alone"
        job.outcome, job.result = str(outcome), result
        flow = job.parent
        if flow is None:
            return
        assert job.step_no is not None
        if job.index is not None:
            child = flow.children[job.step_no, job.attempt, job.index]
            assert child.state == "started"
            child.state, child.ended_at = "ended", next(self._order)
        else:
            row = flow.steps[job.step_no]
            assert row.job_id == job.id
            assert row.state == "started"
            flow.steps[job.step_no] = msgspec.structs.replace(row, state=StepState.ENDED)
        self._say(flow)

    # ---- what is asked

    def _answer(self, job: Job, progress: Progress, ask: Ask) -> Any:
        match ask:
            case Asked():
                try:
                    value = evaluate(ask.source, _Names(self, job, ask))
                except Wrong as wrong:
                    raise Unanswered("ExpressionError", str(wrong)) from None
                return truthy(value) if isinstance(ask, Truth) else _raw(value)
            case Slots():
                return self.slots
            case FindFlow(path=path) if path in self.flows:
                return Target(path=path, hash="1")
            case FindFlow():
                raise Unanswered("NotFound", "there is none")
            case _:
                raise AssertionError(ask)

    def known(self, job: Job, what: Known) -> Any:
        """Return what stands for something."""
        match what:
            case ResultOf(job_id=job_id):
                return self.jobs[job_id].result if job_id in self.jobs else None
            case ArgsOf(job_id=job_id):
                return self.jobs[job_id].args
            case ListOf(no=no):
                kept = job.steps[no].result
                return self._collected(job, no) if kept is msgspec.UNSET else json.loads(bytes(kept))
            case _:
                return json.loads(bytes(what))

    def before(self, job: Job, before: int, module: str | None) -> Any:
        """Return what a step before has answered."""
        while True:
            for no in sorted(job.steps, reverse=True):
                row = job.steps[no]
                if 0 <= no < before and module in (None, row.module) and row.state in ("ended", "success", "failure"):
                    return self._step_result(row)
            if job.kind is not JobKind.FLOW_NODE:
                return MISSING
            assert job.parent is not None
            assert job.step_no is not None
            before = job.step_no
            job = job.parent

    def _step_result(self, row: StepRow) -> Any:
        if row.result is not msgspec.UNSET:
            return json.loads(bytes(row.result))
        assert row.job_id is not None
        return self.jobs[row.job_id].result

    def _collected(self, job: Job, no: int) -> Any:
        row = job.steps[no]
        listed = sorted((key[2], child) for key, child in job.children.items() if key[:2] == (no, row.attempt))
        return [child.job.result for _, child in listed]

    # ---- what always holds

    def _check_the_window(self, flow: Job) -> None:
        if flow.at_step is None:
            return
        row = flow.steps[flow.at_step]
        live = sum(
            child.job.outcome is None for key, child in flow.children.items() if key[:2] == (row.no, row.attempt)
        )
        assert live <= self._most_at_once(flow, row), "more at once than allowed"

    def _most_at_once(self, flow: Job, row: StepRow) -> int:
        if row.no == FAILURE_NO:
            return 1
        value = _found(self._walk(flow).modules, row.module).value
        if not getattr(value, "parallel", False) or value.__struct_config__.tag == "whileloopflow":
            return 1
        given = getattr(value, "parallelism", None)
        return min(max(1, 2 * self.slots), 200, *([max(1, given)] if isinstance(given, int) else []))

    def _check_the_end(self) -> None:
        assert all(job.outcome is not None for job in self.jobs.values()), "the flow has left something behind"
        successes = Counter(
            (job.parent.id, job.step_no, job.index, job.attempt if job.index is not None else None)
            for job in self.jobs.values()
            if job.parent is not None and job.outcome in GOOD
        )
        assert all(count == 1 for count in successes.values()), "a step has succeeded twice"
        for flow in self.jobs.values():
            for row in flow.steps.values():
                if row.job_id is not None:
                    good = self.jobs[row.job_id].outcome in GOOD
                    assert row.state == ("success" if good else "failure"), "a row tells another story than its job"


class _Names(dict[str, Any]):
    """What an expression sees, looked up only when it is."""

    def __init__(self, world: World, job: Job, ask: Asked) -> None:
        super().__init__()
        self._world, self._job, self._ask = world, job, ask

    def get(self, name: str, default: Any = None) -> Any:
        ask, job, world = self._ask, self._job, self._world
        if name in ask.names:
            return world.known(job, ask.names[name])
        body = job.args if job.kind is JobKind.FLOW_NODE else {}
        own = {key: json.loads(bytes(value)) for key, value in ask.own.items()}
        match name:
            case "flow_input":
                return {**job.scope.args, **body, **own}
            case "previous_result":
                found = world.before(job, ask.before, None)
                return {**job.scope.args, **body, **own} if found is MISSING else found
            case "results":
                return _Results(world, job, ask.before)
            case _:
                return default


class _Results(dict[str, Any]):
    def __init__(self, world: World, job: Job, before: int) -> None:
        super().__init__()
        self._world, self._job, self._before = world, job, before

    def get(self, name: str, default: Any = None) -> Any:
        found = self._world.before(self._job, self._before, name)
        return default if found is MISSING else found


def _found(modules: Sequence[Module], name: str) -> Module:
    return next(module for module in modules if module.id == name)


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
