"""Jobs in the database: the queue's functions and views, and the scripts that become jobs."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
from asyncpg import PostgresError
from asyncpg.exceptions import InvalidTextRepresentationError
from msgspec import UNSET

from tidemill.api.http.errors import BadRequest, Conflict, Forbidden, HttpError, Unprocessable
from tidemill.api.http.route import Viewer
from tidemill.api.jobs import flow_status, raw_flow
from tidemill.api.jobs.flow_status import FlowStatus
from tidemill.api.jobs.portable import Ended as ImportedJob
from tidemill.api.jobs.portable import Portable, PortableCompleted, PortableQueued
from tidemill.api.jobs.ports import Early, Ended
from tidemill.api.jobs.rules import (
    AskedBefore,
    Cursor,
    JobRequest,
    Listing,
    Runnable,
    in_utc,
    negated,
    one_of,
    patterns,
    runs,
    within,
)
from tidemill.api.jobs.schemas import CompletedJob, Job, ListQuery, QueuedJob, TagCount, WorkflowStatus
from tidemill.chassis.database import Executor, sqlstate
from tidemill.chassis.sql import load
from tidemill.shared import flow
from tidemill.shared.script import FLOW_TAG, FLOWS, JobKind, Language, Outcome

QUERIES = load(__package__, "queries.sql")
_workflow = msgspec.json.Decoder(dict[str, WorkflowStatus])

_REFUSALS: Mapping[str, tuple[type[HttpError], str]] = {
    "TM001": (BadRequest, "The job_id is taken."),
    "TM002": (BadRequest, "The parent_job does not exist in this workspace."),
    "TM003": (Conflict, "The parent_job belongs to a job that is being canceled."),
    "TM011": (Conflict, "The run that is to be taken up is not there any more as it was."),
    "TM008": (Forbidden, "This workspace is archived or deleted: nothing runs in it any more."),
    "TM007": (Unprocessable, "The Idempotency-Key was used for another request."),
}
_LONGEST_NUMBER = 18
"""Digits of a flow's version; an imported job may name anything."""
_ASKED_BEFORE = "TM006"
"""What the queue answers to a request that it does not take."""
Read = TypeVar("Read")
_SHORT_FLOW = 32 * 1024
MOST_FOLLOWED = 100
"""How many jobs of a loop those are told of who follow its flow: the first ones, so that each keeps its place."""


class Canceled(msgspec.Struct, frozen=True, kw_only=True):
    """What came of canceling: `canceled`, `requested`, `finished` or `unknown`, and who has to hear of it."""

    answer: str
    worker_run: UUID | None
    reply_to: str | None
    said: str | None


class Brief(msgspec.Struct, frozen=True, kw_only=True):
    """The least of a job that a viewer may see."""

    state: str
    outcome: str | None
    root_job: UUID | None
    due_at: datetime
    worker_draining: bool | None
    may_cancel: bool


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A job's end, where it has one; `result` is JSON text."""

    state: str
    outcome: str | None
    result: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """What a job was of."""

    id: UUID
    kind: str
    path: str | None
    hash: str | None
    visible_to_owner: bool
    timeout_s: int | None
    due_at: datetime


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """The schema of a version, as JSON text where it has one."""

    hash: str
    path: str
    schema: str | None
    is_head: bool


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job is, and its log and its streamed result, each from some chunk on; and how far it is, of a flow."""

    state: str
    outcome: str | None
    parked: bool
    memory_peak_kb: int | None
    progress: int | None
    tail: str
    tail_from: int
    units: int
    stream: str
    stream_from: int
    stream_units: int
    workflow_steps: dict[str, WorkflowStatus] | None
    flow_status: FlowStatus | None = None


async def script_by_path(db: Executor, workspace: str, path: str, viewer: Viewer) -> Runnable | None:
    """Return the head of a path, ready to run."""
    return _runnable(await db.fetchrow(QUERIES.script_by_path, workspace, path, viewer.username, viewer.is_admin))


async def script_by_hash(db: Executor, workspace: str, version: str, viewer: Viewer) -> Runnable | None:
    """Return one version, ready to run."""
    return _runnable(await db.fetchrow(QUERIES.script_by_hash, workspace, version, viewer.username, viewer.is_admin))


async def flow_by_path(db: Executor, workspace: str, path: str, viewer: Viewer) -> Runnable | None:
    """Return the newest version of a flow, ready to run."""
    return _flow(await db.fetchrow(QUERIES.flow_by_path, workspace, path, viewer.username, viewer.is_admin))


async def flow_by_version(db: Executor, workspace: str, version: int, viewer: Viewer) -> Runnable | None:
    """Return one version of a flow, ready to run."""
    return _flow(await db.fetchrow(QUERIES.flow_by_version, workspace, version, viewer.username, viewer.is_admin))


async def flow_value(db: Executor, workspace: str, version: int) -> str | None:
    """Return the value of a version of a flow, as JSON text."""
    value: str | None = await db.fetchval(QUERIES.flow_value, workspace, version)
    return value


async def restartable(db: Executor, workspace: str, job_id: UUID, viewer: Viewer) -> asyncpg.Record | None:
    """Return a job as far as another may take it up, or None when there is none that the viewer may see."""
    return await db.fetchrow(QUERIES.restartable, workspace, job_id, viewer.username, viewer.is_admin, viewer.only_tags)


async def request(db: Executor, job: JobRequest, args: str, also: str | None) -> str:
    """Ask for a job and return what was said with it, to be published.

    Raises AskedBefore for a request that was made before under its own key, or an HttpError that says what is wrong.
    """
    try:
        said: str = await db.fetchval(QUERIES.request, msgspec.json.encode(job).decode(), args, also)
    except InvalidTextRepresentationError as error:
        raise BadRequest("The arguments are not valid JSON.") from error
    except PostgresError as error:
        if sqlstate(error) == _ASKED_BEFORE:
            raise AskedBefore(UUID(error.detail)) from error
        if (refusal := _REFUSALS.get(sqlstate(error))) is None:
            raise
        kind, sentence = refusal
        raise kind(sentence) from error
    return said


async def count_waiting(db: Executor, workspace: str, most: int) -> int:
    """Return how many jobs of the workspace wait for a worker or a limit, counted up to `most`."""
    count: int = await db.fetchval(QUERIES.count_waiting, workspace, most)
    return count


async def ended(db: Executor, ids: Sequence[UUID]) -> Mapping[UUID, Ended | Early | None]:
    """Return those of the jobs that have ended or answered early, and None for those that are not there."""
    return {row["id"]: _ended(row) for row in await db.fetch(QUERIES.ended, list(ids))}


def _ended(row: asyncpg.Record) -> Ended | Early | None:
    if row["outcome"] is not None:
        return Ended(outcome=Outcome(row["outcome"]), result=row["result"] or "null", early=row["early"])
    return None if row["early"] is None else Early(row["early"])


async def job(
    db: Executor, workspace: str, job_id: UUID, viewer: Viewer, *, with_logs: bool, with_code: bool
) -> Job | None:
    """Return a job, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.read, workspace, job_id, viewer.username, viewer.is_admin, with_logs, with_code)
    if row is None:
        return None
    more: dict[str, Any] = {"args": msgspec.Raw(row["args"].encode()), "raw_code": _or_unset(row["code"])}
    if row["kind"] in FLOWS:
        walk, value = await _walk(db, job_id, row, None)
        more["flow_status"] = flow_status.render(walk)
        if with_code and value is not None:
            more["raw_flow"] = _or_unset(await _aside(value, lambda text: raw_flow.part(text, walk.body)))
        if walk.parked is not None:
            more["suspend"] = flow_status.still_needed(walk.parked)
    if with_logs:
        more["logs"] = row["logs"] or ""
    if (steps := _workflow_steps(row)) is not None:
        more["workflow_as_code_status"] = steps
    if row["outcome"] is not None:
        more["result"] = msgspec.Raw((row["result"] or "null").encode())
    return _job(row, more)


def _workflow_steps(row: asyncpg.Record) -> dict[str, WorkflowStatus] | None:
    steps = row["workflow_steps"]
    return None if steps is None else _workflow.decode(steps)


async def brief(db: Executor, workspace: str, job_id: UUID, viewer: Viewer) -> Brief | None:
    """Return the least of a job, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.read_brief, workspace, job_id, viewer.username, viewer.is_admin)
    return None if row is None else Brief(**row)


async def result(db: Executor, workspace: str, job_id: UUID, viewer: Viewer) -> Result | None:
    """Return how far a job is and how it ended, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.read_result, workspace, job_id, viewer.username, viewer.is_admin)
    return None if row is None else Result(**row)


async def progress(
    db: Executor,
    workspace: str,
    job_id: UUID,
    viewer: Viewer,
    *,
    log_offset: int,
    stream_offset: int,
    with_logs: bool,
    with_steps: bool,
) -> Progress | None:
    """Return where a job is with what lies beyond the offsets, or None when there is none that the viewer may see."""
    row = await db.fetchrow(
        QUERIES.read_update, workspace, job_id, viewer.username, viewer.is_admin, log_offset, with_logs, stream_offset
    )
    if row is None:
        return None
    status = None
    if with_steps and row["kind"] in FLOWS:
        walk, _ = await _walk(db, job_id, row, MOST_FOLLOWED)
        status = flow_status.render(walk)
    return Progress(
        state=row["state"],
        outcome=row["outcome"],
        parked=bool(row["parked"]),
        memory_peak_kb=row["memory_peak_kb"],
        tail=row["tail"],
        tail_from=row["tail_from"],
        units=int(row["units"]),
        stream=row["stream"],
        stream_from=row["stream_from"],
        stream_units=int(row["stream_units"]),
        progress=row["progress"],
        workflow_steps=_workflow_steps(row),
        flow_status=status,
    )


async def step_result(db: Executor, flow_id: UUID, module: str) -> str | None:
    """Return, as JSON text, what a step of a flow has answered, or None when it has not ended or is not there."""
    result: str | None = await db.fetchval(QUERIES.step_result, flow_id, module)
    return result


async def _walk(
    db: Executor, job_id: UUID, row: asyncpg.Record, most_children: int | None
) -> tuple[flow_status.Walk, str | None]:
    """Return how far a flow has come, and the value of the flow it is in as JSON text, where that is still known."""
    found = await db.fetchrow(QUERIES.walk, job_id, row["scope_job"] or job_id, most_children)
    assert found is not None
    return flow_status.Walk(
        flow=None if found["value"] is None else await _aside(found["value"], flow.read),
        body=flow.Body.parse(row["entrypoint"] if row["kind"] == JobKind.FLOW_NODE else None),
        steps=flow_status.read(found["steps"]),
        at_step=row["at_step"],
        outcome=row["outcome"],
        restarted_from=flow_status.restarted_from(row["restarted_from"]),
    ), found["value"]


async def _aside(value: str, read: Callable[[str], Read]) -> Read:
    """Return what is read from a flow's value; others go on while that takes long."""
    return read(value) if len(value) < _SHORT_FLOW else await asyncio.to_thread(read, value)


async def cancel(
    db: Executor, workspace: str, job_id: UUID, by: str, reason: str | None, *, force: bool, also: str | None
) -> Canceled:
    """Cancel a job, with what else is to be said when that changes something."""
    row = await db.fetchrow(QUERIES.cancel, workspace, job_id, by, reason, force, also)
    assert row is not None
    return Canceled(**row)


async def cancelable(db: Executor, workspace: str, ids: Sequence[UUID], viewer: Viewer) -> Sequence[UUID]:
    """Return those of the jobs that the viewer may cancel."""
    rows = await db.fetch(QUERIES.cancelable, workspace, list(ids), viewer.username, viewer.is_admin, viewer.only_tags)
    return [row["id"] for row in rows]


async def cancelable_at_path(db: Executor, workspace: str, path: str, viewer: Viewer, after: UUID) -> Sequence[UUID]:
    """Return the next of the unfinished jobs of a path's script that the viewer may cancel, by id."""
    rows = await db.fetch(
        QUERIES.cancelable_at_path, workspace, path, viewer.username, viewer.is_admin, viewer.only_tags, after
    )
    return [row["id"] for row in rows]


async def cancel_many(
    db: Executor,
    workspace: str,
    ids: Sequence[UUID],
    by: str,
    reason: str | None = None,
    *,
    force: bool,
    also: str | None,
) -> tuple[Mapping[UUID, Canceled], str | None]:
    """Cancel jobs in one transaction; return those that had not ended, and what was said besides."""
    return _canceled(await db.fetch(QUERIES.cancel_many, workspace, list(ids), by, reason, force, also))


async def portable(db: Executor, workspace: str, job_id: UUID) -> Portable | None:
    """Return all of a job that can be brought elsewhere, or None when it is there no more."""
    row = await db.fetchrow(QUERIES.portable, workspace, job_id)
    if row is None:
        return None
    common: dict[str, Any] = {
        "id": row["id"],
        "created_by": row["created_by"],
        "created_at": row["created_at"],
        "permissioned_as": row["permissioned_as"],
        "permissioned_as_email": row["email"],
        "email": row["email"],
        "job_kind": JobKind(row["kind"]),
        "language": Language(row["language"]) if row["language"] else None,
        "visible_to_owner": row["visible_to_owner"],
        "parent_job": row["parent_job"],
        "script_path": row["path"],
        "script_hash": row["hash"],
        "raw_code": row["code"],
        "args": msgspec.Raw(row["args"].encode()),
        "tag": row["tag"],
        "priority": row["priority"] or None,
        "timeout": row["timeout_s"],
        "trigger_kind": row["trigger_kind"],
    }
    if row["outcome"] is None:
        common["preprocessed"] = False if row["is_to_be_preprocessed"] else None
        return PortableQueued(**common, scheduled_for=row["due_at"])
    started_at = row["started_at"]
    return PortableCompleted(
        **common,
        started_at=started_at,
        completed_at=row["finished_at"],
        duration_ms=millis(row["finished_at"] - (started_at or row["finished_at"])),
        status=Outcome(row["outcome"]),
        is_skipped=row["outcome"] == Outcome.SKIPPED,
        result=msgspec.Raw((row["result"] or "null").encode()),
        logs=row["logs"],
        canceled_by=row["canceled_by"],
        canceled_reason=row["canceled_reason"],
        mem_peak=row["memory_peak_kb"],
        labels=row["labels"],
        worker=row["worker"],
    )


async def emails_of(db: Executor, workspace: str, usernames: Collection[str]) -> Mapping[str, str]:
    """Return the emails of those who are members, by username."""
    return {row["username"]: row["email"] for row in await db.fetch(QUERIES.emails_of, workspace, list(usernames))}


async def import_completed(db: Executor, workspace: str, jobs: Sequence[ImportedJob], also: str) -> str:
    """Bring jobs in that have ended elsewhere and return what was said; raises an HttpError naming the field."""
    try:
        said: str = await db.fetchval(QUERIES.import_jobs, workspace, msgspec.json.encode(jobs).decode(), also)
    except PostgresError as error:
        raise _refusal_of(error, jobs) from error
    return said


async def delete(db: Executor, workspace: str, ids: Sequence[UUID], also: str) -> str:
    """Remove jobs with all that they left behind and return what was said; raises Conflict when one is under way."""
    try:
        said: str = await db.fetchval(QUERIES.delete_jobs, workspace, list(ids), also)
    except PostgresError as error:
        if sqlstate(error) != "TM009":
            raise
        raise Conflict(f"The job {error.detail} is under way: {error.hint}.") from error
    return said


async def close_workspace(
    db: Executor, workspace: str, by: str, reason: str
) -> tuple[Mapping[UUID, Canceled], str | None]:
    """Cancel all jobs of a workspace and take none any more.

    Returns those of which somebody has to hear, and what was said.
    """
    return _canceled(await db.fetch(QUERIES.close_workspace, workspace, by, reason))


async def open_workspace(db: Executor, workspace: str) -> None:
    """Take jobs of a workspace again."""
    await db.execute(QUERIES.open_workspace, workspace)


async def selected(db: Executor, workspace: str, ids: Sequence[UUID], viewer: Viewer) -> Sequence[Selected]:
    """Return those of the jobs that the viewer may see, in this order."""
    rows = await db.fetch(QUERIES.selected, workspace, list(ids), viewer.username, viewer.is_admin, viewer.only_tags)
    return [Selected(**row) for row in rows]


async def args_of(db: Executor, workspace: str, job_id: UUID) -> str | None:
    """Return the arguments of a job as JSON text, or None when it is there no more."""
    args: str | None = await db.fetchval(QUERIES.args_of, workspace, job_id)
    return args


async def schemas(
    db: Executor, workspace: str, hashes: Sequence[str], paths: Sequence[str], viewer: Viewer
) -> Sequence[Schema]:
    """Return the schemas of some versions and of the heads of some paths."""
    rows = await db.fetch(QUERIES.schemas, workspace, list(hashes), list(paths), viewer.username, viewer.is_admin)
    return [Schema(**row) for row in rows]


async def flow_schemas(
    db: Executor, workspace: str, versions: Sequence[str], paths: Sequence[str], viewer: Viewer
) -> Sequence[Schema]:
    """Return the schemas of some versions of flows and of what is newest at some paths."""
    numbers = [int(each) for each in versions if each.isdecimal() and len(each) <= _LONGEST_NUMBER]
    rows = await db.fetch(QUERIES.flow_schemas, workspace, numbers, list(paths), viewer.username, viewer.is_admin)
    return [Schema(**row) for row in rows]


async def run_now(db: Executor, workspace: str, job_id: UUID, also: str) -> tuple[str, str | None]:
    """Let a job that waits for its time enter the line: `entered`, `not_scheduled` or `unknown`, and what was said."""
    row = await db.fetchrow(QUERIES.run_now, workspace, job_id, also)
    assert row is not None
    return row["answer"], row["said"]


async def forget(db: Executor, workspace: str, job_id: UUID, also: str) -> tuple[bool, str | None]:
    """Forget what an ended job was given, answered and printed; return whether there is one, and what was said."""
    row = await db.fetchrow(QUERIES.forget, workspace, job_id, also)
    assert row is not None
    return row["answer"] == "forgotten", row["said"]


async def count_unfinished(db: Executor, workspace: str, only_tags: Sequence[str] | None) -> tuple[int, int]:
    """Return how many jobs, of all workspaces for none, have not ended, and how many of them are suspended."""
    row = await db.fetchrow(QUERIES.count_unfinished, workspace, only_tags)
    assert row is not None
    return row["unfinished"], row["suspended"]


async def count_finished(db: Executor, workspace: str, only_tags: Sequence[str] | None) -> int:
    """Return how many jobs of the workspace have ended."""
    count: int = await db.fetchval(QUERIES.count_finished, workspace, only_tags)
    return count


async def count_ended(
    db: Executor,
    workspace: str,
    only_tags: Sequence[str] | None,
    tags: Sequence[str] | None,
    *,
    success: bool | None,
    within_last: timedelta | None,
) -> int:
    """Return how many jobs, of all workspaces for none, have ended in this way."""
    count: int = await db.fetchval(QUERIES.count_ended, workspace, only_tags, tags, success, within_last)
    return count


async def count_ended_by_tag(
    db: Executor, workspace: str, only_tags: Sequence[str] | None, within_last: timedelta
) -> list[TagCount]:
    """Return how many jobs, of all workspaces for none, have ended lately, by their tags."""
    return [TagCount(**row) for row in await db.fetch(QUERIES.count_ended_by_tag, workspace, only_tags, within_last)]


async def explain(db: Executor, workspace: str, job_id: UUID) -> str | None:
    """Return, as JSON text, why a job is where it is."""
    said: str | None = await db.fetchval(QUERIES.explain, workspace, job_id)
    return said


async def position(db: Executor, workspace: str, due_at: datetime, only_tags: Sequence[str] | None) -> int:
    """Return the place in the workspace's line, from 1, of a job that was due then."""
    place: int = await db.fetchval(QUERIES.position, workspace, due_at, only_tags)
    return place


async def clock(db: Executor) -> int:
    """Return the database's time in milliseconds since 1970."""
    now: int = await db.fetchval(QUERIES.clock)
    return now


async def listing(
    db: Executor, workspace: str, query: ListQuery, wanted: Listing, viewer: Viewer
) -> tuple[list[Job], Cursor | None]:
    """Return one page of the jobs that fit, newest first, without what may be large, and where the next one begins.

    Without a workspace, of all of them.
    """
    if wanted.nothing:
        return [], None
    none_of = negated(query)
    labels = one_of(query.label, "label")
    wild = query.allow_wildcards
    of_the_end = (
        patterns(one_of(query.worker, "worker"), wildcards=wild),
        in_utc(query.started_before, "started_before"),
        in_utc(query.started_after, "started_after"),
        wanted.outcomes,
        in_utc(query.completed_before, "completed_before"),
        in_utc(query.completed_after, "completed_after"),
        labels,
        within(query.result, "result"),
        wanted.states,
        query.scheduled_for_before_now,
        in_utc(query.created_or_started_before, "created_or_started_before"),
        in_utc(query.created_or_started_after, "created_or_started_after"),
    )
    page, everything = (query.per_page, query.offset), (None, 0)
    rows = await db.fetch(
        _statement(query, wanted, by_label=labels is not None and "label" not in none_of),
        workspace,
        viewer.username,
        viewer.is_admin,
        *(page + everything if all(each is None for each in of_the_end) else everything + page),
        wanted.after.born,
        wanted.after.job_id,
        none_of,
        one_of(query.created_by, "created_by"),
        patterns(one_of(query.script_path_exact, "script_path_exact"), wildcards=wild),
        query.script_path_start or None,
        one_of(query.script_hash, "script_hash"),
        one_of(query.job_kinds, "job_kinds"),
        patterns(one_of(query.tag, "tag"), wildcards=wild),
        one_of(query.trigger_kind, "trigger_kind"),
        one_of(query.concurrency_key, "concurrency_key"),
        query.parent_job,
        query.has_null_parent,
        in_utc(query.created_before, "created_before"),
        in_utc(query.created_after, "created_after"),
        within(query.args, "args"),
        (query.broad_filter or "").lower() or None,
        query.excludes_entrypoint_override or None,
        viewer.only_tags,
        wanted.finished,
        *of_the_end,
        query.is_flow_step,
    )
    following = Cursor(born=rows[-1]["born"], job_id=rows[-1]["id"]) if len(rows) == query.per_page else None
    return [_job(row, {}) for row in rows], following


def _statement(query: ListQuery, wanted: Listing, *, by_label: bool) -> str:
    if wanted.finished is False:
        return QUERIES.list_unfinished
    if query.all_workspaces:
        return QUERIES.list_everywhere
    return QUERIES.list_labeled if by_label else QUERIES.list_any


def _refusal_of(error: PostgresError, jobs: Sequence[ImportedJob]) -> Exception:
    """Return what is told of an import that the queue refuses; anything else is the error itself."""
    state = sqlstate(error)
    place = next((at for at, each in enumerate(jobs) if str(each.id) == error.detail), 0)
    if state == "TM001":
        return BadRequest(f"The field [{place}].id is taken.")
    if state == "TM002":
        return BadRequest(f"The field [{place}].parent_job does not exist in this workspace.")
    if state == "TM008":
        return Forbidden(_REFUSALS[state][1])
    return error


def _canceled(rows: Sequence[asyncpg.Record]) -> tuple[Mapping[UUID, Canceled], str | None]:
    besides = next((row["said"] for row in rows if row["id"] is None), None)
    jobs = [dict(row) for row in rows if row["id"] is not None]
    return {row.pop("id"): Canceled(**row) for row in jobs}, besides


def _runnable(row: asyncpg.Record | None) -> Runnable | None:
    return None if row is None else Runnable(kind=JobKind.SCRIPT, **row)


def _flow(row: asyncpg.Record | None) -> Runnable | None:
    return None if row is None else Runnable(kind=JobKind.FLOW, **{**row, "tag": row["tag"] or FLOW_TAG})


def _job(row: asyncpg.Record, more: Mapping[str, Any]) -> Job:
    canceled = row["outcome"] == Outcome.CANCELED or (row["outcome"] is None and row["canceled_by"] is not None)
    common: dict[str, Any] = {
        **more,
        "id": row["id"],
        "workspace_id": row["workspace_id"],
        "created_by": row["created_by"],
        "created_at": row["created_at"],
        "scheduled_for": row["due_at"],
        "job_kind": row["kind"],
        "permissioned_as": row["permissioned_as"],
        "email": row["email"],
        "visible_to_owner": row["visible_to_owner"],
        "tag": row["tag"],
        "language": _or_unset(row["language"]),
        "canceled": canceled,
        "canceled_by": _or_unset(row["canceled_by"]) if canceled else UNSET,
        "canceled_reason": _or_unset(row["canceled_reason"]) if canceled else UNSET,
        "parent_job": _or_unset(row["parent_job"]),
        "script_path": _or_unset(row["path"]),
        "script_hash": _or_unset(row["hash"]),
        "priority": _or_unset(row["priority"]),
        "trigger_kind": _or_unset(row["trigger_kind"]),
        "worker": _or_unset(row["worker"]),
        "is_flow_step": row["step_id"] is not None,
        "flow_step_id": _or_unset(row["step_id"]),
        "flow_innermost_root_job": _or_unset(row["scope_job"]),
    }
    if row["outcome"] is None:
        return QueuedJob(
            **common,
            running=runs(row["state"], parked=bool(row["parked"])),
            started_at=_or_unset(row["started_at"]),
            last_ping=_or_unset(row["last_beat"]),
        )
    started_at = row["started_at"] or row["finished_at"]
    return CompletedJob(
        **common,
        started_at=started_at,
        completed_at=row["finished_at"],
        duration_ms=millis(row["finished_at"] - started_at),
        success=row["outcome"] in (Outcome.SUCCESS, Outcome.SKIPPED),
        is_skipped=row["outcome"] == Outcome.SKIPPED,
        deleted=row["deleted"],
        mem_peak=_or_unset(row["memory_peak_kb"]),
        labels=_or_unset(row["labels"]),
    )


def millis(span: timedelta) -> int:
    """Return whole milliseconds."""
    return max(0, span // timedelta(milliseconds=1))


def _or_unset(value: Any) -> Any:
    return value or UNSET
