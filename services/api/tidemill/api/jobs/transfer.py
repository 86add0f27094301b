"""Jobs taken out of a workspace and brought into one: exported as a stream, imported as a whole or not at all."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import msgspec
from aiohttp import web

from tidemill.api.flows.version import number_of
from tidemill.api.http.answer import text
from tidemill.api.http.errors import HttpError, NotFound, Unprocessable
from tidemill.api.http.route import Call
from tidemill.api.jobs import args as arguments
from tidemill.api.jobs import browse, portable, rules, run_flow, store
from tidemill.api.jobs.portable import ExportQuery, Portable, PortableCompleted, PortableQueued
from tidemill.api.jobs.rules import JobRequest, Runnable
from tidemill.api.jobs.schemas import FlowPreview, ListQuery, RunQuery
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.outbox import to_say
from tidemill.chassis.telemetry import current_traceparent
from tidemill.shared.flow import PREPROCESSOR
from tidemill.shared.script import CODELESS, JobKind


async def export_completed(call: Call) -> web.StreamResponse:
    """Answer one page of the jobs that have ended, with all that they left behind."""
    return await _export(call, finished=True)


async def export_queued(call: Call) -> web.StreamResponse:
    """Answer one page of the jobs that have not ended, as they were asked for."""
    return await _export(call, finished=False)


async def import_completed(call: Call) -> web.StreamResponse:
    """Bring jobs in that have ended elsewhere, all of them or none."""
    body: Sequence[PortableCompleted] = call.body
    now = call.ctx.clock.now()
    portable.refuse_bad(body, now)
    tops = portable.top_of(body)
    viewer = call.viewer
    members = await store.emails_of(call.ctx.database, call.workspace, portable.names(body))
    members = {**members, viewer.username: viewer.email}
    jobs = [portable.ended(at, each, tops[each.id], members, viewer.username, now) for at, each in enumerate(body)]
    _refuse_tags(call, [each.tag for each in jobs])
    audit = call.audit("Created", f"{len(jobs)} completed jobs")
    said = await store.import_completed(call.ctx.database, call.workspace, jobs, to_say([audit]))
    call.ctx.outbox.publish_soon(said)
    return text(f"Imported {len(jobs)} completed jobs")


async def import_queued(call: Call) -> web.StreamResponse:
    """Ask anew for jobs that were asked for elsewhere, all of them or none; they are the importer's own."""
    body: Sequence[PortableQueued] = call.body
    portable.refuse_bad(body, call.ctx.clock.now())
    # All looked up before the transaction, which needs a connection of its own.
    jobs = [await _queued(call, at, each) for at, each in portable.parents_first(body)]
    async with call.ctx.outbox.transaction() as tx:
        for at, job, args in jobs:
            with _naming(at):
                tx.said.append(await store.request(tx, job, args, None))
        await tx.say(call.audit("Execute", f"{len(jobs)} queued jobs"))
    return text(f"Imported {len(jobs)} queued jobs")


async def delete(call: Call) -> web.StreamResponse:
    """Remove jobs with all that they left behind; none that runs."""
    found = await store.selected(call.ctx.database, call.workspace, call.body, call.viewer)
    ids = sorted({each.id for each in found})
    audit = call.audit("Delete", f"{len(ids)} jobs", {"ids": [str(each) for each in ids]})
    said = await store.delete(call.ctx.database, call.workspace, ids, to_say([audit]))
    call.ctx.outbox.publish_soon(said)
    return text(f"Deleted {len(ids)} jobs")


async def _export(call: Call, *, finished: bool) -> web.StreamResponse:
    query: ExportQuery = call.query
    asked = ListQuery(page=query.page, per_page=query.per_page, cursor=query.cursor)
    rules.refuse_order(asked)
    wanted = rules.listing(asked, finished=finished)
    jobs, following = await store.listing(call.ctx.database, call.workspace, asked, wanted, call.viewer)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    if following is not None:
        response.headers["Link"] = browse.link_to(call, following)
    await response.prepare(call.request)
    try:
        separator = b"["
        async for each in _whole(call, [job.id for job in jobs], finished=finished):
            await response.write(separator + msgspec.json.encode(each))
            separator = b","
        await response.write(b"[]" if separator == b"[" else b"]")
    except DatabaseUnavailable:
        # A list that ends early must not look like a whole one.
        if call.request.transport is not None:
            call.request.transport.abort()
        raise ConnectionResetError("the database went away during an export") from None
    return response


async def _whole(call: Call, ids: Sequence[UUID], *, finished: bool) -> AsyncIterator[Portable]:
    """Give the jobs one after the other, so that never more than one of them is in memory.

    One that has ended or gone since it was listed is left out: only one of the two imports takes it.
    """
    for job_id in ids:
        job = await store.portable(call.ctx.database, call.workspace, job_id)
        if job is not None and isinstance(job, PortableCompleted) is finished:
            yield job


async def _queued(call: Call, at: int, job: PortableQueued) -> tuple[int, JobRequest, str]:
    args = arguments.NONE if job.args is msgspec.UNSET else bytes(job.args).decode()
    query = RunQuery(
        job_id=job.id,
        parent_job=job.parent_job,
        tag=job.tag,
        timeout=job.timeout,
        invisible_to_owner=not job.visible_to_owner,
        scheduled_for=job.scheduled_for,
    )
    with _naming(at):
        runnable = await _runnable(call, job)
        asked = rules.request(
            runnable, query, args, call.viewer, call.workspace, job.id, traceparent=current_traceparent()
        )
    now = call.ctx.clock.now()
    if asked.limit_key is not None and (asked.due_at is None or asked.due_at <= now):
        # The limits of many jobs are taken in an order that can't deadlock: by the scheduler, when they fall due.
        asked = msgspec.structs.replace(asked, due_at=None, due_in_ms=1)
    return at, asked, args


@contextmanager
def _naming(at: int) -> Iterator[None]:
    """Say of which job a refusal is."""
    try:
        yield
    except HttpError as error:
        raise type(error)(f"The field [{at}] is not allowed: {error.message}") from error


async def _runnable(call: Call, job: PortableQueued) -> Runnable:
    if job.job_kind is JobKind.PREVIEW or job.job_kind in CODELESS:
        return Runnable(
            kind=job.job_kind,
            language=job.language or "",
            path=job.script_path,
            code=job.raw_code,
            priority=job.priority,
        )
    if job.job_kind in (JobKind.DEPENDENCIES, JobKind.FLOW_DEPENDENCIES):
        raise Unprocessable("What looks for dependencies is asked for anew, by deploying or by jobs/run/dependencies.")
    if job.job_kind in (JobKind.FLOW, JobKind.FLOW_PREVIEW):
        return await _flow(call, job)
    if job.job_kind in (JobKind.FLOW_NODE, JobKind.FLOW_SCRIPT):
        raise Unprocessable("A part of a flow is run by the flow alone.")
    db, path = call.ctx.database, job.script_path or ""
    script = await (
        store.script_by_path(db, call.workspace, path, call.viewer)
        if job.script_hash is None
        else store.script_by_hash(db, call.workspace, job.script_hash, call.viewer)
    )
    if script is None or script.path != path:
        raise NotFound(f"There is no version {job.script_hash or ''} of a script at {path}.")
    if script.language != job.language:
        raise Unprocessable(f"The script at {path} is {script.language} and not {job.language}.")
    return msgspec.structs.replace(script, priority=job.priority) if job.priority is not None else script


async def _flow(call: Call, job: PortableQueued) -> Runnable:
    if job.job_kind is JobKind.FLOW_PREVIEW:
        body = FlowPreview(value=msgspec.Raw((job.raw_code or "").encode()), path=job.script_path, tag=job.tag)
        return msgspec.structs.replace(await run_flow.previewed(call, body), priority=job.priority)
    db, path = call.ctx.database, job.script_path or ""
    flow = await (
        store.flow_by_path(db, call.workspace, path, call.viewer)
        if job.script_hash is None
        else store.flow_by_version(db, call.workspace, number_of(job.script_hash), call.viewer)
    )
    if flow is None or flow.path != path:
        raise NotFound(f"There is no version {job.script_hash or ''} of a flow at {path}.")
    return msgspec.structs.replace(
        flow,
        priority=flow.priority if job.priority is None else job.priority,
        entrypoint=None if job.preprocessed is None else PREPROCESSOR,
    )


def _refuse_tags(call: Call, tags: Sequence[str]) -> None:
    for each in tags:
        rules.refuse_tag(call.viewer, each)
