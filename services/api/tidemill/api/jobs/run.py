"""Requesting jobs, and waiting for their results."""

import asyncio
from uuid import UUID

import msgspec
from aiohttp import web

from tidemill.api.http.answer import text
from tidemill.api.http.errors import NotFound
from tidemill.api.http.route import Call
from tidemill.api.jobs import args as arguments
from tidemill.api.jobs import cancel, rules, store
from tidemill.api.jobs.ports import Early
from tidemill.api.jobs.reply import reply
from tidemill.api.jobs.rules import AskedBefore, JobRequest, LineTooLong, NoResultInTime, Runnable
from tidemill.api.jobs.schemas import (
    FlowPayloadQuery,
    FlowWaitQuery,
    PayloadQuery,
    Preview,
    RequestQuery,
    WaitQuery,
)
from tidemill.chassis.outbox import to_say
from tidemill.chassis.telemetry import current_traceparent
from tidemill.shared.ids import new_job_id

_KEY = "Idempotency-Key"
_REPLAYED = "Idempotency-Replayed"


async def path(call: Call) -> web.StreamResponse:
    """Request a job of the head of a path and answer its id."""
    args = await sent_args(call)
    return await id_of(call, await _by_path(call), args)


async def version(call: Call) -> web.StreamResponse:
    """Request a job of one version and answer its id."""
    args = await sent_args(call)
    return await id_of(call, await _by_hash(call), args)


async def preview(call: Call) -> web.StreamResponse:
    """Request a job of the code in the body and answer its id."""
    body: Preview = call.body
    return await id_of(call, rules.preview(body), written_args(call, body.args))


async def wait_for_path(call: Call) -> web.StreamResponse:
    """Run the head of a path and answer its result."""
    args = await sent_args(call)
    return await result_of(call, await _by_path(call), args)


async def wait_for_version(call: Call) -> web.StreamResponse:
    """Run one version and answer its result."""
    args = await sent_args(call)
    return await result_of(call, await _by_hash(call), args)


async def wait_for_preview(call: Call) -> web.StreamResponse:
    """Run the code in the body and answer its result."""
    body: Preview = call.body
    return await result_of(call, rules.preview(body), written_args(call, body.args))


async def _by_path(call: Call) -> Runnable:
    script = await store.script_by_path(call.ctx.database, call.workspace, call.params["path"], call.viewer)
    if script is None:
        raise NotFound(f"There is no script at {call.params['path']}.")
    return script


async def _by_hash(call: Call) -> Runnable:
    script = await store.script_by_hash(call.ctx.database, call.workspace, call.params["hash"], call.viewer)
    if script is None:
        raise NotFound(f"There is no version {call.params['hash']}.")
    return script


async def sent_args(call: Call) -> str:
    query: PayloadQuery | WaitQuery = call.query
    if isinstance(query, PayloadQuery):
        args = arguments.from_payload(query.payload)
    else:
        args = await _from_body(call, query)
    return _with_extras(call, args)


async def _from_body(call: Call, query: WaitQuery) -> str:
    named = "Content-Type" in call.request.headers
    return arguments.from_body(
        call.request.content_type.lower() if named else "",
        call.request.charset,
        await call.raw_body(),
        call.request.headers.get("Content-Type", ""),
        wrap=query.wrap_body,
        raw=query.raw,
    )


async def sent_event(call: Call) -> str:
    """Return the request itself as the one argument `event`, for what makes arguments of it."""
    query: PayloadQuery | WaitQuery = call.query
    if isinstance(query, PayloadQuery):
        return arguments.as_event(arguments.from_payload(query.payload), call.request.headers, call.request.query)
    return arguments.as_event(
        await _from_body(call, query),
        call.request.headers,
        call.request.query,
        content_type=call.request.content_type.lower() if "Content-Type" in call.request.headers else "",
        is_bare=not query.wrap_body and (await call.raw_body()).lstrip()[:1] == b"{",
        raw=query.raw,
    )


def written_args(call: Call, args: msgspec.Raw) -> str:
    written = bytes(args)
    return _with_extras(call, arguments.NONE if written == b"null" else arguments.from_json(written))


def _with_extras(call: Call, args: str) -> str:
    query: RequestQuery = call.query
    headers = arguments.from_headers(query.include_header, call.request.headers)
    return arguments.with_more(args, {**headers, **arguments.from_query(query.include_query, call.request.query)})


async def id_of(call: Call, runnable: Runnable, args: str) -> web.StreamResponse:
    query: RequestQuery = call.query
    job_id = query.job_id or new_job_id()
    try:
        await _request(call, runnable, args, job_id)
    except AskedBefore as before:
        return _replayed(text(str(before.job_id), status=201))
    return text(str(job_id), status=201)


async def result_of(call: Call, runnable: Runnable, args: str) -> web.StreamResponse:
    query: RequestQuery = call.query
    job_id = query.job_id or new_job_id()
    patience = call.ctx.settings.wait_result_timeout
    # Registered first: the job may have ended before its request is answered.
    early = not (isinstance(query, FlowWaitQuery | FlowPayloadQuery) and query.skip_early_return)
    with call.ctx.waiters.expect(job_id, early=early) as answer:
        try:
            job = await _request(call, runnable, args, job_id, reply_to=call.ctx.waiters.replica)
            call.ctx.waiters.requested(job_id, at_once=job.cache_key is not None)
            async with asyncio.timeout(patience.total_seconds()):
                ended = await answer
        except AskedBefore as before:
            return await _result_of_earlier(call, before.job_id, early=early)
        except TimeoutError:
            reason = f"no result within {patience.total_seconds():g} s"
            await cancel.give_up(call.ctx, call.workspace, job_id, call.viewer.username, reason)
            raise NoResultInTime(f"The job {job_id} was canceled: {reason}.") from None
        except asyncio.CancelledError:
            if not call.ctx.closing.is_set():
                reason = "the caller that waited for its result has gone"
                await cancel.give_up(call.ctx, call.workspace, job_id, call.viewer.username, reason)
            raise
    return reply(ended.early if isinstance(ended, Early) else ended.result)


async def _result_of_earlier(call: Call, job_id: UUID, *, early: bool) -> web.StreamResponse:
    """Answer the result of a job that an earlier request of the same key waits for; the job is that one's to cancel."""
    patience = call.ctx.settings.wait_result_timeout
    with call.ctx.waiters.expect(job_id, known=True, early=early) as answer:
        try:
            async with asyncio.timeout(patience.total_seconds()):
                ended = await answer
        except TimeoutError:
            raise NoResultInTime(
                f"The job {job_id} goes on: no result within {patience.total_seconds():g} s."
            ) from None
    return _replayed(reply(ended.early if isinstance(ended, Early) else ended.result))


def _replayed(answer: web.Response) -> web.Response:
    answer.headers[_REPLAYED] = "true"
    return answer


async def _request(
    call: Call, runnable: Runnable, args: str, job_id: UUID, *, reply_to: str | None = None
) -> JobRequest:
    query: RequestQuery = call.query
    ctx = call.ctx
    if query.queue_limit is not None:
        waiting = await store.count_waiting(ctx.database, call.workspace, query.queue_limit + 1)
        if waiting > query.queue_limit:
            raise LineTooLong(f"More than {query.queue_limit} jobs wait, the queue_limit of this request.")
    job = rules.request(
        runnable,
        query,
        args,
        call.viewer,
        call.workspace,
        job_id,
        reply_to=reply_to,
        traceparent=current_traceparent(),
    )
    if (key := call.request.headers.get(_KEY)) is not None:
        names = msgspec.json.encode([call.route.name, call.params, call.query, runnable.restart])
        job = rules.with_key(job, key, names, (runnable.code or "").encode(), args.encode())
    what = runnable.path or runnable.hash or "preview"
    audit = call.audit("Execute", what, {"tag": job.tag}, span=str(job_id))
    ctx.outbox.publish_soon(await store.request(ctx.database, job, args, to_say([audit])))
    return job
