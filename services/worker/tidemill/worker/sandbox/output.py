"""A job's output as it comes: bytes to log text and stream chunks, without waiting for more than is needed."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from enum import Enum, auto

MARKER = "WM_STREAM: "

Hear = Callable[[str], None]


class _In(Enum):
    LINE_START = auto()
    LOG = auto()
    STREAM = auto()


class Output:
    """Turns chunks of bytes into calls of `on_log` and `on_stream`, at once, and stops at its limits.

    A line that begins with the marker is a stream chunk and no log; only the start of a line which may still become the
    marker is held back. Text is UTF-8 with errors replaced; NUL, which no database text can hold, becomes U+FFFD.
    """

    def __init__(self, log_bytes: int, stream_bytes: int, on_log: Hear, on_stream: Hear) -> None:
        self.truncated = False
        self.stream_overflow = False
        self._log_bytes = log_bytes
        self._log_left = log_bytes
        self._stream_left = stream_bytes
        self._on_log = on_log
        self._on_stream = on_stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._in = _In.LINE_START

    def feed(self, data: bytes) -> None:
        """Take what was just read."""
        self._take(self._decoder.decode(data))

    def close(self) -> None:
        """Take the end: whatever was held back is what it looks like."""
        self._take(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        if self._in is _In.STREAM:
            self.stream(held)
        else:
            self._log(held)

    def stream(self, chunk: str) -> None:
        """Take a chunk that did not come as a line."""
        self._stream_left -= len(chunk)
        if self._stream_left < 0:
            self.stream_overflow = True
        elif chunk:
            self._on_stream(chunk.replace("\0", "\ufffd"))

    def _take(self, text: str) -> None:
        *lines, rest = (self._held + text.replace("\0", "\ufffd")).split("\n")
        self._held = ""
        logged: list[str] = []
        for line in lines:
            self._piece(line + "\n", logged)
        if rest:
            self._piece(rest, logged)
        self._log("".join(logged))

    def _piece(self, line: str, logged: list[str]) -> None:
        complete = line.endswith("\n")
        if self._in is _In.LINE_START:
            if line.startswith(MARKER):
                self._in = _In.STREAM
                line = line.removeprefix(MARKER)
            elif not complete and MARKER.startswith(line):
                self._held = line
                return
            else:
                self._in = _In.LOG
        if self._in is _In.LOG:
            logged.append(line)
        else:
            self._log("".join(logged))
            logged.clear()
            if line.endswith("\\"):  # the first half of an escaped newline, perhaps
                self._held, line = "\\", line[:-1]
            self.stream(line.removesuffix("\n").replace("\\n", "\n"))
        if complete:
            self._in = _In.LINE_START

    def _log(self, text: str) -> None:
        if not text or self.truncated:
            return
        size = len(text) if text.isascii() else len(text.encode())
        if size > self._log_left:
            text = text.encode()[: self._log_left].decode("utf-8", "ignore")
            text += f"\n[the log was cut here: it is longer than {self._log_bytes} bytes]\n"
            self.truncated = True
        self._log_left -= size
        self._on_log(text)
