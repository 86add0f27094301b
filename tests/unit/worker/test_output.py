from __future__ import annotations

from typing import Any

import pytest

from tidemill.worker.sandbox.output import Output


class Heard:
    def __init__(self, log_bytes: int = 10_000, stream_bytes: int = 10_000) -> None:
        self.log: list[str] = []
        self.streamed: list[str] = []
        self.output = Output(log_bytes, stream_bytes, self.log.append, self.streamed.append)

    def feed(self, *parts: bytes) -> Heard:
        for part in parts:
            self.output.feed(part)
        return self


def test_text_is_passed_on_at_once_whether_or_not_its_line_has_ended() -> None:
    assert Heard().feed(b"half a li", b"ne\nnext").log == ["half a li", "ne\nnext"]


def test_a_character_split_between_reads_is_put_together() -> None:
    heard = Heard().feed("ü".encode()[:1], "ü".encode()[1:])
    assert "".join(heard.log) == "ü"


def test_bytes_that_are_no_text_and_nul_are_replaced() -> None:
    heard = Heard().feed(b"a\xffb\0c\xc3")
    heard.output.close()
    assert "".join(heard.log) == "a\ufffdb\ufffdc\ufffd"


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_marked_lines_are_streamed_and_all_others_logged_however_they_arrive(size: Any) -> None:
    data = b"one\nWM_STREAM: hel\\nlo\nWM_STREAMS: no\n WM_STREAM: no\nWM_STREAM: !\nW"
    heard = Heard().feed(*(data[i : i + size] for i in range(0, len(data), size)))
    heard.output.close()
    assert "".join(heard.streamed) == "hel\nlo!"
    assert "".join(heard.log) == "one\nWM_STREAMS: no\n WM_STREAM: no\nW"


def test_a_log_beyond_its_limit_is_cut_once_and_says_so() -> None:
    heard = Heard(log_bytes=10).feed(b"12345", b"67890x", b"more")
    assert "".join(heard.log) == "1234567890\n[the log was cut here: it is longer than 10 bytes]\n"
    assert heard.output.truncated


def test_a_stream_beyond_its_limit_is_noted() -> None:
    heard = Heard(stream_bytes=5).feed(b"WM_STREAM: 12345\n")
    assert not heard.output.stream_overflow
    assert heard.feed(b"WM_STREAM: 6\n").output.stream_overflow
    assert heard.streamed == ["12345"]
