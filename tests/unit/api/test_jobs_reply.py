"""How a result becomes the answer to one who waited for it."""

import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.api.http.errors import Unprocessable
from tidemill.api.jobs.reply import REFUSED_HEADERS, reply


def replied(**result: Any) -> web.Response:
    return reply(json.dumps(result))


@pytest.mark.parametrize(
    "written", ["null", "7", '"windmill_status_code"', '["windmill_headers"]', '{"a": {"windmill_status_code": 404}}']
)
def test_an_ordinary_result_is_answered_as_it_was_written(written: str) -> None:
    answer = reply(written)
    assert (answer.status, answer.content_type, answer.body) == (200, "application/json", written.encode())


def test_a_result_chooses_its_status_and_its_body() -> None:
    answer = replied(windmill_status_code=418, result={"a": 1}, other=2)
    assert (answer.status, answer.content_type, answer.body) == (418, "application/json", b'{"a": 1}')


def test_a_status_alone_has_no_body() -> None:
    assert (replied(windmill_status_code=204).status, replied(windmill_status_code=204).body) == (204, b"")
    assert replied(windmill_status_code=202).body == b""
    assert replied(windmill_status_code=304, result="x").body == b""


def test_text_of_a_type_is_answered_without_quotes() -> None:
    answer = replied(windmill_content_type="text/html; charset=utf-8", result="<b>grüße</b>")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.body == "<b>grüße</b>".encode()


def test_a_page_that_a_script_made_can_do_nothing_in_our_name() -> None:
    answer = replied(windmill_content_type="text/html", result="<script>alert(1)</script>")
    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")


def test_bytes_come_as_base64() -> None:
    assert replied(windmill_content_type="image/png", result="AAEC").body == b"\0\1\2"
    with pytest.raises(Unprocessable, match="base64"):
        replied(windmill_content_type="image/png", result="not base64!")


def test_headers_go_out_and_may_name_the_type() -> None:
    answer = replied(windmill_headers={"X-Mine": "1", "Location": "/x", "content-type": "text/csv"}, result="a,b")
    assert (answer.headers["X-Mine"], answer.headers["Location"], answer.body) == ("1", "/x", b"a,b")
    assert answer.headers.getall("Content-Type") == ["text/csv"]


@pytest.mark.parametrize("name", [*sorted(REFUSED_HEADERS), "Set-Cookie", "Tidemill-Trace-Id"])
def test_a_script_sets_no_header_that_is_not_its_business(name: str) -> None:
    with pytest.raises(Unprocessable, match="may not set"):
        replied(windmill_headers={name: "x"})


@pytest.mark.parametrize(
    "result",
    [
        {"windmill_headers": {"X-A": "1\r\nSet-Cookie: a=b"}},
        {"windmill_headers": {"X-A\r\nSet-Cookie": "1"}},
        {"windmill_headers": {"X-A": "1\n"}},
        {"windmill_headers": {"X-A": "\0"}},
        {"windmill_headers": {"X-A": 1}},
        {"windmill_headers": {"X-A": "1", "x-a": "2"}},
        {"windmill_headers": {"": "1"}},
        {"windmill_headers": ["X-A"]},
        {"windmill_headers": {f"X-{n}": "1" for n in range(51)}},
        {"windmill_content_type": "text/html\r\nX-A: 1"},
        {"windmill_content_type": "text/html\n"},
        {"windmill_content_type": 7},
        {"windmill_status_code": 100},
        {"windmill_status_code": 600},
        {"windmill_status_code": True},
        {"windmill_status_code": "200"},
    ],
)
def test_what_can_not_be_answered_is_refused(result: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable):
        replied(**result)


def test_attack_a_result_of_any_depth_is_only_a_result() -> None:
    deep = '{"windmill_status_code": 404, "a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert reply(deep).status == 200


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3))
def test_no_header_ever_breaks_its_line(headers: dict[str, str]) -> None:
    try:
        answer = replied(windmill_headers=headers)
    except Unprocessable:
        return
    assert not any("\r" in each or "\n" in each for pair in answer.headers.items() for each in pair)
