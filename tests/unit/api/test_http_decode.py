"""From bytes to structs: what is wrong is named, what is unknown is told apart from what is not supported."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from aiohttp import web
from multidict import MultiDict

from tidemill.api.http.decode import decode_body, decode_query, refuse_unsupported
from tidemill.api.http.errors import BadRequest, HttpError, Unprocessable, Unsupported
from tidemill.api.http.paging import Paged
from tidemill.api.http.route import Call, Policy, Refused, Route, Who, answers_text

JSON = "application/json"


class Inner(msgspec.Struct):
    size: int


class Body(msgspec.Struct):
    email: str
    count: int = 0
    inner: Inner | None = None
    args: msgspec.Raw = msgspec.Raw(b"{}")


class Query(Paged, frozen=True, kw_only=True):
    running: bool | None = None
    tags: tuple[str, ...] = ()
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    path: str | None = None


async def nothing(_: Call) -> web.StreamResponse:
    return web.Response()


def a_route(**more: Any) -> Route:
    given = {"body": Body, "query": Query} | more
    return Route(
        method="POST",
        path="/x",
        handler=nothing,
        policy=Policy("users", "read", Who.PERSON),
        summary="",
        answers={200: answers_text("")},
        **given,
    )


def body_of(text: str | bytes, *, content_type: str = JSON, strict: bool = False, **more: Any) -> Any:
    raw = text if isinstance(text, bytes) else text.encode()
    return decode_body(a_route(**more), content_type, raw, strict=strict)


def query_of(*pairs: tuple[str, str], strict: bool = False, **more: Any) -> Any:
    return decode_query(a_route(**more), MultiDict(pairs), strict=strict)


@pytest.mark.parametrize(
    ("text", "refusal", "says"),
    [
        ("", BadRequest, "A JSON body is needed."),
        ("   ", BadRequest, "A JSON body is needed."),
        ("{", BadRequest, "not valid JSON"),
        ('{"email": tru}', BadRequest, "not valid JSON"),
        (b'{"email": "\xff"}', BadRequest, "not UTF-8"),
        ('{"email": "a\\u0000b"}', BadRequest, "NUL"),
        ('{"email": "a", "args": {"x": "\\\\\\u0000"}}', BadRequest, "NUL"),
        (f'{{"email": "a", "args": {"[" * 20_000}{"]" * 20_000}}}', BadRequest, "nested too deeply"),
        (f'{{"email": "a", "other": {"[" * 20_000}{"]" * 20_000}}}', BadRequest, "nested too deeply"),
        ("{}", Unprocessable, "The field email is missing."),
        ('{"email": 1}', Unprocessable, "The field email is not allowed: expected str, got int."),
        ('{"email": "a", "inner": {"size": "x"}}', Unprocessable, "The field inner.size"),
        ('{"email": "a", "inner": {}}', Unprocessable, "The field inner.size is missing."),
        ("[]", Unprocessable, "The body is not allowed: expected object, got array."),
    ],
)
def test_a_bad_body_is_refused_with_what_is_wrong(text: str | bytes, refusal: type[HttpError], says: str) -> None:
    with pytest.raises(refusal) as refused:
        body_of(text)
    assert says in refused.value.message


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert body_of('{"email": "C:\\\\u0000"}').value.email == "C:\\u0000"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_body_that_says_it_is_no_json_is_refused(content_type: str) -> None:
    with pytest.raises(Unsupported):
        body_of('{"email": "a"}', content_type=content_type)


@pytest.mark.parametrize("content_type", ["", JSON, "application/cloudevents+json"])
def test_json_is_json_by_any_name(content_type: str) -> None:
    assert body_of('{"email": "a"}', content_type=content_type).value.email == "a"


def test_an_empty_body_is_fine_where_it_may_be_left_out() -> None:
    assert body_of("", body=Body | None).value is None


def test_what_is_kept_raw_stays_as_it_was_written() -> None:
    args = '{"big": 12345678901234567890123, "float": 1.0, "null": null}'
    assert bytes(body_of(f'{{"email": "a", "args": {args}}}').value.args).decode() == args


def test_unknown_fields_are_named() -> None:
    assert body_of('{"email": "a", "x": 1, "y": null}').ignored == ("x", "y")


@pytest.mark.parametrize("how", [{"strict": True}, {"ours": True}])
def test_unknown_fields_are_refused_on_our_own_routes_and_when_strict(how: dict[str, bool]) -> None:
    with pytest.raises(Unprocessable, match="The field x is not known"):
        body_of('{"email": "a", "x": 1}', **how)  # type: ignore[arg-type]  # one keyword each


def test_tolerated_fields_are_not_named() -> None:
    decoded = body_of('{"email": "a", "x": 1}', tolerates={"x": "harmless"}, strict=True)
    assert decoded.ignored == ()


@pytest.mark.parametrize("value", ["null", "false", "[]", '""', "0", "{}"])
def test_a_field_that_is_not_supported_may_ask_for_nothing(value: str) -> None:
    refuses = {"scopes": Refused(reason="not yet")}
    assert body_of(f'{{"email": "a", "scopes": {value}}}', refuses=refuses).ignored == ()


@pytest.mark.parametrize("value", ['["jobs:run"]', "true", "1", '{"a": 1}'])
def test_a_field_that_is_not_supported_is_never_accepted_and_ignored(value: str) -> None:
    with pytest.raises(Unprocessable, match="The field scopes is not supported: not yet"):
        body_of(f'{{"email": "a", "scopes": {value}}}', refuses={"scopes": Refused(reason="not yet")})


def test_refusing_looks_at_raw_fields() -> None:
    with pytest.raises(Unprocessable):
        refuse_unsupported({"x": Refused(reason="no")}, {"x": msgspec.Raw(b"5")})


def test_a_query_is_read_as_clients_write_it() -> None:
    query = query_of(
        ("running", "true"), ("tags", "a"), ("tags", "b"), ("page", "0"), ("since", "2026-11-23T18:00:00.5Z")
    ).value
    assert query == Query(
        running=True, tags=("a", "b"), page=0, since=datetime(2026, 11, 23, 18, 0, 0, 500_000, tzinfo=UTC)
    )
    assert query.offset == 0
    assert query_of(("page", "3"), ("per_page", "10")).value.offset == 20


@pytest.mark.parametrize("text", ["2026-11-23", "2026-11-23T00:00:00", "2026-11-23T00:00:00+00:00"])
def test_a_date_without_a_zone_is_utc(text: str) -> None:
    assert query_of(("since", text)).value.since == datetime(2026, 11, 23, tzinfo=UTC)


def test_an_empty_parameter_is_as_if_it_were_not_there() -> None:
    assert query_of(("running", ""), ("page", "")).value == Query()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page", "-1"),
        ("page", "x"),
        ("page", "99999999999999999999999"),
        ("per_page", "0"),
        ("per_page", "1000000"),
        ("running", "perhaps"),
        ("since", "yesterday"),
        ("since", "2026-13-45"),
    ],
)
def test_a_bad_parameter_is_named(name: str, value: str) -> None:
    with pytest.raises(BadRequest, match=f"The parameter {name} "):
        query_of((name, value))


def test_a_parameter_given_twice_is_ambiguous() -> None:
    with pytest.raises(BadRequest, match="page is given more than once"):
        query_of(("page", "1"), ("page", "2"))


def test_unknown_parameters_are_named_but_not_the_token() -> None:
    assert query_of(("token", "secret"), ("x", "1")).ignored == ("x",)
    with pytest.raises(BadRequest, match="The parameter x is not known"):
        query_of(("x", "1"), strict=True)


def test_a_parameter_that_is_not_supported_is_refused() -> None:
    refuses = {"draft": Refused(reason="there are none")}
    assert query_of(("draft", "false"), refuses=refuses).ignored == ()
    with pytest.raises(Unprocessable, match="draft is not supported"):
        query_of(("draft", "true"), refuses=refuses)


def test_a_query_with_a_nul_is_refused() -> None:
    with pytest.raises(BadRequest, match="NUL"):
        query_of(("path", "a\0b"))
