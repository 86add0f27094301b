"""Following a job as a stream of server-sent events: pushed when something happens, looked at now and then.

    data: {"type":"update",...}     what is new; the last one has `completed`, and `only_result` for those who want that
    data: {"type":"ping"}           nothing new, but we are here
    data: {"type":"timeout"}        this stream has lasted long enough: ask again
    data: {"type":"not_found"}      there is none that you may see
    data: {"type":"error",...}      it can't be followed at this moment

A stream ends soon enough for a revoked token not to matter for long, and a reader that takes nothing is cut off.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from aiohttp import web

from tidemill.api.http.errors import NotFound
from tidemill.api.http.route import Call
from tidemill.api.jobs import look
from tidemill.api.jobs.ports import Following
from tidemill.api.jobs.schemas import Broken, FollowQuery, Gone, JobUpdate, Ping, StreamEvent, TimeIsUp, Update
from tidemill.chassis.errors import DatabaseUnavailable

_HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
_STEP = timedelta(milliseconds=500)
"""How soon a stream notices that the process goes."""


@dataclass(frozen=True)
class Pace:
    """How long a stream lasts, how often it shows life and looks by itself, and how slow its reader may be.

    Nobody says of each step that it goes on, so flows are looked at more often.
    """

    lasts: timedelta = timedelta(seconds=60)
    ping_every: timedelta = timedelta(seconds=5)
    look_at_flows_every: timedelta = timedelta(seconds=1)
    write_within: timedelta = timedelta(seconds=10)


async def events(call: Call) -> web.StreamResponse:
    """Answer what happens to a job until it ends."""
    return await stream(call, Pace())


async def stream(call: Call, pace: Pace) -> web.StreamResponse:
    """Answer what happens to a job until it ends, at a pace; raises TooManyRequests beyond a person's share."""
    with call.ctx.waiters.stream(call.viewer.email):
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(call.request)
        try:
            async with call.ctx.waiters.follow(look.job_id_of(call)) as following:
                last = await _follow(call, response, following, pace)
        except NotFound:
            last = Gone()
        except DatabaseUnavailable:
            last = Broken(error="The database can't be reached at this moment.")
        await _send(call, response, last, pace)
        return response


async def _follow(call: Call, response: web.StreamResponse, following: Following, pace: Pace) -> StreamEvent:
    """Send what is new and return the last that there is to say."""
    query: FollowQuery = call.query
    until = call.ctx.clock.monotonic() + pace.lasts.total_seconds()
    first, known = True, None
    while not call.ctx.closing.is_set():
        seen = await look.progress(call, query)
        said, is_new = look.news(query, seen, known)
        if said.completed:
            return await _end(call, said)
        if is_new or first:
            await _send(call, response, _as_event(said), pace)
        first, known = False, seen.flow_status
        query = msgspec.structs.replace(
            query,
            running=said.running,
            log_offset=max(query.log_offset, seen.units),
            stream_offset=max(query.stream_offset, seen.stream_units),
        )
        left = timedelta(seconds=until - call.ctx.clock.monotonic())
        if left <= timedelta(0):
            break
        patience = pace.ping_every if seen.flow_status is None else pace.look_at_flows_every
        if not await _told(call, following, min(left, patience)):
            await _send(call, response, Ping(), pace)
    return TimeIsUp()


async def _told(call: Call, following: Following, longest: timedelta) -> bool:
    """Return whether there may be something new within this time; comes back early when the process goes."""
    until = call.ctx.clock.monotonic() + longest.total_seconds()
    while not call.ctx.closing.is_set() and (left := until - call.ctx.clock.monotonic()) > 0:
        if await following.wait(min(timedelta(seconds=left), _STEP)):
            return True
    return False


async def _end(call: Call, said: JobUpdate) -> Update:
    query: FollowQuery = call.query
    if not query.only_result:
        return _as_event(said)
    found = await look.found_result(call)
    return msgspec.structs.replace(_as_event(said), only_result=msgspec.Raw((found.result or "null").encode()))


def _as_event(said: JobUpdate) -> Update:
    return Update(**msgspec.structs.asdict(said))


async def _send(call: Call, response: web.StreamResponse, event: StreamEvent, pace: Pace) -> None:
    try:
        async with asyncio.timeout(pace.write_within.total_seconds()):
            await response.write(b"data: " + msgspec.json.encode(event) + b"\n\n")
    except TimeoutError:
        if call.request.transport is not None:
            call.request.transport.abort()
        raise ConnectionResetError("the reader of the stream takes nothing") from None
