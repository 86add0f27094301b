"""The description of this API, OpenAPI 3.1, made from the route table and the structs: nothing is written twice."""

import re
from collections.abc import Iterable, Sequence
from functools import cache, cached_property
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import yaml
from aiohttp import web

from tidemill.api.http.answer import json
from tidemill.api.http.route import NEEDS_NO_LOGIN, Answer, Route

_REF = "#/components/schemas/{name}"
_REST = re.compile(r"\{([a-z_]+)\.\.\.\}")
_WORDS = re.compile(r"[^A-Za-z0-9]+")
_EVENTS = "text/event-stream"
_SENTENCE = {"text/plain": {"schema": {"type": "string"}}}

_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key within 24 hours is the same job; another one with it is a 422",
    "schema": {"type": "string", "pattern": r"^[\x20-\x7e]{1,255}$"},
}
_REPLAYED = {
    "Idempotency-Replayed": {
        "description": "There when an earlier request of the same key has led to this job",
        "schema": {"type": "string", "const": "true"},
    }
}

_REFUSALS: dict[int, str] = {
    400: "The request can't be understood; the sentence names the parameter or field",
    401: "No valid token",
    403: "Not allowed",
    404: "There is none that you may see",
    413: "The body is too large",
    415: "The body's type or encoding is not supported",
    422: "A field has a value that is not allowed; the sentence names it",
    503: "The database can't be reached at this moment",
}


class Document:
    """The description of one set of routes."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(sorted(routes, key=lambda each: (each.path, each.method)))

    @cached_property
    def tree(self) -> dict[str, Any]:
        """The document as plain values."""
        return describe(self._routes)

    @cached_property
    def as_yaml(self) -> bytes:
        """The document as YAML."""
        text: str = yaml.dump(self.tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        return text.encode()

    def as_json(self) -> web.Response:
        """Return the document as a JSON answer."""
        return json(self.tree)


DOCUMENT = web.AppKey("document", Document)


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    kinds = [kind for route in routes for kind in _kinds(route)]
    schemas, components = msgspec.json.schema_components([_presentable(kind) for kind in kinds], ref_template=_REF)
    by_kind = list(zip(kinds, schemas, strict=True))

    def schema_of(kind: Any) -> dict[str, Any]:
        return next(schema for known, schema in by_kind if known is kind or known == kind)

    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(_REST.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidemill",
            "version": "0.1.0",
            "summary": "Scripts become jobs, webhooks, flows, schedules and triggers",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/api"}],
        "security": [{"bearer": []}, {"cookie": []}, {"query": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "token"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
            "responses": {
                str(status): {"description": says, "content": _SENTENCE} for status, says in _REFUSALS.items()
            },
            "schemas": dict(sorted(components.items())),
        },
    }


def _kinds(route: Route) -> Iterable[Any]:
    if route.query is not None:
        yield from _parameter_kinds(route.query)
    if route.body is not None:
        yield route.body
    for answer in route.answers.values():
        yield answer.kind


@cache
def _presentable(kind: Any) -> Any:
    """Return a type whose schema msgspec can write: it can't write a default that is raw JSON."""
    if get_origin(kind) in (UnionType, Union):
        return Union[tuple(_presentable(each) for each in get_args(kind))]  # noqa: UP007 - its parts are only known now
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return kind
    fields = msgspec.structs.fields(kind)
    if not any(isinstance(field.default, msgspec.Raw) for field in fields):
        return kind
    return msgspec.defstruct(
        kind.__name__,
        [(field.name, field.type, _presentable_default(field)) for field in fields],
        namespace={"__doc__": kind.__doc__},
        kw_only=True,
    )


def _presentable_default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return msgspec.field(default_factory=field.default_factory, name=field.encode_name)
    if isinstance(field.default, msgspec.Raw):
        return msgspec.field(default=msgspec.UNSET, name=field.encode_name)
    return msgspec.field(default=field.default, name=field.encode_name)


def _parameter_kinds(query: type[msgspec.Struct]) -> Iterable[Any]:
    for field in msgspec.structs.fields(query):
        yield field.type


def _operation(route: Route, schema_of: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _WORDS.sub("_", f"{route.method.lower()}{route.path}").strip("_"),
        "tags": [route.policy.domain],
        "summary": route.summary,
        "x-who": route.policy.who.value,
        "x-action": route.policy.action,
    }
    if route.audited is not None:
        operation["x-audited"] = route.audited
    if route.policy.who in NEEDS_NO_LOGIN:
        operation["security"] = []
    parameters = [_path_parameter(route, name) for name in route.parameters]
    if route.query is not None:
        parameters += [_query_parameter(field, schema_of) for field in msgspec.structs.fields(route.query)]
    if route.keyed:
        parameters.append(_KEY)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None or route.raw_body is not None:
        operation["requestBody"] = _body(route, schema_of)
    operation["responses"] = _responses(route, schema_of)
    for name, table in (("x-tolerates", route.tolerates), ("x-refuses", _reasons(route))):
        if table:
            operation[name] = dict(sorted(table.items()))
    return operation


def _reasons(route: Route) -> dict[str, str]:
    return {name: refused.reason for name, refused in route.refuses.items()}


def _path_parameter(route: Route, name: str) -> dict[str, Any]:
    parameter = {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if f"{{{name}...}}" in route.path:
        parameter["description"] = "may hold slashes"
    return parameter


def _query_parameter(field: msgspec.structs.FieldInfo, schema_of: Any) -> dict[str, Any]:
    schema = _without_null(schema_of(field.type))
    if field.default not in (msgspec.NODEFAULT, None):
        schema = {**schema, "default": msgspec.to_builtins(field.default)}
    return {"name": field.encode_name, "in": "query", "required": field.required, "schema": schema}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter that may be left out: it can't be null."""
    rest = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    return rest[0] if len(rest) == 1 else schema


def _body(route: Route, schema_of: Any) -> dict[str, Any]:
    media = route.raw_body or "application/json"
    schema = schema_of(route.body) if route.body is not None else {}
    optional = route.body is None or any(each.get("type") == "null" for each in schema.get("anyOf", ()))
    return {"required": not optional, "content": {media: {"schema": schema}}}


def _responses(route: Route, schema_of: Any) -> dict[str, Any]:
    responses: dict[str, Any] = {str(status): _answer(answer, schema_of) for status, answer in route.answers.items()}
    if route.keyed:
        for name, response in responses.items():
            if name.startswith("2"):
                response["headers"] = _REPLAYED
    for status in _REFUSALS:
        if _may_answer(route, status):
            responses.setdefault(str(status), {"$ref": f"#/components/responses/{status}"})
    return dict(sorted(responses.items()))


def _may_answer(route: Route, status: int) -> bool:
    has_body = route.body is not None or route.raw_body is not None
    match status:
        case 401 | 403:
            return route.policy.who not in NEEDS_NO_LOGIN
        case 404:
            return bool(route.parameters)
        case 413 | 415:
            return has_body
        case 422:
            return has_body or bool(route.refuses)
        case _:
            return True


def _answer(answer: Answer, schema_of: Any) -> dict[str, Any]:
    schema = schema_of(answer.kind)
    if answer.media == _EVENTS:
        schema = _event(schema)
    return {"description": answer.says, "content": {answer.media: {"schema": schema}}}


def _event(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one event of a stream, whose data is JSON of this schema."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {"type": "object", "properties": {"data": data}, "required": ["data"]}


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: the same schema in two places is written twice."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the library's signature
        return True
