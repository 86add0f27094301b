"""Log records name their service and span, carry their facts, and hold no secrets."""

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.chassis.telemetry import configure_logging, current_traceparent, span, telemetry
from tidemill.chassis.telemetry.logs import HIDDEN, QUIET, Format, redact, redact_text


class Written(io.StringIO):
    """What the process has logged."""

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    @property
    def last(self) -> Any:
        return json.loads(self.lines[-1])


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, each in levels.items():
        logging.getLogger(name).setLevel(each)
    logging.captureWarnings(False)


def connect() -> None:
    raise LookupError("no connection to postgresql://u:hunter2@db/x")


def configured(format: Format = "json") -> Written:  # noqa: A002 - the word of the setting
    written = Written()
    configure_logging("all-in-one", "info", format, written)
    return written


def test_a_json_line_holds_the_record_and_its_facts() -> None:
    written = configured()
    logging.getLogger("tidemill.scheduler.clockwork").info("job requeued", extra={"job_id": "1", "lost": 2})
    line = written.last
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "level": "info",
        "service": "scheduler",
        "logger": "tidemill.scheduler.clockwork",
        "message": "job requeued",
        "job_id": "1",
        "lost": 2,
    }


def test_a_line_carries_the_ids_of_the_present_span() -> None:
    written = configured()
    with span("work"):
        traceparent = current_traceparent()
        logging.getLogger("tidemill.api").warning("slow")
    assert f"00-{written.last['trace_id']}-{written.last['span_id']}-00" == traceparent


@pytest.mark.parametrize(
    ("logger", "service"),
    [
        ("tidemill.worker.run", "worker"),
        ("tidemill.git_sync.plan", "git-sync"),
        ("tidemill.chassis.loops", "all-in-one"),
        ("aiohttp.server", "all-in-one"),
        ("tidemill", "all-in-one"),
    ],
)
def test_the_logger_names_the_service(logger: str, service: str) -> None:
    written = configured()
    logging.getLogger(logger).error("x")
    assert written.last["service"] == service


def test_the_frame_logs_for_the_service_that_it_carries() -> None:
    written = configured()
    with telemetry("audit"):
        logging.getLogger("tidemill.chassis.loops").error("loop turn failed")
    assert written.last["service"] == "audit"


def test_text_is_short() -> None:
    written = configured("text")
    extra = {"job_id": "0197", "reason": "lost lease", "counts": {"a": 1}}
    logging.getLogger("tidemill.scheduler").info("job requeued", extra=extra)
    logging.getLogger("tidemill.api").warning("slow")
    assert [line[8:] for line in written.lines] == [
        " scheduler job requeued  job_id=0197 reason='lost lease' counts={\"a\":1}",
        " api       WARNING slow",
    ]
    assert re.match(r"\d\d:\d\d:\d\d ", written.lines[0])


@pytest.mark.parametrize("format", ["json", "text"])
def test_an_exception_comes_with_its_traceback(format: Format) -> None:  # noqa: A002
    written = configured(format)
    try:
        connect()
    except LookupError:
        logging.getLogger("tidemill.api").exception("failed")
    assert "Traceback" in written.getvalue()
    assert "LookupError" in written.getvalue()
    assert "hunter2" not in written.getvalue()


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_secret_is_written(format: Format) -> None:  # noqa: A002
    written = configured(format)
    logging.getLogger("tidemill.api").error(
        "connecting to %s with password=%s",
        "amqp://tidemill:hunter2@mq:5672/",
        "hunter2",
        extra={
            "password": "hunter2",
            "api_token": "hunter2",
            "client_secret": "hunter2",
            "Authorization": "Bearer hunter2",
            "headers": {"authorization": "Basic hunter2", "cookie": "token=hunter2", "accept": "visible"},
            "url": "https://me:hunter2@example.com/x?token=hunter2&page=2",
            "tokens": ["hunter2"],
            "error": ConnectionError("postgresql://u:hunter2@db/x"),
            "raw": b"password=hunter2",
        },
    )
    assert "hunter2" not in written.getvalue()
    assert "visible" in written.getvalue()
    assert "example.com" in written.getvalue()


@pytest.mark.parametrize("name", ["job_id", "tokens_left", "secretary", "token_count", "passwordless", "key"])
def test_harmless_fields_stay(name: str) -> None:
    assert redact(name, "value") == "value"


@given(st.text(alphabet=st.characters(blacklist_characters="/@:", blacklist_categories=["Z", "C"]), min_size=1))
def test_any_password_in_a_url_is_hidden(password: str) -> None:
    assert redact_text(f"see amqps://user:{password}@host/vhost") == f"see amqps://user:{HIDDEN}@host/vhost"


def test_a_text_without_secrets_is_left_as_it_is() -> None:
    text = "GET https://example.com:8000/a@b took 5 ms at 12:01:03"
    assert redact_text(text) == text


def test_the_driver_that_is_spoken_for_is_quiet() -> None:
    written = configured()
    logging.getLogger("aiormq.connection").error("error when creating transport")
    assert written.lines == []


def test_less_than_the_level_is_not_written() -> None:
    written = configured()
    logging.getLogger("tidemill.api").debug("detail")
    assert written.lines == []
