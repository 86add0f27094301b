"""Answers: bare text for ids, tokens and what was done, JSON for everything else; each with its Content-Type.

The content type is part of the wire: clients parse JSON, keep text as it is, and throw away what names no type.
"""

from typing import Any, TypeVar

import msgspec
from aiohttp import web

_encoder = msgspec.json.Encoder()
T = TypeVar("T")


def text(body: str, status: int = 200) -> web.Response:
    """Return bare text, without quotes."""
    return web.Response(text=body, status=status, content_type="text/plain", charset="utf-8")


def json(body: Any, status: int = 200) -> web.Response:
    """Return JSON of a struct or of anything msgspec encodes; a `msgspec.Raw` goes out as it is."""
    return web.Response(body=_encoder.encode(body), status=status, content_type="application/json")


def or_unset(value: T | None) -> T | msgspec.UnsetType:
    """Return UNSET for None: an optional key without a value is left out, because strict clients stumble over null."""
    return msgspec.UNSET if value is None else value
