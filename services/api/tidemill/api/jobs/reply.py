"""The answer that a result asks for, for those who wait for it. Pure.

    windmill_status_code ──── the status, 200 to 599
    windmill_content_type ─── the body is `result` as it is: text, or for a type that is no text what its base64 means
    windmill_headers ──────── more headers, except those that steer the connection, the login or the browser's guards
    result ────────────────── the body; without it there is none

Everything else is answered as JSON. What a script made is shown by a browser as a page of nowhere: without scripts,
forms or our cookies.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.errors import Unprocessable

_MARK = "windmill_"
_STATUS, _TYPE, _HEADERS = "windmill_status_code", "windmill_content_type", "windmill_headers"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,4096}")
_MEDIA = re.compile(r"[!#$&^_.+0-9A-Za-z-]{1,100}/[!#$&^_.+0-9A-Za-z-]{1,100}(?:\s*;[\t\x20-\x7e]{0,200})?")
_IS_TEXT = re.compile(r"text/.*|[^/]+/(?:.+\+)?(?:json|xml|yaml|javascript|x-www-form-urlencoded|x-ndjson)")
_MOST_HEADERS = 50
_BODILESS = (204, 205, 304)
_SANDBOX = {"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'"}

REFUSED_HEADERS = frozenset(
    (
        # The connection's.
        "connection",
        "content-encoding",
        "content-length",
        "date",
        "expect",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # The login's, and what changes a browser's mind about the whole site.
        "access-control-allow-credentials",
        "alt-svc",
        "authorization",
        "clear-site-data",
        "nel",
        "report-to",
        "reporting-endpoints",
        "service-worker-allowed",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        "www-authenticate",
        # Our own.
        "content-security-policy",
        "content-security-policy-report-only",
        "referrer-policy",
        "server",
        "traceparent",
        "x-content-type-options",
        "x-frame-options",
    )
)
_OUR_PREFIX = "tidemill-"


def reply(result: str) -> web.Response:
    """Return the answer to one who waited for this result; raises Unprocessable when it asks for what it may not."""
    if _MARK not in result or not result.lstrip().startswith("{"):
        return json(msgspec.Raw(result.encode()))
    try:
        fields = msgspec.json.decode(result, type=dict[str, msgspec.Raw])
    except RecursionError:
        # Too deep to be looked into: it asks for nothing.
        return json(msgspec.Raw(result.encode()))
    if not {_STATUS, _TYPE, _HEADERS} & fields.keys():
        return json(msgspec.Raw(result.encode()))
    status = _status(_value(fields, _STATUS))
    headers = _headers(_value(fields, _HEADERS))
    named = _media(_value(fields, _TYPE))
    inner = _named_inside(headers)
    media = named or inner
    body = b"" if "result" not in fields or status in _BODILESS else bytes(fields["result"])
    if media is not None and body:
        body = _as_is(media, body)
    if media is None:
        media = "application/json" if body else "text/plain"
    answer = web.Response(body=body, status=status, headers={**headers, "Content-Type": media})
    answer.headers.update(_SANDBOX)
    return answer


def _value(fields: Mapping[str, msgspec.Raw], name: str) -> Any:
    return msgspec.json.decode(fields[name]) if name in fields else None


def _status(value: Any) -> int:
    if value is None:
        return 200
    if not isinstance(value, int) or isinstance(value, bool) or not 200 <= value <= 599:
        raise Unprocessable(f"The job has ended, but its {_STATUS} is no whole number from 200 to 599.")
    return value


def _media(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or _MEDIA.fullmatch(value) is None:
        raise Unprocessable(f"The job has ended, but its {_TYPE} is no media type.")
    return value


def _headers(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > _MOST_HEADERS:
        raise Unprocessable(f"The job has ended, but its {_HEADERS} is no object with at most {_MOST_HEADERS} keys.")
    for name, each in value.items():
        if _TOKEN.fullmatch(name) is None or not isinstance(each, str) or _VALUE.fullmatch(each) is None:
            raise Unprocessable(f"The job has ended, but its {_HEADERS} holds what is no header: {name[:100]!r}.")
        if name.lower() in REFUSED_HEADERS or name.lower().startswith(_OUR_PREFIX):
            raise Unprocessable(f"The job has ended, but its {_HEADERS} names {name}, which a script may not set.")
    if len({name.lower() for name in value}) < len(value):
        raise Unprocessable(f"The job has ended, but its {_HEADERS} names a header twice.")
    return value


def _named_inside(headers: dict[str, str]) -> str | None:
    for name in headers:
        if name.lower() == "content-type":
            return _media(headers.pop(name))
    return None


def _as_is(media: str, body: bytes) -> bytes:
    value = msgspec.json.decode(body)
    if not isinstance(value, str):
        return body
    if _IS_TEXT.fullmatch(media.partition(";")[0].strip().lower()) is None:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise Unprocessable(
                f"The job has ended, but its {_TYPE} is {media} and its result is no base64 of it."
            ) from None
    return value.encode()
