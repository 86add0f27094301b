"""How a log record looks: one JSON object a line, or short text for a terminal; the ids of its span, and no secrets.

{"time": "...", "level": "info", "service": "scheduler", "logger": "...", "message": "job requeued", "job_id": ...}
12:01:03 scheduler  job requeued  job_id=... reason=...
"""

import logging
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import msgspec
from opentelemetry import trace

from tidemill.chassis.telemetry.signals import current_service

Format = Literal["json", "text"]

HIDDEN: Final = "***"
_SECRET_NAME: Final = re.compile(
    r"(^|[_\-.])(passwords?|passwd|tokens?|secrets?|authorization|api_?key|cookie)$", re.IGNORECASE
)
_SECRETS_IN_TEXT: Final = (  # what each is not without, which is looked for in a fraction of the time
    ("://", re.compile(r"(\b[a-z][a-z0-9+.\-]*://[^\s/:@]*):[^\s@/]+@", re.IGNORECASE), rf"\1:{HIDDEN}@"),
    ("", re.compile(r"\b(Bearer|Basic)\s+[\w\-.~+/]+=*", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        "=",
        re.compile(r"\b([\w\-]*(?:password|passwd|token|secret|api_?key))=[^\s&,;]+", re.IGNORECASE),
        rf"\1={HIDDEN}",
    ),
)

_OWN_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SHARED_PACKAGES: Final = frozenset({"chassis", "shared", "allinone"})

QUIET: Final[Mapping[str, int]] = {
    # Each attempt of an outage is an error to the driver; the broker adapter says once what matters.
    "aiormq": logging.CRITICAL,
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "urllib3": logging.WARNING,
}


def configure_logging(
    service: str,
    level: Literal["debug", "info", "warning", "error"],
    format: Format,  # noqa: A002 - the word of the setting
    stream: TextIO | None = None,
) -> None:
    """Let the whole process log this way; `service` names what no logger's name or context does."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(service) if format == "json" else ShortText(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least)
    logging.captureWarnings(True)


def redact(name: str, value: object) -> object:
    """Return a field's value with its secrets hidden: by the field's name, and URLs' passwords and tokens in texts."""
    match value:
        case None | bool() | int() | float():
            return value
        case _ if _SECRET_NAME.search(name):
            return HIDDEN
        case str():
            return redact_text(value)
        case bytes():
            return redact_text(value.decode(errors="replace"))
        case Mapping():
            return {str(key): redact(str(key), each) for key, each in value.items()}
        case Sequence() | set() | frozenset():
            return [redact(name, each) for each in value]
        case datetime():
            return value.isoformat()
        case _:
            return redact_text(str(value))


def redact_text(text: str) -> str:
    """Return a text without passwords in URLs, bearer tokens and `password=` values."""
    for sign, pattern, replacement in _SECRETS_IN_TEXT:
        if sign in text:
            text = pattern.sub(replacement, text)
    return text


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": _service_of(record, self._service),
            "logger": record.name,
            "message": redact_text(record.getMessage()),
        }
        here = trace.get_current_span().get_span_context()
        if here.is_valid:
            line["trace_id"] = f"{here.trace_id:032x}"
            line["span_id"] = f"{here.span_id:016x}"
        for name, value in _facts(record).items():
            line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = redact_text("".join(traceback.format_exception(*record.exc_info)))
        return msgspec.json.encode(line).decode()


class ShortText(logging.Formatter):
    """A line that fits into a terminal."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one short line, and a traceback below it."""
        parts = [
            datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S"),
            f"{_service_of(record, self._service):<9}",
            "" if record.levelno == logging.INFO else record.levelname,
            redact_text(record.getMessage()),
        ]
        line = " ".join(part for part in parts if part)
        if facts := _facts(record):
            line += "  " + " ".join(f"{name}={_short(value)}" for name, value in facts.items())
        if record.exc_info:
            line += "\n" + redact_text("".join(traceback.format_exception(*record.exc_info))).rstrip()
        return line


def _facts(record: logging.LogRecord) -> dict[str, object]:
    return {name: redact(name, value) for name, value in vars(record).items() if name not in _OWN_FIELDS}


def _service_of(record: logging.LogRecord, otherwise: str) -> str:
    package, _, rest = record.name.partition(".")
    part = rest.partition(".")[0]
    if package == "tidemill" and part and part not in _SHARED_PACKAGES:
        return part.replace("_", "-")
    return current_service() or otherwise


def _short(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return repr(text) if any(each.isspace() for each in text) else text
