"""Settings: environment variables with the prefix `TIDEMILL_`, declared as structs, read and refused in one place.

A field is a setting: `log_level` is `TIDEMILL_LOG_LEVEL`, its annotation says what is allowed, its default is the
struct's, its description and whether it is a secret stand in its `Meta`. A service adds a struct of its own.
"""

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from tidemill.chassis.errors import StartRefused
from tidemill.shared.catalog import Service

PREFIX = "TIDEMILL_"
SECRET: dict[str, Any] = {"secret": True}
Struct = TypeVar("Struct", bound=msgspec.Struct)

_SPAN = re.compile(r"(?P<amount>\d+(\.\d+)?)(?P<unit>ms|s|m|h|d)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def doc(description: str, *, secret: bool = False, **limits: Any) -> msgspec.Meta:
    """Return a setting's description, with its limits as `msgspec.Meta` knows them (`ge`, `le`, `pattern`)."""
    return msgspec.Meta(description=description, extra=SECRET if secret else None, **limits)


class ChassisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service needs to know."""

    home: Annotated[Path, doc("data folder: embedded Postgres, private RabbitMQ, secrets")] = Path(".tidemill")
    database_url: Annotated[
        str | None, doc("Postgres 15 to 18, as postgresql://user:password@host/name", secret=True)
    ] = None
    migrator_database_url: Annotated[
        str | None,
        doc("the URL that `tidemill migrate` uses: a role with CREATEROLE that owns the database", secret=True),
    ] = None
    api_database_url: Annotated[str | None, doc("the api's own login; default DATABASE_URL", secret=True)] = None
    scheduler_database_url: Annotated[
        str | None, doc("the scheduler's own login; default DATABASE_URL", secret=True)
    ] = None
    worker_database_url: Annotated[str | None, doc("the worker's own login; default DATABASE_URL", secret=True)] = None
    audit_database_url: Annotated[
        str | None, doc("the audit service's own login; default DATABASE_URL", secret=True)
    ] = None
    database_connections: Annotated[int, doc("connections a service keeps at the most", ge=2, le=500)] = 10
    amqp_url: Annotated[str | None, doc("RabbitMQ 3.10 to 4.x, as amqp://user:password@host/vhost", secret=True)] = None
    api_amqp_url: Annotated[str | None, doc("the api's own login; default AMQP_URL", secret=True)] = None
    scheduler_amqp_url: Annotated[str | None, doc("the scheduler's own login; default AMQP_URL", secret=True)] = None
    worker_amqp_url: Annotated[str | None, doc("the worker's own login; default AMQP_URL", secret=True)] = None
    audit_amqp_url: Annotated[str | None, doc("the audit service's own login; default AMQP_URL", secret=True)] = None
    queue_type: Annotated[
        Literal["classic", "quorum"], doc("type of the durable queues: classic on a single node, quorum in a cluster")
    ] = "classic"
    lease: Annotated[timedelta, doc("a worker silent for this long has lost its jobs")] = timedelta(seconds=4)
    beat: Annotated[timedelta, doc("how often a worker renews what it holds; less than half the lease")] = timedelta(
        seconds=1.3
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], doc("least level of what is logged")] = "info"
    log_format: Annotated[Literal["json", "text"], doc("one JSON object a line, or text for a terminal")] = "json"
    health_bind: Annotated[str, doc("address of /livez, /readyz and /metrics")] = "127.0.0.1"
    health_port: Annotated[int, doc("port of /livez, /readyz and /metrics; 0 for none", ge=0, le=65535)] = 0

    def __post_init__(self) -> None:
        if self.beat * 2 >= self.lease:
            raise StartRefused(
                f"{PREFIX}BEAT={spell(self.beat)} must be less than half of {PREFIX}LEASE={spell(self.lease)}"
            )

    def database_url_of(self, service: Service) -> str:
        """Return the URL by which a service logs in; raises StartRefused when none is set."""
        own: str | None = getattr(self, f"{service.value}_database_url")
        url = own or self.database_url
        if url is None:
            raise StartRefused(f"set {PREFIX}{service.value.upper()}_DATABASE_URL or {PREFIX}DATABASE_URL")
        return url

    def amqp_url_of(self, service: Service) -> str:
        """Return the URL by which a service logs in to RabbitMQ; raises StartRefused when none is set."""
        own: str | None = getattr(self, f"{service.value}_amqp_url")
        url = own or self.amqp_url
        if url is None:
            raise StartRefused(
                f"set {PREFIX}{service.value.upper()}_AMQP_URL or {PREFIX}AMQP_URL: "
                "a service that runs as a process of its own needs RabbitMQ"
            )
        return url


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One setting as `tidemill settings` shows it."""

    name: str
    value: str
    is_default: bool
    allowed: str
    description: str


def read(kind: type[Struct], environ: Mapping[str, str]) -> Struct:
    """Return the settings; raises StartRefused naming the first variable that is not allowed, its value and what is."""
    values: dict[str, Any] = {}
    for field, annotation in _annotations(kind).items():
        text = environ.get(variable(field))
        if text is not None and text != "":
            values[field] = _parse(variable(field), text, annotation)
    return kind(**values)


def refuse_unknown(kinds: Sequence[type[msgspec.Struct]], environ: Mapping[str, str]) -> None:
    """Raise StartRefused for a `TIDEMILL_` variable that no struct declares: a misspelt setting must not do nothing."""
    known = {variable(field) for kind in kinds for field in _annotations(kind)}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise StartRefused(f"{name} is not a setting" + (f"; did you mean {close[0]}?" if close else ""))


def describe(settings: msgspec.Struct) -> list[Line]:
    """Return one line a setting, secrets hidden."""
    default = {field.name: field.default for field in msgspec.structs.fields(settings)}
    lines = []
    for field, annotation in _annotations(type(settings)).items():
        value = getattr(settings, field)
        meta = _meta(annotation)
        hidden = bool(meta.extra) and value is not None
        lines.append(
            Line(
                name=variable(field),
                value="(set)" if hidden else spell(value),
                is_default=value == default[field],
                allowed=_allowed(annotation),
                description=meta.description or "",
            )
        )
    return lines


def variable(field: str) -> str:
    """Return the name of the environment variable that holds a field."""
    return PREFIX + field.upper()


def spell(value: Any) -> str:
    """Return a value the way a user would write it."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case timedelta():
            for unit in ("d", "h", "m", "s"):
                if value >= _UNITS[unit]:
                    return f"{value / _UNITS[unit]:g}{unit}"
            return f"{value / _UNITS['ms']:g}ms"
        case tuple():
            return ",".join(value)
        case _:
            return str(value)


def _annotations(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _meta(annotation: Any) -> msgspec.Meta:
    return next(each for each in get_args(annotation) if isinstance(each, msgspec.Meta))


def _base(annotation: Any) -> Any:
    """Return the bare type of an annotation, without its Meta and without `| None`."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if get_origin(bare) in (types.UnionType, Union):
        bare = next(each for each in get_args(bare) if each is not type(None))
    return bare


def _allowed(annotation: Any) -> str:
    base, meta = _base(annotation), _meta(annotation)
    if get_origin(base) is Literal:
        return " or ".join(get_args(base))
    if base is int:
        if meta.ge is not None and meta.le is not None:
            return f"a whole number from {meta.ge} to {meta.le}"
        return f"a whole number from {meta.ge}" if meta.ge is not None else "a whole number"
    if base is bool:
        return "true or false"
    if base is timedelta:
        return "a span such as 500ms, 4s, 10m, 12h or 30d"
    if get_origin(base) is tuple:
        return "words with commas between them"
    return "a path" if base is Path else "a text"


def _parse(name: str, text: str, annotation: Any) -> Any:
    base, meta = _base(annotation), _meta(annotation)
    refused = StartRefused(f"{name}={'(hidden)' if meta.extra else text!r} is not allowed: {_allowed(annotation)}")
    if base is timedelta:
        match = _SPAN.fullmatch(text)
        if match is None:
            raise refused
        return float(match["amount"]) * _UNITS[match["unit"]]
    if base is bool:
        if text.lower() not in _TRUTHS:
            raise refused
        return _TRUTHS[text.lower()]
    if base is Path:
        return Path(text).expanduser()
    value: Any = tuple(part.strip() for part in text.split(",") if part.strip()) if get_origin(base) is tuple else text
    try:
        return msgspec.convert(value, annotation, strict=False)
    except msgspec.ValidationError:
        raise refused from None
