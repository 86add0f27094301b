"""What a multipart body means as arguments, and what it may not pretend to be."""

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.api.http.errors import BadRequest, Unsupported
from tidemill.api.jobs import args

DECLARED = 'multipart/form-data; boundary="b-1"'


def form(*parts: tuple[str, str], end: str = "--b-1--\r\n") -> bytes:
    return ("".join(f"--b-1\r\n{head}\r\n\r\n{content}\r\n" for head, content in parts) + end).encode()


def field(name: str, value: str, more: str = "") -> tuple[str, str]:
    return f'Content-Disposition: form-data; name="{name}"{more}', value


def read(body: bytes, declared: str = DECLARED, **how: bool) -> object:
    media = declared.partition(";")[0].lower()
    return msgspec.json.decode(args.from_body(media, None, body, declared, **how))


def test_text_parts_become_arguments() -> None:
    body = form(field("a", "1"), field("b", "zwei\r\nZeilen é\r\n"), field("a", "2"))
    assert read(body) == {"a": "2", "b": "zwei\r\nZeilen é\r\n"}
    assert read(body, wrap=True) == {"body": {"a": "2", "b": "zwei\r\nZeilen é\r\n"}}
    assert read(form(("Content-Disposition: form-data; name=a\r\nContent-Type: text/plain; charset=utf-8", "x"))) == {
        "a": "x"
    }
    assert read(form(field(r"a \"b\" c", ""))) == {'a "b" c': ""}
    assert read(form()) == {}


@pytest.mark.parametrize(
    "part",
    [
        field("doc", "x", '; filename="a.txt"'),
        field("doc", "x", "; filename=a.txt"),
        field("doc", "x", '; FileName=""'),
        field("doc", "x", "; filename*=UTF-8''a.txt"),
        field("doc", "x", "\r\nContent-Type: application/octet-stream"),
        field("doc", "x", "\r\ncontent-type: image/png"),
    ],
)
def test_a_file_is_refused_by_name_because_nothing_could_keep_it(part: tuple[str, str]) -> None:
    with pytest.raises(BadRequest, match="The part doc is a file, and this workspace has no storage"):
        read(form(field("a", "1"), part))


@pytest.mark.parametrize(
    "body",
    [
        form(field("a", "1"), end=""),
        form(field("a", "1"), end="--b-1"),
        form(field("a", "1"), end="--b-1--\r\nmore"),
        b"before\r\n" + form(field("a", "1")),
        form(field("a", "1")).replace(b"\r\n", b"\n"),
        form(("", "1")),
        form(("Content-Disposition: form-data", "1")),
        form(("Content-Disposition: form-data; name=", "1")),
        form(('Content-Disposition: attachment; name="a"', "1")),
        form(('Content-Disposition: form-data; name="a"; name="b"', "1")),
        form(('Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"', "1")),
        form(('Content-Disposition: form-data; name="a"\r\n folded', "1")),
        form(field("a", "1", "\r\nContent-Transfer-Encoding: base64")),
        form(field("a", "1", "\r\nX: " + "x" * 3000)),
        form(*[field("a", "1")] * 1001),
        form(field("a", "1")).replace(b"1\r\n--b-1--", b"\xff\r\n--b-1--"),
        form(field("a", "1")).replace(b"--b-1\r\n", b"--b-1x\r\n"),
        b'{"a": 1}',
    ],
)
def test_attack_what_is_no_form_from_beginning_to_end_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body)


@pytest.mark.parametrize(
    "declared",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=b-1; boundary=b-2",
        f"multipart/form-data; boundary={'b' * 71}",
        "multipart/form-data; boundary=é",
        "multipart/form-data; x-boundary=b-1",
    ],
)
def test_attack_a_form_without_one_boundary_is_refused(declared: str) -> None:
    with pytest.raises(BadRequest):
        read(form(field("a", "1")), declared)


@pytest.mark.parametrize("media", ["multipart/mixed", "multipart/related", "multipart/x"])
def test_attack_no_other_multipart_is_taken_for_a_form(media: str) -> None:
    with pytest.raises(Unsupported):
        read(form(field("a", "1")), f"{media}; boundary=b-1")


def test_attack_a_form_that_is_declared_as_something_else_is_not_taken_for_one() -> None:
    body = form(field("a", "1", '; filename="x"'))
    with pytest.raises(BadRequest):
        read(body, "application/json")
    assert read(body, "text/plain") == {"raw_string": body.decode()}


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(content: bytes) -> None:
    for body in (content, form(field("a", "1")).replace(b"1", content, 1)):
        with contextlib.suppress(BadRequest):
            assert isinstance(read(body), dict)
