"""Canceling jobs, and telling at once those who have to know: the worker, the replica that waits, the followers."""

from uuid import UUID

from aiohttp import web

from tidemill.api.context import ApiContext
from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import Forbidden
from tidemill.api.http.route import Call
from tidemill.api.jobs import look, store
from tidemill.api.jobs.schemas import CancelReason, SelectionQuery
from tidemill.chassis.outbox import hint_of, to_say
from tidemill.shared.message import Message
from tidemill.shared.messages import CancelJob, JobAnswered, JobProgressed
from tidemill.shared.messages.jobs import Progress

_SOURCE = "/tidemill/api"


async def softly(call: Call) -> web.StreamResponse:
    """Cancel a job; a running one is stopped by its worker, and one that has ended stays as it is."""
    return await _cancel(call, force=False)


async def by_force(call: Call) -> web.StreamResponse:
    """Cancel a job without waiting for its worker."""
    return await _cancel(call, force=True)


async def selection(call: Call) -> web.StreamResponse:
    """Cancel those of some jobs that the viewer may cancel and that have not ended, and answer their ids."""
    query: SelectionQuery = call.query
    wanted: list[UUID] = list(dict.fromkeys(call.body))
    ids = await store.cancelable(call.ctx.database, call.workspace, wanted, call.viewer)
    operation = "jobs.force_cancel" if query.force_cancel else "jobs.cancel"
    audit = call.audit("Delete", f"{len(ids)} jobs", {"ids": [str(each) for each in ids]}, operation=operation)
    canceled, besides = await store.cancel_many(
        call.ctx.database, call.workspace, ids, call.viewer.username, force=query.force_cancel, also=to_say([audit])
    )
    call.ctx.outbox.publish_soon(besides)
    for job_id, how in canceled.items():
        tell(call.ctx, job_id, how)
    return json(list(canceled))


async def at_path(call: Call) -> web.StreamResponse:
    """Cancel all jobs of a path's script that the viewer may cancel and that have not ended, and answer how many."""
    body: CancelReason | None = call.body
    reason = body.reason if body is not None else None
    path = call.params["path"]
    also: str | None = to_say([call.audit("Delete", path, {"reason": reason} if reason else None)])
    count, after = 0, UUID(int=0)
    while also is not None or after.int:
        ids = await store.cancelable_at_path(call.ctx.database, call.workspace, path, call.viewer, after)
        canceled, besides = await store.cancel_many(
            call.ctx.database, call.workspace, ids, call.viewer.username, reason, force=False, also=also
        )
        call.ctx.outbox.publish_soon(besides)
        for job_id, how in canceled.items():
            tell(call.ctx, job_id, how)
        count, also, after = count + len(canceled), None, ids[-1] if ids else UUID(int=0)
    return text(f"{count} jobs of {path} are canceled or asked to stop.")


async def give_up(ctx: ApiContext, workspace: str, job_id: UUID, by: str, reason: str) -> None:
    """Cancel a job whose result nobody waits for any more; the run itself was audited when it was requested."""
    canceled = await store.cancel(ctx.database, workspace, job_id, by, reason, force=False, also=None)
    tell(ctx, job_id, canceled)


def tell(ctx: ApiContext, job_id: UUID, canceled: store.Canceled) -> None:
    """Let those hear at once who have to know that a job is canceled or asked to stop."""
    ctx.outbox.publish_soon(canceled.said)
    if canceled.worker_run is not None:
        _hint(ctx, CancelJob(job_id=job_id, worker_run=canceled.worker_run))
    if canceled.answer == "canceled":
        if canceled.reply_to is not None:
            _hint(ctx, JobAnswered(job_id=job_id), replica=canceled.reply_to)
        _hint(ctx, JobProgressed(job_id=job_id, what=Progress.ENDED))


async def _cancel(call: Call, *, force: bool) -> web.StreamResponse:
    job_id = look.job_id_of(call)
    body: CancelReason | None = call.body
    brief = await store.brief(call.ctx.database, call.workspace, job_id, call.viewer)
    if brief is None:
        raise look.missing(call)
    if not brief.may_cancel:
        raise Forbidden("You may look at this job but not cancel it.")
    reason = body.reason if body is not None else None
    audit = call.audit("Delete", str(job_id), {"reason": reason} if reason else None, span=str(job_id))
    canceled = await store.cancel(
        call.ctx.database, call.workspace, job_id, call.viewer.username, reason, force=force, also=to_say([audit])
    )
    tell(call.ctx, job_id, canceled)
    return text(str(job_id))


def _hint(ctx: ApiContext, message: Message, **also: str) -> None:
    ctx.broker.hint(hint_of(message, _SOURCE, **also))
