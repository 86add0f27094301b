"""How a webhook's request becomes arguments."""

import base64
import json
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, MultiDict

from tidemill.api.http.errors import BadRequest, Unsupported
from tidemill.api.jobs import args


def from_json(text: str, **how: bool) -> str:
    return args.from_body("application/json", None, text.encode(), **how)


def test_an_object_is_kept_as_it_was_written() -> None:
    written = '{"z": 1.50, "a":  [1e3, "\\u00e9", {"": null}],\n "a": 12345678901234567890}'
    assert from_json(f"  {written}\n") == written


@pytest.mark.parametrize("text", ["[1, 2]", "7", '"text"', "null", "true"])
def test_what_is_no_object_arrives_as_body(text: str) -> None:
    assert from_json(text) == f'{{"body":{text}}}'


def test_wrap_body_wraps_objects_too() -> None:
    assert from_json('{"a": 1}', wrap=True) == '{"body":{"a": 1}}'


def test_raw_adds_the_text_as_it_came() -> None:
    assert msgspec.json.decode(from_json('{"a": 1}', raw=True)) == {"a": 1, "raw_string": '{"a": 1}'}


@pytest.mark.parametrize("body", [b"", b"  \n"])
@pytest.mark.parametrize("content_type", ["application/json", "", "text/plain", "image/png"])
def test_nothing_means_no_arguments(body: bytes, content_type: str) -> None:
    assert args.from_body(content_type, None, body) == "{}"


@pytest.mark.parametrize(
    "text", ["{", "{'a': 1}", '{"a": NaN}', '{"a": 1} x', "{a: 1}", '{"a": "\x01"}', "[" * 100_000]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        from_json(text)


def test_bytes_that_are_no_utf_8_are_refused() -> None:
    with pytest.raises(BadRequest, match="utf-8"):
        args.from_body("application/json", None, b'{"a": "\xff"}')


def test_a_request_without_a_content_type_is_taken_for_json() -> None:
    assert args.from_body("", None, b'{"a": 1}') == '{"a": 1}'


def test_a_form_gives_its_fields() -> None:
    body = b"name=J%C3%BCrgen+K&empty=&n=1"
    assert msgspec.json.decode(args.from_body("application/x-www-form-urlencoded", None, body)) == {
        "name": "Jürgen K",
        "empty": "",
        "n": "1",
    }


def test_text_arrives_as_raw_string_in_its_charset() -> None:
    body = "grüße".encode("latin-1")
    assert msgspec.json.decode(args.from_body("text/plain", "latin-1", body)) == {"raw_string": "grüße"}


def test_xml_arrives_as_raw_string() -> None:
    assert msgspec.json.decode(args.from_body("application/soap+xml", None, b"<a/>")) == {"raw_string": "<a/>"}


@pytest.mark.parametrize("content_type", ["image/png", "multipart/mixed", "application/cloudevents-batch+json"])
def test_other_types_are_refused_by_name(content_type: str) -> None:
    with pytest.raises(Unsupported, match=content_type.replace("+", r"\+")):
        args.from_body(content_type, None, b"x")


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_payload_is_base64_of_any_sort(encode: Callable[[bytes], bytes], pad: bool) -> None:
    written = '{"a": "??>>~~é"}'
    payload = encode(written.encode()).decode()
    assert args.from_payload(payload if pad else payload.rstrip("=")) == written


@pytest.mark.parametrize("payload", ["%%%", "a", "bm8"])
def test_a_payload_that_holds_no_json_is_refused(payload: str) -> None:
    with pytest.raises(BadRequest):
        args.from_payload(payload)


def test_no_payload_means_no_arguments() -> None:
    assert args.from_payload(None) == "{}"


def test_chosen_headers_and_parameters_win_over_the_body() -> None:
    headers = CIMultiDict({"X-Event-Id": "7", "Authorization": "secret"})
    query = MultiDict({"q": "1", "other": "2"})
    more = {**args.from_headers("x-event-id, absent", headers), **args.from_query("q", query)}
    assert args.with_more('{"x_event_id": 0, "n": 1.50}', more) == '{"x_event_id":"7","n":1.50,"q":"1"}'


@pytest.mark.parametrize("name", ["Authorization", "a, COOKIE", "token"])
def test_credentials_do_not_become_arguments(name: str) -> None:
    with pytest.raises(BadRequest, match="include_header"):
        args.from_headers(name, CIMultiDict())
    with pytest.raises(BadRequest, match="include_query"):
        args.from_query(name, MultiDict())


@pytest.mark.parametrize("charset", ["undefined", "no-such", "base64", "utf-16-be"])
def test_text_in_a_charset_that_does_not_fit_is_refused(charset: str) -> None:
    with pytest.raises(BadRequest, match=charset):
        args.from_body("text/plain", charset, b"abc")


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists)))
def test_whatever_is_sent_comes_out(value: dict[str, object]) -> None:
    try:
        written = msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, OverflowError):
        return
    assert from_json(written) == written


EVENT = '"specversion": "1.0", "id": "7", "source": "/here", "type": "made"'


def from_event(text: str, **how: bool) -> object:
    return msgspec.json.decode(args.from_body("application/cloudevents+json", None, text.encode(), **how))


def test_an_event_is_its_data_and_its_attributes() -> None:
    about = {"specversion": "1.0", "id": "7", "source": "/here", "type": "made"}
    assert from_event(f'{{{EVENT}, "x": "y", "data": {{"a": 1}}}}') == {
        "a": 1,
        "WEBHOOK__METADATA__": {**about, "x": "y"},
    }
    assert from_event(f'{{{EVENT}, "data": [1]}}') == {"body": [1], "WEBHOOK__METADATA__": about}
    assert from_event(f"{{{EVENT}}}") == {"WEBHOOK__METADATA__": about}
    assert from_event(f'{{{EVENT}, "data": {{"a": 1}}}}', wrap=True) == {
        "body": {"a": 1},
        "WEBHOOK__METADATA__": about,
    }


def test_the_data_of_an_event_can_not_pass_for_its_attributes() -> None:
    said = from_event(f'{{{EVENT}, "data": {{"WEBHOOK__METADATA__": {{"source": "/forged"}}}}}}')
    assert said["WEBHOOK__METADATA__"]["source"] == "/here"  # type: ignore[index]


@pytest.mark.parametrize("text", ["[]", "7", '{"id": "7"}', f"{{{EVENT.replace(chr(34) + '7' + chr(34), '7')}}}", "{"])
def test_what_is_no_event_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        from_event(text)


def test_an_event_with_bytes_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="data_base64"):
        from_event(f'{{{EVENT}, "data_base64": "AA=="}}')


@pytest.mark.parametrize(
    ("content_type", "body", "how", "wanted"),
    [
        ("application/json", b'{"a": 1}', {}, ({"a": 1}, None)),
        ("application/json", b'{"body": 1}', {}, ({"body": 1}, None)),
        ("application/json", b"[1, 2]", {}, ([1, 2], None)),
        ("application/json", b'{"a": 1}', {"wrap": True}, ({"a": 1}, None)),
        ("application/json", b'{"a": 1}', {"raw": True}, ({"a": 1}, '{"a": 1}')),
        ("application/json", b'{"raw_string": "x"}', {}, ({"raw_string": "x"}, None)),
        ("text/plain", b"hello", {}, ("hello", "hello")),
        ("application/x-www-form-urlencoded", b"body=1&x=2", {}, ({"body": "1", "x": "2"}, None)),
        ("application/x-www-form-urlencoded", b"body=1", {}, ({"body": "1"}, None)),
        ("", b"", {}, ({}, None)),
    ],
)
def test_an_event_holds_the_body_as_it_came(
    content_type: str, body: bytes, how: dict[str, bool], wanted: tuple[object, str | None]
) -> None:
    headers = CIMultiDict({"X-Event": "push", "Authorization": "Bearer x"})
    query = MultiDict({"a": "b", "token": "secret"})
    is_bare = not how.get("wrap") and body[:1] == b"{"
    sent = args.from_body(content_type, None, body, content_type, **how)
    made = args.as_event(sent, headers, query, content_type=content_type, is_bare=is_bare, raw=how.get("raw", False))
    event = json.loads(made)["event"]
    assert (event["kind"], event["body"], event["raw_string"]) == ("webhook", *wanted)
    assert (event["query"], event["headers"]) == ({"a": "b"}, {"x-event": "push"})
