"""Runs one Bash script as a process of its own and collects its result.

Result: result.json if the script wrote it, else result.out as text, else the last line of stdout as a plain string.
To know that line, stdout and stderr are two pipes forwarded here in the order in which they become readable: what a
script writes to both within some microseconds may change places in the log.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

from . import encode, room
from .answer import Answer, failure, too_large
from .link import Link
from .place import Place
from .warm import Warmth

BASH = "/bin/bash"
TAIL_BYTES = 2000
TOO_LARGE_A_FILE = 128 + signal.SIGXFSZ
_CHUNK = 65536
_LEFT_IN_PIPES = 1 << 20


def run(order: dict[str, Any], place: Place, link: Link, warmth: Warmth | None) -> Answer:  # noqa: ARG001 (for Python)
    """Run the script under `bash -e` and return its answer; what it left in the background dies with the child."""
    script = f"{place.job}/main.sh"
    Path(script).write_text(order["code"], encoding="utf-8")
    try:
        process = subprocess.Popen(
            [BASH, "-e", script, *order["argv"]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        return failure("refused", "ExecutionErr", f"{BASH} cannot be started: {error.strerror}")
    heard = Heard(order["limits"]["result_bytes"])
    forward(process, heard)
    code = process.wait()
    if code:
        return failed(code, heard)
    return collect(place.job, heard, order["limits"]["result_bytes"])


class Heard:
    """What is remembered of the output: the last line of stdout and the tail of all."""

    def __init__(self, line_bytes: int) -> None:
        self.line_bytes = line_bytes
        self.line = b""
        self.pending = bytearray()
        self.tail = bytearray()

    def hear(self, data: bytes, *, stdout: bool) -> None:
        self.tail += data
        del self.tail[:-TAIL_BYTES]
        if not stdout:
            return
        *complete, rest = data.split(b"\n")
        for part in complete:
            self._extend(part)
            self.line = bytes(self.pending) if self.pending.strip() else self.line
            self.pending.clear()
        self._extend(rest)

    def last_line(self) -> bytes:
        return bytes(self.pending) if self.pending.strip() else self.line

    def _extend(self, part: bytes) -> None:
        # One byte beyond the limit is enough for the result to be refused.
        self.pending += part[: max(0, self.line_bytes + 1 - len(self.pending))]


def forward(process: subprocess.Popen[bytes], heard: Heard) -> None:
    """Pass output on as it comes until the script has ended, not until whoever it left behind has."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = process.stdout.fileno(), process.stderr.fileno()
    ended = os.pidfd_open(process.pid)
    poll = select.poll()
    for fd in (out, err, ended):
        poll.register(fd, select.POLLIN)
    over = False
    while not over:
        for fd, _ in poll.poll():
            if fd == ended:
                over = True
            elif data := os.read(fd, _CHUNK):
                pass_on(data, heard, stdout=fd == out)
            else:
                poll.unregister(fd)
    os.close(ended)
    for fd in (out, err):
        os.set_blocking(fd, False)
        pass_on(rest_of(fd), heard, stdout=fd == out)


def rest_of(fd: int) -> bytes:
    """Return what a pipe still holds now."""
    data = b""
    try:
        while len(data) < _LEFT_IN_PIPES and (part := os.read(fd, _CHUNK)):
            data += part
    except BlockingIOError:
        return data
    return data


def pass_on(data: bytes, heard: Heard, *, stdout: bool) -> None:
    heard.hear(data, stdout=stdout)
    while data:
        data = data[os.write(1, data) :]


def failed(code: int, heard: Heard) -> Answer:
    """Return the answer of a script that ended badly, with the last words it said."""
    exit_code = code if code > 0 else 128 - code
    what = f"exit code {exit_code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
    tail = heard.tail.decode("utf-8", "replace").strip()
    message = f"{what}, last log lines:\n{tail}" if tail else what
    reason = "disk" if exit_code == TOO_LARGE_A_FILE else room.exhausted()
    return failure(reason or ("exit_code" if code > 0 else "killed"), "ExecutionErr", message, exit_code=exit_code)


def collect(folder: str, heard: Heard, result_bytes: int) -> Answer:
    """Return the answer of a script that ended well."""
    document = _read(f"{folder}/result.json", result_bytes)
    text = _read(f"{folder}/result.out", result_bytes)
    if max(len(document or b""), len(text or b"")) > result_bytes:
        return too_large(result_bytes)
    if document is not None:
        try:
            json.loads(document.decode(), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return failure("raised", "ExecutionErr", f"result.json is not valid JSON: {error}")
        return Answer(True, "returned", document)
    line = text.removesuffix(b"\n") if text is not None else heard.last_line()
    found = text is not None or line
    return Answer(True, "returned", encode.to_json(line.decode("utf-8", "replace") if found else None))


def _read(path: str, limit: int) -> bytes | None:
    try:
        with Path(path).open("rb") as file:
            return file.read(limit + 1)
    except FileNotFoundError:
        return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
