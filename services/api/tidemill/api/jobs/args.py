"""From a webhook's request to a job's arguments: always the text of one JSON object, kept as it was sent. Pure.

    JSON object ──────── as it is                 form ─────── its fields, as strings; a file is refused
    other JSON ───────── {"body": ...}            text, XML ── {"raw_string": "..."}
    nothing ──────────── {}                       CloudEvent ─ its data, and its attributes as WEBHOOK__METADATA__
                                                  all else ─── 415

`wrap_body` puts whatever came under `body`, `raw` adds what came as `raw_string`; chosen headers and query parameters
come last and win over keys of the body.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

import msgspec
from multidict import MultiMapping

from tidemill.api.http.errors import BadRequest, Unsupported
from tidemill.api.jobs import multipart

NONE = "{}"
_MOST_FIELDS = 10_000
EVENT_ATTRIBUTES = "WEBHOOK__METADATA__"
_EVENT_NEEDS = ("specversion", "id", "source", "type")
_CREDENTIALS = frozenset(("authorization", "proxy-authorization", "cookie", "token"))
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def from_body(
    content_type: str,
    charset: str | None,
    body: bytes,
    declared: str = "",
    /,
    *,
    wrap: bool = False,
    raw: bool = False,
) -> str:
    """Return the arguments that a body means; raises BadRequest or Unsupported.

    `content_type` is empty when the request names none: the body is then taken for JSON; `declared` is all of it.
    """
    if not body.strip():
        args = NONE
    elif _is_json(content_type):
        args = from_json(body, wrap=wrap)
    elif content_type == "application/cloudevents+json":
        args = _from_event(_text(body, "utf-8"), wrap=wrap)
    elif content_type == "application/x-www-form-urlencoded":
        args = _wrapped(_encode(_form(body)), wrap)
    elif content_type == "multipart/form-data":
        args = _wrapped(_encode(multipart.fields(declared, body)), wrap)
    elif content_type.startswith("text/") or content_type == "application/xml" or content_type.endswith("+xml"):
        args = _wrapped(_encode({"raw_string": _text(body, charset)}), wrap)
    else:
        raise Unsupported(f"A body of {content_type} can't become arguments: send JSON, text or a form.")
    return with_more(args, {"raw_string": _text(body, charset)}) if raw else args


def from_json(body: bytes, *, wrap: bool = False) -> str:
    """Return the arguments that a JSON text means, as it was written; raises BadRequest when it is none."""
    text = _text(body, "utf-8").strip()
    try:
        is_object = isinstance(msgspec.json.decode(text), dict)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}.") from None
    if wrap or not is_object:
        return f'{{"body":{text}}}'
    return text


def from_payload(payload: str | None) -> str:
    """Return the arguments in a GET request's `payload`: JSON in base64, url-safe or not, padded or not."""
    if not payload:
        return NONE
    letters = payload.strip().replace("+", "-").replace("/", "_").replace(" ", "-").rstrip("=")
    try:
        body = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("The parameter payload is not base64.") from None
    return from_json(body)


def with_more(args: str, more: Mapping[str, str]) -> str:
    """Return the arguments with some texts set on top; the rest stays as it was written."""
    return with_values(args, {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in more.items()})


def with_values(args: str, more: Mapping[str, msgspec.Raw]) -> str:
    """Return the arguments with some values set on top; the rest stays as it was written."""
    return _encode({**_object.decode(args), **more}) if more else args


def as_event(
    args: str,
    headers: MultiMapping[str],
    query: MultiMapping[str],
    *,
    content_type: str = "",
    is_bare: bool = True,
    raw: bool = False,
) -> str:
    """Return the one argument `event` that a preprocessor gets: a webhook's body and what came with it.

    `args` is what the body means; one that `is_bare` is not wrapped in it. What carries credentials is left out.
    """
    fields = _object.decode(args)
    is_json = _is_json(content_type)
    is_text = not is_json and list(fields) == ["raw_string"]
    raw_string = fields.pop("raw_string", None) if raw or is_text else None
    body: object = fields
    if is_text:
        body = raw_string
    elif list(fields) == ["body"] and is_json and not is_bare:
        body = fields["body"]
    event = {
        "kind": "webhook",
        "trigger_path": None,
        "body": body,
        "raw_string": raw_string,
        "query": {name: value for name, value in query.items() if name.lower() not in _CREDENTIALS},
        "headers": {name.lower(): value for name, value in headers.items() if name.lower() not in _CREDENTIALS},
    }
    return _encode({"event": event})


def from_headers(names: str | None, headers: MultiMapping[str]) -> Mapping[str, str]:
    """Return the headers that a comma list names, as arguments: `X-Event-Id` becomes `x_event_id`.

    Raises BadRequest for those that carry credentials, because arguments are kept and shown.
    """
    _refuse_credentials(names, "include_header")
    return {name.lower().replace("-", "_"): headers[name] for name in _split(names) if name in headers}


def from_query(names: str | None, query: MultiMapping[str]) -> Mapping[str, str]:
    """Return the query parameters that a comma list names, as arguments; raises BadRequest for the token."""
    _refuse_credentials(names, "include_query")
    return {name: query[name] for name in _split(names) if name in query}


def _refuse_credentials(names: str | None, parameter: str) -> None:
    for name in _split(names):
        if name.lower() in _CREDENTIALS:
            raise BadRequest(f"The parameter {parameter} may not name {name}: arguments are kept and shown.")


def _split(names: str | None) -> Iterable[str]:
    return [name for name in re.split(r"[,\s]+", names or "") if name]


def _from_event(text: str, *, wrap: bool) -> str:
    """Return the arguments in one CloudEvent, its data as it was written."""
    from_json(text.encode())
    try:
        event = _object.decode(text)
    except msgspec.DecodeError:
        raise BadRequest("The body is not one CloudEvent but something else; send events one at a time.") from None
    for name in _EVENT_NEEDS:
        value = msgspec.json.decode(event.get(name, b"null"))
        if not isinstance(value, str) or not value:
            raise BadRequest(f"The body is no CloudEvent: {name} must be a text.")
    if "data_base64" in event:
        raise Unsupported("A CloudEvent can't become arguments when its data is bytes: send data, not data_base64.")
    data = event.pop("data", None)
    args = NONE if data is None else from_json(bytes(data), wrap=wrap)
    return _encode({**_object.decode(args), EVENT_ATTRIBUTES: event})


def _is_json(content_type: str) -> bool:
    return content_type in ("", "application/json") or (
        content_type.endswith("+json") and "cloudevents" not in content_type
    )


def _form(body: bytes) -> Mapping[str, str]:
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=False,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise BadRequest(f"The body is not a form of UTF-8 text with at most {_MOST_FIELDS} fields.") from None
    return dict(fields)


def _wrapped(args: str, wrap: bool) -> str:
    return f'{{"body":{args}}}' if wrap else args


def _text(body: bytes, charset: str | None) -> str:
    try:
        return body.decode(charset or "utf-8")
    except (UnicodeError, LookupError):
        raise BadRequest(f"The body is not text in {charset or 'utf-8'}.") from None


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()
