"""Length-prefixed frames on the child's own socket, as its blocking end writes and reads them."""

from __future__ import annotations

import json
import socket
from typing import Any


def send(sock: socket.socket, payload: bytes) -> None:
    sock.sendall(len(payload).to_bytes(4, "big") + payload)


def receive(sock: socket.socket) -> Any | None:
    """Return the next frame's JSON, or None when the other side has gone."""
    head = _exactly(sock, 4)
    body = _exactly(sock, int.from_bytes(head, "big")) if head else b""
    return json.loads(body) if body else None


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = sock.recv(min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
