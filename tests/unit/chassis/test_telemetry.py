"""Spans always have ids, metrics always have a text, and both are exported only when somebody has said where to."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry import trace

from tests.conformance.broker_suite import standing, ticket, ticket_queue
from tests.support.collector import Traced, spans_of
from tidemill.chassis.broker import Delivery
from tidemill.chassis.memory import MemoryBroker
from tidemill.chassis.telemetry import (
    METRICS,
    Metric,
    count,
    current,
    current_traceparent,
    gauge,
    observe,
    past_span,
    span,
    telemetry,
)
from tidemill.chassis.telemetry.signals import without_fork_hooks

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = SAMPLED[:-2] + "00"


class Collector(HTTPServer):
    """Takes what OTLP/HTTP sends, and remembers the path and the bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.received: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received[self.path] = self.server.received.get(self.path, b"") + body
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@contextmanager
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT", "HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    monkeypatch.delenv("OTEL_TRACES_SAMPLER", raising=False)


def test_a_span_has_ids_although_nothing_is_exported() -> None:
    with telemetry("api"), span("request"):
        traceparent = current_traceparent()
    assert traceparent is not None
    version, trace_id, span_id, flags = traceparent.split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "00")


def test_a_span_has_ids_outside_of_any_service() -> None:
    with span("request"):
        assert current_traceparent() is not None


def test_without_a_span_there_is_no_traceparent() -> None:
    assert current_traceparent() is None


def test_a_span_inside_another_belongs_to_its_trace() -> None:
    with telemetry("api"), span("outer"):
        outer = current_traceparent()
        with span("inner"):
            inner = current_traceparent()
    assert outer is not None
    assert inner is not None
    assert outer[:35] == inner[:35]
    assert outer != inner


@pytest.mark.parametrize("parent", [SAMPLED, UNSAMPLED])
def test_a_span_goes_on_with_the_trace_of_its_parent_and_keeps_its_sampling(parent: str) -> None:
    with telemetry("api"), span("other trace"), span("consume", parent=parent):
        here = current_traceparent()
    assert here is not None
    assert here[:36] == parent[:36]
    assert here[-2:] == parent[-2:]
    assert here != parent


def test_what_is_over_is_traced_from_its_beginning_and_never_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Traced] = []
    with collector() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        with telemetry("worker"):
            past_span("long ago", datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC), SAMPLED)
            past_span("not yet", datetime.now(UTC) + timedelta(hours=1), SAMPLED)
        heard += spans_of(server.received["/v1/traces"])
    ago, yet = heard
    assert (ago.trace_id, ago.parent_id) == tuple(SAMPLED.split("-")[1:3])
    assert (ago.service, ago.name, ago.began) == ("tidemill-worker", "long ago", 1_795_395_723_456_789_000)
    assert yet.began == yet.ended > ago.began


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_broken_traceparent_begins_a_new_trace(parent: str) -> None:
    with telemetry("api"), span("consume", parent=parent):
        assert current_traceparent() is not None


async def test_services_of_one_process_keep_their_metrics_apart() -> None:
    async def work(service: str, amount: int) -> str:
        with telemetry(service) as own:
            await asyncio.sleep(0)
            count(Metric.JOBS_FINISHED, amount, outcome="success")
            assert current() is own
            return own.metrics_text().decode()

    api, worker = await asyncio.gather(work("api", 1), work("worker", 2))
    assert 'tidemill_jobs_finished_total{outcome="success"} 1.0' in api
    assert 'tidemill_jobs_finished_total{outcome="success"} 2.0' in worker
    assert 'service_name="tidemill-worker"' in worker


def test_every_metric_of_the_table_can_be_said_and_is_in_the_text_with_its_help() -> None:
    with telemetry("api") as own:
        for metric, spec in METRICS.items():
            match spec.kind:
                case "counter":
                    count(metric, tag="a")
                case "histogram":
                    observe(metric, timedelta(milliseconds=20), tag="a")
                case "gauge":
                    gauge(metric, 3, tag="a")
        text = own.metrics_text().decode()
    assert set(METRICS) == set(Metric)
    for spec in METRICS.values():
        assert spec.help in text
    assert 'tidemill_job_run_seconds_bucket{le="0.025",tag="a"} 1.0' in text


def test_the_end_of_a_service_gives_way_to_the_one_around_it() -> None:
    with telemetry("outer") as outer:
        with telemetry("inner"):
            pass
        assert current() is outer


def test_spans_and_metrics_are_exported_when_an_endpoint_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as there:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", there.url)
        with telemetry("scheduler"):
            with span("tick"):
                traceparent = current_traceparent()
            count(Metric.JOBS_FINISHED, outcome="success")
    assert traceparent is not None
    assert traceparent.endswith("-01")
    spans, metrics = there.received["/v1/traces"], there.received["/v1/metrics"]
    assert b"tick" in spans
    assert b"tidemill-scheduler" in spans
    assert bytes.fromhex(traceparent[3:35]) in spans
    assert b"tidemill.jobs.finished" in metrics


def test_only_traces_are_exported_when_only_their_endpoint_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as there:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", there.url + "/traces")
        with telemetry("scheduler"), span("tick"):
            count(Metric.JOBS_FINISHED, outcome="success")
    assert set(there.received) == {"/traces"}


def test_the_sampler_of_the_environment_decides_what_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as there:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", there.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        with telemetry("scheduler"):
            with span("dropped"):
                pass
            with span("wanted", parent=SAMPLED):
                pass
    [sent] = there.received.values()
    assert b"wanted" in sent
    assert b"dropped" not in sent


def test_nothing_is_exported_when_the_exporter_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as there:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", there.url)
        monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        with telemetry("scheduler"), span("tick"):
            count(Metric.JOBS_FINISHED, outcome="success")
    assert there.received == {}


async def test_a_handler_runs_for_the_service_that_subscribed_and_outside_the_publishers_span() -> None:
    broker, queue = MemoryBroker(), ticket_queue()
    seen: asyncio.Future[tuple[str, bool]] = asyncio.get_running_loop().create_future()

    async def handler(delivery: Delivery) -> None:
        await delivery.ack()
        seen.set_result((current().service, trace.get_current_span().get_span_context().is_valid))

    async def listen(ready: asyncio.Event, done: asyncio.Event) -> None:
        with telemetry("worker"):
            async with standing(broker, queue, handler):
                ready.set()
                await done.wait()

    ready, done = asyncio.Event(), asyncio.Event()
    listening = asyncio.create_task(listen(ready, done))
    await ready.wait()
    with telemetry("api"), span("request"):
        await broker.publish([ticket(queue)])
        assert await seen == ("worker", False)
    done.set()
    await listening


FORKING = """
import subprocess, sys
from tidemill.chassis.telemetry import span, telemetry
with span("before any service"):
    pass
with telemetry("worker"), span("work"):
    subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: None, check=True)
"""


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:9"])
def test_a_child_is_forked_without_the_help_of_the_sdk(endpoint: str) -> None:
    # A new interpreter: whether a hook of the SDK hangs depends on what was imported first.
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} if endpoint else {}
    subprocess.run([sys.executable, "-c", FORKING], env=environ, timeout=30, check=True)


def test_the_sdk_registers_nothing_for_forks_and_others_may(monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Callable[[], object]] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: registered.extend(hooks.values()))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with telemetry("worker", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9"}):
        assert registered == []
    with without_fork_hooks():
        os.register_at_fork(after_in_child=clean_environment)
    assert registered == [clean_environment]
