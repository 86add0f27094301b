"""A job's output as it comes: bytes to log text and stream chunks, without waiting for more than is needed."""

from __future__ import annotations

import codecs
from collections.abc import Callable

MARKER = "WM_STREAM: "

Hear = Callable[[str], None]


class Output:
    """Turns chunks of bytes into calls of `on_log` and `on_stream`, at once, and stops at its limits.

    A line that begins with the marker is a stream chunk and no log; only the start of a line which may still become the
    marker is held back. Text is UTF-8 with errors replaced; NUL, which no database text can hold, becomes U+FFFD.
    """

    def __init__(self, log_bytes: int, stream_bytes: int, on_log: Hear, on_stream: Hear) -> None:
        self.truncated = False
        self.stream_overflow = False
        self._log_left = log_bytes
        self._log_bytes = log_bytes
        self._stream_left = stream_bytes
        self._on_log = on_log
        self._on_stream = on_stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._at_line_start = True

    def feed(self, data: bytes) -> None:
        """Take what was just read."""
        self._take(self._decoder.decode(data))

    def close(self) -> None:
        """Take the end: whatever was held back is what it looks like."""
        self._take(self._decoder.decode(b"", final=True))
        held, self._held = self._held, ""
        if held.startswith(MARKER):
            self._stream(held)
        else:
            self._log(held)

    def stream(self, chunk: str) -> None:
        """Take a chunk that did not come as a line."""
        self._stream_left -= len(chunk)
        if self._stream_left < 0:
            self.stream_overflow = True
        elif chunk:
            self._on_stream(chunk)

    def _take(self, text: str) -> None:
        text = self._held + text.replace("\0", "\ufffd")
        self._held = ""
        if MARKER[0] not in text:
            self._plain(text)
            return
        logged: list[str] = []
        for line in text.splitlines(keepends=True) if "\n" in text else [text]:
            self._line(line, logged)
        self._log("".join(logged))

    def _line(self, line: str, logged: list[str]) -> None:
        complete = line.endswith("\n")
        if self._at_line_start and line.startswith(MARKER):
            if complete:
                self._log("".join(logged))
                logged.clear()
                self._stream(line)
            else:
                self._hold(line)
        elif self._at_line_start and not complete and MARKER.startswith(line):
            self._hold(line)
        else:
            logged.append(line)
            self._at_line_start = complete

    def _hold(self, line: str) -> None:
        if len(line) > self._stream_left + len(MARKER):
            self.stream_overflow = True
        else:
            self._held = line

    def _plain(self, text: str) -> None:
        if text:
            self._at_line_start = text.endswith("\n")
            self._log(text)

    def _stream(self, line: str) -> None:
        self.stream(line.removeprefix(MARKER).removesuffix("\n").replace("\\n", "\n"))

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
