"""From a child's frames, which nobody vouches for, to an Ending that may be stored."""

from __future__ import annotations

import signal
from datetime import timedelta

import msgspec

from tidemill.worker.sandbox.execution import Ending, Limits, Reason
from tidemill.worker.sandbox.groups import Figures

_FROM_CHILD: tuple[Reason, ...] = (
    "returned", "raised", "exit_code", "killed", "memory", "files", "disk", "result_limit", "suspended", "refused",
)  # fmt: skip
LIMITS: tuple[Reason, ...] = ("memory", "processes", "files", "disk", "output", "timeout", "result_limit")
LEAVES_A_PROCESS: tuple[Reason, ...] = ("returned", "suspended", "raised", "exit_code")
_WHY_UNKNOWN: tuple[Reason, ...] = ("raised", "exit_code", "killed")

_MOST_KB = (1 << 31) - 1  # as much as can be stored


class Frame(msgspec.Struct, frozen=True):
    """One frame of a child: exactly one of ready, refused, stream, step, an answer, or clean or spent of a warm one."""

    ready: bool = False
    clean: bool = False
    spent: str | None = None
    resident_kb: int = 0
    refused: str | None = None
    stream: str | None = None
    step: msgspec.Raw = msgspec.Raw(b"")
    success: bool = False
    reason: Reason | None = None
    peak_kb: int | None = None
    result: msgspec.Raw = msgspec.Raw(b"")


_frames = msgspec.json.Decoder(Frame)


def decode(payload: bytes) -> Frame:
    """Return the frame; one that makes no sense is a refusal."""
    try:
        frame = _frames.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Frame(refused=f"the job's process wrote something that is no answer: {error}")
    texts = {name: text for name in ("spent", "refused", "stream") if (text := getattr(frame, name)) is not None}
    return msgspec.structs.replace(frame, **{name: _legible(text) for name, text in texts.items()}) if texts else frame


def ending(frame: Frame) -> Ending:
    """Return the Ending of an answer frame, its result proved to be JSON that can be stored."""
    if frame.reason not in _FROM_CHILD:
        return failed("killed", "ExecutionErr", frame.refused or "the job's process gave no answer")
    try:
        result = storable(bytes(frame.result))
    except (ValueError, RecursionError) as error:
        return failed("raised", "ExecutionErr", f"the result cannot be stored as JSON: {error}")
    peak_kb = None if frame.peak_kb is None else min(max(frame.peak_kb, 0), _MOST_KB)
    success = frame.success and frame.reason == "returned"
    return Ending(success=success, result=msgspec.Raw(result), reason=frame.reason, memory_peak_kb=peak_kb)


def storable(document: bytes) -> bytes:
    """Return the JSON itself when it may be stored as it is, else without NUL; raises ValueError when it is no JSON."""
    value = msgspec.json.decode(document)
    document.decode()
    if b"\\u0000" not in document and b"\\ud" not in document.lower():
        return document
    return msgspec.json.encode(_cleaned(value))


def _cleaned(value: object) -> object:
    match value:
        case str():
            return _legible(value)
        case list():
            return [_cleaned(item) for item in value]
        case dict():
            return {_cleaned(key): _cleaned(item) for key, item in value.items()}
        case _:
            return value


def _legible(text: str) -> str:
    """Return the text without what no database text can hold."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def failed(
    reason: Reason, name: str, message: str, *, exit_code: int | None = None, peak_kb: int | None = None
) -> Ending:
    """Return a failed Ending in the one shape that clients know."""
    error: dict[str, str | int] = {"name": name, "message": message}
    if exit_code is not None:
        error["exit_code"] = exit_code
    if reason in LIMITS:
        error["reason"] = reason
    result = msgspec.Raw(msgspec.json.encode({"error": error}))
    return Ending(success=False, result=result, reason=reason, memory_peak_kb=peak_kb)


def vanished(code: int | None, peak_kb: int | None) -> Ending:
    """Return the Ending of a job whose process ended without an answer."""
    if code is None:
        return failed("killed", "ExecutionErr", "the sandbox ended while the job ran")
    if code <= 128:
        message = f"exit code {code}: the process ended before the function returned"
        return failed("exit_code", "ExecutionErr", message, exit_code=code, peak_kb=peak_kb)
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        name = f"signal {code - 128}"
    return failed("killed", "ExecutionErr", f"killed by {name}", exit_code=code, peak_kb=peak_kb)


def explained(ending: Ending, figures: Figures, limits: Limits) -> Ending:
    """Return the ending with what its control group knows: the whole job's peak, and which limit was the end of it."""
    ending = msgspec.structs.replace(ending, memory_peak_kb=figures.peak_kb or ending.memory_peak_kb)
    if ending.success or ending.reason not in _WHY_UNKNOWN:
        return ending
    if figures.killed_for_memory:
        return limited(ending, "memory", f"it needed more than {limits.memory_bytes >> 20} MiB of memory")
    if figures.met_process_limit:
        return limited(ending, "processes", f"it wanted more than {limits.processes} processes")
    return ending


def limited(ending: Ending, reason: Reason, why: str) -> Ending:
    """Return a failed ending whose error names the limit."""
    result = msgspec.json.decode(ending.result)
    error = result.get("error") if isinstance(result, dict) else None
    if not isinstance(error, dict):  # a job that answers in our place says what it likes
        result, error = {}, {"name": "ExecutionErr"}
    named = {**error, "reason": reason, "message": f"{why}: {error.get('message', '')}"}
    written = msgspec.json.encode({**result, "error": named})
    return msgspec.structs.replace(ending, result=msgspec.Raw(written), reason=reason)


async def no_steps(_step: bytes) -> Ending:
    """End a job that speaks of steps where none are kept."""
    return failed("refused", "WorkflowError", "No steps are kept for this job.")


def timed_out(after: timedelta) -> Ending:
    return failed("timeout", "ExecutionErr", f"Job timed out after {after.total_seconds():g}s")


def canceled() -> Ending:
    return failed("canceled", "Canceled", "Job canceled")


def too_much_output(limit: int) -> Ending:
    return failed("output", "ExecutionErr", f"the job wrote more than {limit} bytes of output and was killed")


def too_large(limit: int) -> Ending:
    return failed("result_limit", "ResultTooLarge", f"the result is larger than {limit} bytes")
