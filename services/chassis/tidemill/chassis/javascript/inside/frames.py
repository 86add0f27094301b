"""Messages over the one descriptor: the length of both parts, a head in JSON, and text that nobody has to escape."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

LENGTHS = struct.Struct("!II")
_CONNECTION = 0
_PIECE = 1 << 18


def receive() -> tuple[dict[str, Any], bytes]:
    """Return the next message; raises EOFError when the other side has gone."""
    head, text = LENGTHS.unpack(_read(LENGTHS.size))
    return json.loads(_read(head)), _read(text)


def send(head: dict[str, Any], text: bytes = b"") -> None:
    """Send a message; raises OSError when the other side has gone."""
    encoded = json.dumps(head).encode()
    rest = memoryview(LENGTHS.pack(len(encoded), len(text)) + encoded + text)
    while rest:
        rest = rest[os.write(_CONNECTION, rest) :]


def _read(length: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < length:
        piece = os.read(_CONNECTION, min(length - len(pieces), _PIECE))
        if not piece:
            raise EOFError
        pieces += piece
    return bytes(pieces)
