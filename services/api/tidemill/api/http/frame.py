"""What happens to every request around its handler.

    find the route ── authorise ── decode ── handle ── add trace id and security headers ── log and measure once

An HttpError is the caller's answer; a database or broker that is away is a 503, and so is a transaction that stood in
the way of others; anything else is a bug of ours, of which the caller learns no more than the trace id that leads to
our log.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web
from asyncpg.exceptions import CharacterNotInRepertoireError, UntranslatableCharacterError
from opentelemetry.trace import SpanKind

from tidemill.api.http import policy
from tidemill.api.http.answer import text
from tidemill.api.http.decode import Decoded, decode_body, decode_query
from tidemill.api.http.errors import BadRequest, HttpError, NotFound, TooLarge, Unavailable, Unsupported
from tidemill.api.http.match import Paths
from tidemill.api.http.route import NOBODY, Call, Route, Viewer
from tidemill.chassis.broker import BrokerUnavailable
from tidemill.chassis.database import REPEATABLE
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.telemetry import Metric, count, current_traceparent, observe, span

if TYPE_CHECKING:
    from tidemill.api.context import ApiContext

log = logging.getLogger(__name__)

BASE = "/api"
TRACE_HEADER = "Tidemill-Trace-Id"
IGNORED_HEADER = "Tidemill-Ignored"

_SECURITY: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_BODY_PATIENCE = 60.0
_MOST_NAMED = 20
_LONGEST_NAME = 100
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_UNSTORABLE = (CharacterNotInRepertoireError, UntranslatableCharacterError)


@dataclass
class _Trail:
    """What is known of a request when it is logged."""

    path: str
    """As it is logged."""
    traceparent: str = ""
    route: Route | None = None
    viewer: Viewer = NOBODY
    ignored: list[str] = field(default_factory=list)

    @property
    def trace_id(self) -> str:
        return self.traceparent.split("-")[1] if self.traceparent else ""


_TRAIL = web.RequestKey("trail", _Trail)


class HttpFrame:
    """Answers everything below /api from the route table, and beside it the few pages that people open."""

    def __init__(self, ctx: "ApiContext", routes: Iterable[Route], pages: Iterable[Route] = ()) -> None:
        self._ctx = ctx
        routes, pages = tuple(routes), tuple(pages)
        self._paths = Paths(routes)
        self._pages = Paths(pages)
        self._secret = _secret([*(BASE + each.path for each in routes), *(each.path for each in pages)])

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Return the answer to a request, whatever happens."""
        trail = _Trail(self._secret.sub(r"\1…", request.path))
        request[_TRAIL] = trail
        began = time.monotonic()
        status = 499
        parent = request.headers.get("traceparent", "")
        with span(
            f"{request.method} {BASE}", SpanKind.SERVER, parent if _TRACEPARENT.fullmatch(parent) else None
        ) as current:
            trail.traceparent = current_traceparent() or ""
            try:
                response = await self._guarded(request, trail)
                status = response.status
                return response
            finally:
                name = trail.route.name if trail.route else "none"
                current.update_name(name)
                _note(request, trail, name, status, timedelta(seconds=time.monotonic() - began))

    async def _guarded(self, request: web.Request, trail: _Trail) -> web.StreamResponse:
        try:
            return await self._handle(request, trail)
        except HttpError as error:
            return _refused(error)
        except (DatabaseUnavailable, BrokerUnavailable) as error:
            log.warning("answered 503", extra={"error": str(error), "trace_id": trail.trace_id})
            return _refused(Unavailable())
        except REPEATABLE as error:
            log.warning("answered 503", extra={"error": str(error), "trace_id": trail.trace_id})
            return _refused(Unavailable("This met other changes of the same things and nothing of it was done: retry."))
        except _UNSTORABLE:
            return _refused(BadRequest("A value holds a character that can't be stored."))
        except web.HTTPException as error:
            return text(f"{error.reason}.", error.status)
        except ConnectionResetError:
            raise
        except Exception:
            log.exception("request failed", extra={"path": trail.path, "trace_id": trail.trace_id})
            return text(f"Something went wrong on our side; our log tells more under {trail.trace_id}.", 500)

    async def _handle(self, request: web.Request, trail: _Trail) -> web.StreamResponse:
        raw_path = request.rel_url.raw_path
        route, params = self._find(request.method, raw_path)
        trail.route = route
        trail.viewer = await policy.authorise(self._ctx, route, params, request)
        strict = self._ctx.settings.strict
        read_body = _reader(request, self._ctx.settings.request_bytes)
        query = decode_query(route, request.query, strict=strict)
        body = Decoded(None)
        if route.body is not None:
            body = decode_body(route, _media(request), await read_body(), strict=strict)
        trail.ignored = [*query.ignored, *body.ignored]
        return await route.handler(
            Call(
                ctx=self._ctx,
                route=route,
                viewer=trail.viewer,
                workspace=params.get("workspace", ""),
                params=params,
                query=query.value,
                body=body.value,
                request=request,
                read_body=read_body,
            )
        )

    def _find(self, method: str, raw_path: str) -> tuple[Route, Mapping[str, str]]:
        if raw_path.startswith(BASE + "/"):
            return self._paths.find(method, raw_path.removeprefix(BASE))
        try:
            return self._pages.find(method, raw_path)
        except NotFound:
            raise NotFound(f"There is nothing here; the API is below {BASE}.") from None


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add what every answer carries; runs right before the headers go out, so that streams have it too."""
    response.headers["Server"] = "tidemill"
    for name, value in _SECURITY.items():
        response.headers.setdefault(name, value)
    trail = request.get(_TRAIL)
    if trail is None:
        return
    response.headers["traceparent"] = trail.traceparent
    response.headers[TRACE_HEADER] = trail.trace_id
    if trail.ignored:
        named = (quote(each[:_LONGEST_NAME], safe="") for each in trail.ignored[:_MOST_NAMED])
        response.headers[IGNORED_HEADER] = ", ".join(named)


def _refused(error: HttpError) -> web.Response:
    response = text(error.message, error.status)
    response.headers.update(error.headers)
    return response


def _reader(request: web.Request, limit: int) -> Callable[[], Awaitable[bytes]]:
    """Return what reads the body, once, and never more of it than the limit."""
    read: list[bytes] = []

    async def read_body() -> bytes:
        if not read:
            read.append(await _read(request, limit))
        return read[0]

    return read_body


async def _read(request: web.Request, limit: int) -> bytes:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        # A kilobyte that unfolds to a gigabyte is not worth the bandwidth it saves.
        raise Unsupported(f"The body is encoded as {encoding}; send it as it is.")
    too_large = TooLarge(f"The body is larger than {limit} bytes.")
    if (request.content_length or 0) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_PATIENCE):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise BadRequest("The body did not arrive in time.") from None
    return bytes(body)


def _media(request: web.Request) -> str:
    return request.content_type.lower() if "Content-Type" in request.headers else ""


def _secret(paths: Iterable[str]) -> re.Pattern[str]:
    """Return what finds the signature in a path, which gives a right to whoever reads it; whatever the method was."""
    patterns = {_before(path) for path in paths if path.endswith("/{signature}")}
    return re.compile(rf"^((?:{'|'.join(sorted(patterns)) or '(?!)'})/+).+", re.DOTALL)


def _before(path: str) -> str:
    parts = path.strip("/").split("/")[:-1]
    return "".join("/+[^/]+" if "{" in each else "/+" + re.escape(each) for each in parts)


def _note(request: web.Request, trail: _Trail, name: str, status: int, took: timedelta) -> None:
    observe(Metric.HTTP_REQUEST, took, method=request.method, route=name, status=str(status))
    if trail.ignored:
        count(Metric.FIELDS_IGNORED, len(trail.ignored), route=name)
    # The path alone: a query may hold a token.
    log.info(
        "request",
        extra={
            "method": request.method,
            "path": trail.path,
            "route": name,
            "status": status,
            "ms": round(took.total_seconds() * 1000, 1),
            "username": trail.viewer.username,
            "trace_id": trail.trace_id,
            **({"ignored": trail.ignored[:_MOST_NAMED]} if trail.ignored else {}),
        },
    )
