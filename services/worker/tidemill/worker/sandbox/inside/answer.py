"""What a finished job says, before its process has ended."""

from __future__ import annotations

import json
from typing import NamedTuple

LIMITS = ("memory", "files", "disk", "result_limit")  # reasons that an error names, because a limit was the end


class Answer(NamedTuple):
    """The outcome with its result as JSON, ready to be put into a frame unparsed."""

    success: bool
    reason: str
    result: bytes

    def frame(self, peak_kb: int) -> bytes:
        head = json.dumps({"success": self.success, "reason": self.reason, "peak_kb": peak_kb})
        return head[:-1].encode() + b',"result":' + self.result + b"}"


def failure(reason: str, name: str, message: str, *, stack: str | None = None, exit_code: int | None = None) -> Answer:
    """Return a failed answer in the one shape that clients know."""
    error: dict[str, str | int] = {"name": legible(name), "message": legible(message)}
    if stack is not None:
        error["stack"] = legible(stack)
    if exit_code is not None:
        error["exit_code"] = exit_code
    if reason in LIMITS:
        error["reason"] = reason
    return Answer(False, reason, json.dumps({"error": error}, ensure_ascii=False).encode())


def too_large(limit: int) -> Answer:
    return failure("result_limit", "ResultTooLarge", f"the result is larger than {limit} bytes")


def legible(text: str) -> str:
    """Replace what JSON in a database cannot hold: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
