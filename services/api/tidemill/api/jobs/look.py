"""Looking at one job: what it is, how it went, what it printed, and what is new."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from aiohttp import web

from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import BadRequest, NotFound
from tidemill.api.http.route import Call
from tidemill.api.jobs import rules, store
from tidemill.api.jobs.flow_status import FlowStatus
from tidemill.api.jobs.schemas import (
    CompletedJob,
    GetQuery,
    Job,
    JobUpdate,
    Position,
    ResultMaybe,
    ResultQuery,
    Timing,
    UpdateQuery,
)

HOLD = timedelta(seconds=1)
"""How long a follower is held when there is nothing new: some ask again without a pause."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_000


def job_id_of(call: Call) -> UUID:
    """Return the job's id in the path; what is no id names no job."""
    try:
        return UUID(call.params["id"])
    except ValueError:
        raise missing(call) from None


def missing(call: Call) -> NotFound:
    """Return the error for a job that is not there, or that the viewer may not see: nobody can tell which."""
    return NotFound(f"There is no job {call.params['id']}.")


async def get(call: Call) -> web.StreamResponse:
    """Answer a job, ended or not."""
    query: GetQuery = call.query
    return json(await _job(call, with_logs=not query.no_logs, with_code=not query.no_code))


async def get_completed(call: Call) -> web.StreamResponse:
    """Answer a job that has ended."""
    job = await _job(call, with_logs=True, with_code=True)
    if not isinstance(job, CompletedJob):
        raise unfinished(call)
    return json(job)


async def result(call: Call) -> web.StreamResponse:
    """Answer the result of a job that has ended, or a part of it."""
    query: ResultQuery = call.query
    found = await found_result(call)
    if found.outcome is None:
        raise unfinished(call)
    return json(rules.part(found.result or "null", query.path))


async def result_maybe(call: Call) -> web.StreamResponse:
    """Answer the result of a job, or how far it is."""
    found = await found_result(call)
    ended = found.outcome is not None
    return json(
        ResultMaybe(
            completed=ended,
            result=msgspec.Raw((found.result or "null").encode()),
            success=found.outcome in ("success", "skipped"),
            started=ended or found.started_at is not None,
        )
    )


async def result_of_step(call: Call) -> web.StreamResponse:
    """Answer the result of one step of a flow, as the steps behind it see it."""
    await _brief(call)
    found = await store.step_result(call.ctx.database, job_id_of(call), call.params["node_id"])
    if found is None:
        raise NotFound(f"The job {call.params['id']} has no step {call.params['node_id']} that has ended.")
    return json(msgspec.Raw(found.encode()))


async def timing(call: Call) -> web.StreamResponse:
    """Answer when a job ran."""
    found = await found_result(call)
    if found.finished_at is None:
        raise unfinished(call)
    started_at = found.started_at or found.finished_at
    return json(
        Timing(
            created_at=found.created_at, started_at=started_at, duration_ms=store.millis(found.finished_at - started_at)
        )
    )


async def logs(call: Call) -> web.StreamResponse:
    """Answer all that a job has printed so far."""
    found = await progress(call, UpdateQuery())
    return text(found.tail)


async def update(call: Call) -> web.StreamResponse:
    """Answer what is new about a job, as soon as there is something, and after a second at the latest."""
    query: UpdateQuery = call.query
    clock = call.ctx.clock
    until = clock.monotonic() + HOLD.total_seconds()
    known = None
    async with call.ctx.waiters.follow(job_id_of(call)) as following:
        while True:
            seen = await progress(call, query)
            known = known or seen.flow_status
            said, is_new = news(query, seen, known)
            left = until - clock.monotonic()
            if is_new or left <= 0:
                return json(said)
            await following.wait(timedelta(seconds=left))


async def args(call: Call) -> web.StreamResponse:
    """Answer the arguments of a job, as they were sent."""
    await _brief(call)
    found = await store.args_of(call.ctx.database, call.workspace, job_id_of(call))
    if found is None:
        raise missing(call)
    return json(msgspec.Raw(found.encode()))


async def scheduled_for(call: Call) -> web.StreamResponse:
    """Answer when a job that has not ended is due."""
    brief = await _brief(call)
    if brief.outcome is not None:
        raise NotFound(f"The job {call.params['id']} has ended.")
    return json((brief.due_at - _EPOCH) // timedelta(milliseconds=1))


async def root(call: Call) -> web.StreamResponse:
    """Answer the id of the job at the top of a job's tree."""
    brief = await _brief(call)
    return json(str(brief.root_job or job_id_of(call)))


async def explain(call: Call) -> web.StreamResponse:
    """Answer why a job is where it is."""
    await _brief(call)
    said = await store.explain(call.ctx.database, call.workspace, job_id_of(call))
    if said is None:
        raise missing(call)
    return json(msgspec.Raw(said.encode()))


async def worker_is_draining(call: Call) -> web.StreamResponse:
    """Answer whether the worker that runs a job is about to stop."""
    brief = await _brief(call)
    return json(bool(brief.worker_draining))


async def position(call: Call) -> web.StreamResponse:
    """Answer the place in the workspace's line of a job that was due at this time."""
    try:
        due_ms = int(call.params["scheduled_for"])
    except ValueError:
        due_ms = -1
    if not 0 <= due_ms <= _LAST_MS:
        raise BadRequest("The time in the path must be milliseconds since 1970.")
    due_at = _EPOCH + timedelta(milliseconds=due_ms)
    place = await store.position(call.ctx.database, call.workspace, due_at, call.viewer.only_tags)
    return json(Position(position=place))


async def db_clock(call: Call) -> web.StreamResponse:
    """Answer the database's time in milliseconds since 1970."""
    return json(await store.clock(call.ctx.database))


async def _job(call: Call, *, with_logs: bool, with_code: bool) -> Job:
    found = await store.job(
        call.ctx.database, call.workspace, job_id_of(call), call.viewer, with_logs=with_logs, with_code=with_code
    )
    if found is None:
        raise missing(call)
    return found


async def _brief(call: Call) -> store.Brief:
    found = await store.brief(call.ctx.database, call.workspace, job_id_of(call), call.viewer)
    if found is None:
        raise missing(call)
    return found


async def found_result(call: Call) -> store.Result:
    """Return how the job in the path ended, where it has; raises NotFound."""
    found = await store.result(call.ctx.database, call.workspace, job_id_of(call), call.viewer)
    if found is None:
        raise missing(call)
    return found


async def progress(call: Call, query: UpdateQuery) -> store.Progress:
    """Return where the job in the path is, with what the caller does not know; raises NotFound."""
    found = await store.progress(
        call.ctx.database,
        call.workspace,
        job_id_of(call),
        call.viewer,
        log_offset=query.log_offset,
        stream_offset=query.stream_offset,
        with_logs=not query.without_logs,
        with_steps=not query.only_the_end,
    )
    if found is None:
        raise missing(call)
    return found


def news(query: UpdateQuery, seen: store.Progress, known: FlowStatus | None) -> tuple[JobUpdate, bool]:
    """Return what a follower is told, and whether any of it is new to them, who know a flow to have come so far."""
    said, is_new = rules.update(
        query,
        seen.state,
        seen.outcome,
        seen.tail,
        seen.tail_from,
        seen.units,
        seen.memory_peak_kb,
        stream=seen.stream,
        stream_from=seen.stream_from,
        stream_units=seen.stream_units,
        parked=seen.parked,
        flow_status=seen.flow_status,
        known_status=known,
        workflow_steps=seen.workflow_steps,
    )
    if query.get_progress and seen.progress is not None:
        said = msgspec.structs.replace(said, progress=seen.progress)
    return said, is_new


def unfinished(call: Call) -> NotFound:
    """Return the error for a job that has not ended."""
    return NotFound(f"The job {call.params['id']} has not ended yet.")
