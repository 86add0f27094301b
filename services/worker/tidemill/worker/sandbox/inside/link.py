"""The worker, as a running job speaks to it before its answer."""

from __future__ import annotations

import json
import os
import socket

from . import frames


class Link:
    """Says what the worker is to hear while the job goes on."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pid = os.getpid()

    def stream(self, chunk: str) -> None:
        """Pass on a part of the result."""
        frames.send(self._sock, json.dumps({"stream": chunk}).encode())

    def keep(self, step: bytes) -> None:
        """Return when a workflow's step, as JSON, is kept for good; who may not go on is ended while it waits."""
        if os.getpid() != self._pid:
            raise ChildProcessError("a fork made by the script has no steps of its own")
        frames.send(self._sock, b'{"step":' + step + b"}")
        if frames.receive(self._sock) is None:
            os._exit(0)
