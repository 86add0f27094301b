"""One execution as a pipeline: prepare, execute, report.

    claim ─▶ source ─▶ environment ─▶ sandbox ─▶ report ─▶ tell those who wait
               │           │             │          ├ or, of a round of a workflow, what it asks for
               │           │             │          └ repeated until the database has answered:
               │           │             │            the claim key makes that harmless
               │           └─────────────┴ stopped when the job is cancelled, the claim is over or this worker goes
               │           └ what can't be installed fails the job; a job for a lock ends here
               └ a version that is gone fails the job

Killing the process between any two lines leaves a claim whose lease runs out; the job is then claimed again.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import TypeVar

import msgspec
from asyncpg import DeadlockDetectedError, SerializationError
from opentelemetry.trace import SpanKind

from tidemill.chassis.backoff import delays
from tidemill.chassis.database import Executor
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.outbox import hint_of
from tidemill.chassis.service import background
from tidemill.chassis.telemetry import Metric, count, observe, past_span, span
from tidemill.shared.messages import JobAnswered, JobProgressed
from tidemill.shared.messages.jobs import Progress
from tidemill.shared.script import JobKind, Outcome
from tidemill.worker import codeless, flow_locks, marks, rounds, warmth
from tidemill.worker.context import SAYS, Context
from tidemill.worker.environment import variables
from tidemill.worker.environments.failure import NotInstallable, Stopped
from tidemill.worker.environments.together import Say
from tidemill.worker.held import Halt, Holding
from tidemill.worker.logs import Chunk, Log
from tidemill.worker.masking import masked
from tidemill.worker.network import UnknownNetworkError, policy
from tidemill.worker.sandbox.answers import canceled, failed
from tidemill.worker.sandbox.execution import Ending, Execution, Limits
from tidemill.worker.sandbox.settings import SandboxUnavailable, ZygoteKey, own_interpreter
from tidemill.worker.steps import Steps
from tidemill.worker.store import flows, queue, workflows
from tidemill.worker.store.queue import Answer, Claim, Report
from tidemill.worker.store.scripts import Source, keep_lock
from tidemill.worker.store.workflows import Checkpoint

T = TypeVar("T")

log = logging.getLogger(__name__)

_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(seconds=3)
_PASSING = DatabaseUnavailable, DeadlockDetectedError, SerializationError
_MOST_CLAIMS = 5
"""Claims of a job until it fails where no sandbox can be had; with another interpreter than ours, which the sandbox was
proved with at the start, it fails at once."""
_JITTER = Random()  # noqa: S311 - not a secret; made once, because that takes longer than what is seldom waited for


class Found(msgspec.Struct, frozen=True):
    """The result of a job that was to find a lock."""

    lock: str


class ScriptGone(Exception):
    """The script version of this job has been deleted."""


class FlowGone(Exception):
    """The flow of this job has gone with its workspace."""


async def run(ctx: Context, holding: Holding) -> None:
    """Run a claimed job to its end and report it; never raises for anything that the job did."""
    claim = holding.claim
    assert claim is not None
    facts: dict[str, str | int] = {"job_id": str(claim.id), "workspace_id": claim.workspace_id, "claims": claim.claims}
    waited = max(datetime.now(UTC) - claim.due_at, timedelta(0))
    if claim.traceparent is not None and claim.rounds == 0:
        past_span("wait in line", claim.due_at, claim.traceparent, {**facts, "tag": claim.tag})
    with span("run job", kind=SpanKind.CONSUMER, parent=claim.traceparent, attributes=facts):
        written = Log(
            lambda chunk: _append(ctx, claim, chunk),
            lambda: _tell_followers(ctx, claim, Progress.LOGGED),
            claim.token,
        )
        streamed = Log(
            lambda chunk: queue.append_stream(ctx.database, claim, chunk.seq, chunk.text, chunk.units),
            lambda: _tell_followers(ctx, claim, Progress.LOGGED),
            claim.token,
        )
        written.write(
            f"job={claim.id} tag={claim.tag} worker={ctx.me.name} isolation={ctx.me.isolation}"
            + (f" claim={claim.claims}" if claim.claims > 1 else "")
            + "\n"
        )
        _tell_followers(ctx, claim, Progress.STARTED)
        began = time.monotonic()
        try:
            async with background(written.run(), streamed.run()):
                ending = await _execute(ctx, claim, holding, written, streamed)
                ending = marks.judged(masked(ending, claim.token))
                if ending.reason == "suspended":
                    ending = await _asked(ctx, claim, ending)
                found = _labels(ending, written)
        except Exception:
            # Raised from here it would free the slot and leave the job to be claimed again, uncounted and for ever.
            log.exception("job could not be run", extra=facts)
            ending, found = _failed("WorkerError", "The worker could not run this job; its own log says why."), None
        await _report(ctx, claim, holding, ending, found, written, streamed)
        took = timedelta(seconds=time.monotonic() - began)
        observe(Metric.JOB_RUN, took, language=claim.language)
        count(Metric.JOBS_FINISHED, reason=holding.halt or ending.reason, language=claim.language)
        log.info(
            "job ran",
            extra={
                **facts,
                "reason": holding.halt or ending.reason,
                "waited": waited.total_seconds(),
                "took": took.total_seconds(),
            },
        )


async def _execute(ctx: Context, claim: Claim, holding: Holding, written: Log, streamed: Log) -> Ending:
    def say(line: str) -> None:
        written.write(line + "\n")

    if (answer := codeless.ANSWERS.get(claim.kind)) is not None:
        return Ending(success=True, result=answer(claim.args), reason="returned")
    longest = _longest(ctx, claim)
    interpreter: str | None = None
    preparing = asyncio.timeout(longest.total_seconds())
    try:
        if claim.kind in _KEPT:
            found = await _lock(ctx, claim, preparing, say, holding.stop)
            return Ending(success=True, result=msgspec.Raw(msgspec.json.encode(found)), reason="returned")
        source = await _source(ctx, claim)
        known = await _known(ctx, claim, holding)
        network = policy(source.content, ctx.settings.job_network)
        async with AsyncExitStack() as until_it_ends:
            async with preparing:
                environment = await until_it_ends.enter_async_context(
                    ctx.environments.lent(claim.language, source.content, source.lock, say, holding.stop)
                )
            interpreter = environment.interpreter
            shared = await until_it_ends.enter_async_context(ctx.sharing.folder(claim.shares_with))
            key = ZygoteKey(
                workspace=claim.workspace_id,
                network=network,
                interpreter=environment.interpreter,
                environment=environment.folders,
                shared=shared,
            )
            execution = _execution(ctx, claim, source, known, written)
            steps = _steps(ctx, claim, holding, known)
            with span("execute", kind=SpanKind.INTERNAL):
                return await ctx.sharing.bounded(
                    shared,
                    holding.stop,
                    lambda stop: ctx.sandbox.run(
                        key,
                        execution,
                        on_log=written.write,
                        on_stream=streamed.write,
                        cancel=stop,
                        on_step=steps.keep,
                    ),
                )
    except TimeoutError as late:
        return _unprepared(preparing, longest, late)
    except (ScriptGone, FlowGone, UnknownNetworkError) as wrong:
        return _failed(type(wrong).__name__.removesuffix("Error"), str(wrong))
    except NotInstallable as wrong:
        say(str(wrong))
        return _failed(wrong.name, str(wrong))
    except Stopped:
        return canceled()
    except SandboxUnavailable as error:
        # The job's code has not begun: it goes back into the line, where another worker may find it, but not for ever.
        log.error("sandbox unavailable", extra={"job_id": str(claim.id), "error": str(error)})
        say(f"[no sandbox: {error}]")
        if claim.claims - claim.rounds >= _MOST_CLAIMS or (
            interpreter is not None and interpreter != own_interpreter()
        ):
            return _failed("SandboxUnavailable", str(error))
        await asyncio.sleep(_LONGEST_PAUSE.total_seconds())
        holding.end(Halt.DRAINED)
        return canceled()


def _unprepared(preparing: asyncio.Timeout, longest: timedelta, late: TimeoutError) -> Ending:
    if not preparing.expired():
        raise late
    return failed("timeout", "ExecutionErr", f"the packages were not there within {longest.total_seconds():g} s")


async def _lock(
    ctx: Context, claim: Claim, preparing: asyncio.Timeout, say: Say, stop: asyncio.Event
) -> Found | flow_locks.Found:
    """Return what is to be installed for a script, or for the code inside a flow; nothing of it runs."""
    if claim.kind == JobKind.FLOW_DEPENDENCIES:
        value = await _flow(ctx, claim)
        async with preparing:
            return await flow_locks.find(ctx.environments, value, say, stop)
    source = await _source(ctx, claim)
    async with preparing:
        return Found(await ctx.environments.lock_of(claim.language, source.content, say, stop))


def _longest(ctx: Context, claim: Claim) -> timedelta:
    """Return how long preparing the job may take, and then the job itself."""
    longest = ctx.settings.job_timeout
    return longest if claim.timeout_s is None else min(longest, timedelta(seconds=claim.timeout_s))


def _execution(ctx: Context, claim: Claim, source: Source, known: Checkpoint | None, written: Log) -> Execution:
    warm = source.dedicated_worker or warmth.is_annotated(source.content)
    if warm and claim.hash is None:
        written.write("[not warm: a process is kept for deployed versions only]\n")
        warm = False
    if warm and claim.shares_with is not None:
        written.write("[not warm: it shares a folder with the other steps of its flow]\n")
        warm = False
    settings = ctx.settings
    return Execution(
        job_id=str(claim.id),
        language=claim.language,
        code=source.content,
        entrypoint=claim.entrypoint or "main",
        args=msgspec.Raw((claim.args if known is None or known.args is None else known.args).encode()),
        checkpoint=None if known is None else msgspec.Raw(known.checkpoint.encode()),
        env=dict(variables(claim, settings, ctx.me.group)),
        limits=Limits(
            wall_time=_longest(ctx, claim),
            memory_bytes=settings.job_memory_bytes,
            processes=settings.job_processes,
            cpu_percent=settings.job_cpu,
            tmp_bytes=settings.job_disk_bytes,
            file_bytes=settings.job_disk_bytes,
            log_bytes=settings.job_log_bytes,
            output_bytes=settings.job_output_bytes,
            result_bytes=settings.job_result_bytes,
        ),
        warm=warmth.key(claim) if warm else None,
    )


async def _source(ctx: Context, claim: Claim) -> Source:
    if claim.code is not None:
        return Source(claim.code, lock=claim.lock, dedicated_worker=False)
    assert claim.hash is not None
    version = claim.hash
    source = await _persistently(lambda: ctx.sources.get(claim.workspace_id, version))
    if source is None:
        raise ScriptGone(f"Version {claim.hash} of {claim.path} has been deleted.")
    return source


async def _known(ctx: Context, claim: Claim, holding: Holding) -> Checkpoint | None:
    """Return what a later round of a workflow or a task begins with; raises Stopped when the claim is over."""
    if not claim.checkpointed:
        return None
    known = await _persistently(lambda: workflows.checkpoint(ctx.database, claim))
    if known is None:
        holding.end(Halt.DROPPED)
        raise Stopped
    return known


def _steps(ctx: Context, claim: Claim, holding: Holding, known: Checkpoint | None) -> Steps:
    return Steps(
        lambda step: _persistently(lambda: workflows.keep(ctx.database, claim, step)),
        lambda: holding.end(Halt.DROPPED),
        ctx.settings.job_result_bytes,
        *((0, 0) if known is None else (known.count, known.size)),
    )


async def _persistently(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what the database answers, as soon as it can."""
    for pause in delays(_FIRST_PAUSE, _LONGEST_PAUSE, _JITTER):
        try:
            return await ask()
        except _PASSING:
            await asyncio.sleep(pause.total_seconds())
    raise AssertionError("unreachable")


async def _flow(ctx: Context, claim: Claim) -> bytes:
    """Return the value of the flow whose locks are to be found."""
    if claim.code is not None:
        return claim.code.encode()
    assert claim.hash is not None
    version = int(claim.hash)
    value = await _persistently(lambda: flows.value(ctx.database, claim.workspace_id, version))
    if value is None:
        raise FlowGone(f"Version {claim.hash} of {claim.path} is not there any more.")
    return value


async def _asked(ctx: Context, claim: Claim, ending: Ending) -> Ending:
    """Return the ending of a round with what the queue is to be told, or a failure where there is no such thing."""
    try:
        outcome = rounds.read(bytes(ending.result))
        found: dict[tuple[str, str], rounds.Runnable | None] = {}
        for task in rounds.named(outcome):
            where = task.dispatch_type, task.script
            if where not in found:
                found[where] = await _persistently(partial(workflows.target, ctx.database, claim, *where))
        return msgspec.structs.replace(ending, result=msgspec.Raw(rounds.request(outcome, claim, found)))
    except rounds.Unfulfillable as wrong:
        return _failed("WorkflowError", str(wrong))


def _labels(ending: Ending, written: Log) -> list[str] | None:
    try:
        return marks.labels(ending)
    except marks.NoLabels as wrong:
        written.write(f"[the job has no labels: {wrong}]\n")
        return None


async def _report(
    ctx: Context,
    claim: Claim,
    holding: Holding,
    ending: Ending,
    found: list[str] | None,
    written: Log,
    streamed: Log,
) -> None:
    # A job that reached its own end before it could be stopped has that end, whatever was asked of it meanwhile.
    stopped = ending.reason == "canceled"
    refused = False
    for pause in delays(_FIRST_PAUSE, _LONGEST_PAUSE, _JITTER):
        if holding.halt is Halt.DROPPED:
            return
        try:
            if stopped and holding.halt is Halt.DRAINED:
                ctx.outbox.publish_soon(await queue.release(ctx.database, claim))
                return
            if refused:
                report = _as_report(ctx, ending, None, None)
            else:
                report = await _whole_report(ctx, claim, ending, found, written, streamed)
            answer, said = await _finish(ctx, claim, ending, report)
        except _PASSING:
            await asyncio.sleep(pause.total_seconds())
            continue
        except Exception:
            if refused:
                raise
            log.exception("report refused", extra={"job_id": str(claim.id)})
            refused = True
            if not stopped:
                ending = _failed("WorkerError", "The job ended, but its result or its log could not be stored.")
            continue
        _tell_of_the_end(ctx, claim, answer, said)
        return


def _tell_of_the_end(ctx: Context, claim: Claim, answer: Answer, said: str | None) -> None:
    ctx.outbox.publish_soon(said)
    if answer is Answer.STALE:
        log.warning("result refused: the job has another claim", extra={"job_id": str(claim.id)})
        return
    if answer is Answer.SUSPENDED:
        _tell_followers(ctx, claim, Progress.LOGGED)
        return
    if claim.reply_to is not None:
        ctx.broker.hint(hint_of(JobAnswered(job_id=claim.id), SAYS, replica=claim.reply_to))
    _tell_followers(ctx, claim, Progress.ENDED)


async def _whole_report(
    ctx: Context, claim: Claim, ending: Ending, found: list[str] | None, written: Log, streamed: Log
) -> Report:
    """Return the report with the rest of the log, after the rest of what was streamed has been stored."""
    if (rest := await streamed.last()) is not None:
        # Before the end, so that who hears of the end has all that was streamed; a claim that is over is told so by
        # what comes next.
        await queue.append_stream(ctx.database, claim, rest.seq, rest.text, rest.units)
    return _as_report(ctx, ending, found, await written.last())


async def _finish(ctx: Context, claim: Claim, ending: Ending, report: Report) -> tuple[Answer, str | None]:
    if ending.reason == "suspended":
        answer, said = await workflows.suspend(ctx.database, claim, bytes(ending.result).decode(), report)
        if answer is not Answer.TOO_MANY_ROUNDS:
            return answer, said
        ending = _failed("WorkflowError", "The workflow has asked for steps too often.")
    result = None if ending.reason == "canceled" else bytes(ending.result)
    if claim.kind not in _KEPT or claim.hash is None or not ending.success:
        return await queue.finish(ctx.database, claim, report, result)
    async with ctx.database.transaction() as tx:
        answer, said = await queue.finish(tx, claim, report, result)
        if answer is Answer.DONE:
            # Only by whom the job belongs to, and only once: with the job's end or not at all.
            await _KEPT[claim.kind](tx, claim, claim.hash, ending.result)
    return answer, said


async def _keep_lock(tx: Executor, claim: Claim, version: str, result: msgspec.Raw) -> None:
    lock = msgspec.json.decode(result, type=Found).lock
    await keep_lock(tx, claim.workspace_id, version, claim.id, lock)


async def _keep_flow_locks(tx: Executor, claim: Claim, version: str, result: msgspec.Raw) -> None:
    locks = msgspec.json.decode(result, type=flow_locks.Found).locks
    await flows.keep_locks(tx, claim.workspace_id, int(version), claim.id, locks)


_KEPT: Mapping[str, Callable[[Executor, Claim, str, msgspec.Raw], Awaitable[None]]] = {
    JobKind.DEPENDENCIES: _keep_lock,
    JobKind.FLOW_DEPENDENCIES: _keep_flow_locks,
}
"""The kinds of jobs that find locks, and what of their results is kept with a deployed version."""


def _as_report(ctx: Context, ending: Ending, found: list[str] | None, chunk: Chunk | None) -> Report:
    if ending.reason == "canceled":
        outcome = Outcome.CANCELED
    else:
        outcome = Outcome.SUCCESS if ending.success else Outcome.FAILURE
    return Report(
        outcome=outcome,
        worker=ctx.me.name,
        memory_peak_kb=ending.memory_peak_kb,
        labels=found,
        log_seq=None if chunk is None else chunk.seq,
        log_text=None if chunk is None else chunk.text,
        log_units=None if chunk is None else chunk.units,
    )


async def _append(ctx: Context, claim: Claim, chunk: Chunk) -> bool:
    return await queue.append_log(ctx.database, claim, chunk.seq, chunk.text, chunk.units)


def _tell_followers(ctx: Context, claim: Claim, what: Progress) -> None:
    ctx.broker.hint(hint_of(JobProgressed(job_id=claim.id, what=what), SAYS))


def _failed(name: str, message: str) -> Ending:
    return Ending(
        success=False,
        result=msgspec.Raw(msgspec.json.encode({"error": {"name": name, "message": message}})),
        reason="refused",
    )
