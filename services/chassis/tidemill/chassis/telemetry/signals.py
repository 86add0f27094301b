"""The tracer and the meter of a service, and what its code says to them."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Counter, Histogram, Meter
from opentelemetry.metrics import _Gauge as Gauge
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import Span, SpanKind, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from prometheus_client import CollectorRegistry, generate_latest

from tidemill.chassis.telemetry.metrics import METRICS, SECONDS, Metric

FAREWELL: Final = timedelta(seconds=3)
"""How long the end of a process may wait for a collector that does not answer."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_propagator = TraceContextTextMapPropagator()


class Telemetry:
    """The tracer and the meter of one service."""

    def __init__(self, service: str, tracers: TracerProvider, meters: MeterProvider, registry: CollectorRegistry):
        self.service = service
        self.tracer: Tracer = tracers.get_tracer("tidemill")
        self.meter: Meter = meters.get_meter("tidemill")
        self._registry = registry
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}
        self._gauges: dict[Metric, Gauge] = {}
        for metric, spec in METRICS.items():
            match spec.kind:
                case "counter":
                    self._counters[metric] = self.meter.create_counter(metric, spec.unit, spec.help)
                case "histogram":
                    self._histograms[metric] = self.meter.create_histogram(
                        metric, spec.unit, spec.help, explicit_bucket_boundaries_advisory=SECONDS
                    )
                case "gauge":
                    self._gauges[metric] = self.meter.create_gauge(metric, spec.unit, spec.help)

    def count(self, metric: Metric, amount: int, labels: Mapping[str, str]) -> None:
        """Add to a counter."""
        self._counters[metric].add(amount, labels)

    def observe(self, metric: Metric, took: timedelta, labels: Mapping[str, str]) -> None:
        """Record one duration."""
        self._histograms[metric].record(took.total_seconds(), labels)

    def gauge(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Say how much there is now."""
        self._gauges[metric].set(value, labels)

    def metrics_text(self) -> bytes:
        """Return everything counted so far in Prometheus' text format."""
        return generate_latest(self._registry)


_entered: ContextVar[Telemetry | None] = ContextVar("telemetry", default=None)


@contextmanager
def telemetry(service: str, environ: Mapping[str, str] = os.environ) -> Iterator[Telemetry]:
    """Give a service its tracer and meter for the block; the SDK reads the standard OTEL_* variables itself."""
    registry = CollectorRegistry()
    with without_fork_hooks():
        resource = Resource.create({"service.name": f"tidemill-{service}"})
        tracers = _tracers(resource, exports=_exports(environ, "TRACES"))
        meters = _meters(resource, registry, exports=_exports(environ, "METRICS"))
    before = _entered.get()
    one = Telemetry(service, tracers, meters, registry)
    _entered.set(one)
    try:
        yield one
    finally:
        _entered.set(before)
        _say_farewell(tracers.shutdown, meters.shutdown)


def current() -> Telemetry:
    """Return the telemetry of the service that this code runs for."""
    return _entered.get() or _nobodys()


def current_service() -> str | None:
    """Return the service that this code runs for, or None outside of any."""
    entered = _entered.get()
    return entered.service if entered else None


def span(
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: str | None = None,
    attributes: Mapping[str, AttributeValue] | None = None,
) -> AbstractContextManager[Span]:
    """Trace the block; `parent` is the traceparent of who caused it, else the span around this one is."""
    context = None if parent is None else _propagator.extract({"traceparent": parent}, Context())
    return current().tracer.start_as_current_span(name, context, kind, attributes)


def past_span(name: str, began: datetime, parent: str, attributes: Mapping[str, AttributeValue] | None = None) -> None:
    """Trace what is over now and had nobody to watch it, such as a wait; `parent` is who caused it."""
    context = _propagator.extract({"traceparent": parent}, Context())
    ended = datetime.now(UTC)
    traced = current().tracer.start_span(
        name, context, attributes=attributes, start_time=_nanoseconds(min(began, ended))
    )
    traced.end(_nanoseconds(ended))


def current_traceparent() -> str | None:
    """Return the W3C traceparent of the present span, or None outside of any."""
    here = trace.get_current_span().get_span_context()
    if not here.is_valid:
        return None
    # Only the sampled flag: version 00 of the header asks for zeros elsewhere.
    return f"00-{here.trace_id:032x}-{here.span_id:016x}-{here.trace_flags & 1:02x}"


def count(metric: Metric, amount: int = 1, **labels: str) -> None:
    """Add to a counter of the table."""
    current().count(metric, amount, labels)


def observe(metric: Metric, took: timedelta, **labels: str) -> None:
    """Record one duration in a histogram of the table."""
    current().observe(metric, took, labels)


def gauge(metric: Metric, value: float, **labels: str) -> None:
    """Say how much there is now of a gauge of the table."""
    current().gauge(metric, value, labels)


@contextmanager
def without_fork_hooks() -> Iterator[None]:
    """Keep the SDK from doing anything in forked children for as long as the block makes its objects.

    It would start threads and search for detectors there. Ours only exec a program, which those hooks slow down, and
    where they stop for ever when a lock was held at the moment of the fork.
    """
    register = os.register_at_fork

    def register_others(**hooks: Callable[[], object]) -> None:
        # The method of a built-in type (a lock's) has no module.
        if not any(str(hook.__module__).startswith("opentelemetry") for hook in hooks.values()):
            register(**hooks)

    os.register_at_fork = register_others  # type: ignore[assignment]  # what it names one by one, this takes all
    try:
        yield
    finally:
        os.register_at_fork = register


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


@cache
def _nobodys() -> Telemetry:
    resource = Resource({})
    with without_fork_hooks():
        return Telemetry("", _tracers(resource, exports=False), MeterProvider(resource=resource), CollectorRegistry())


def _exports(environ: Mapping[str, str], signal: Literal["TRACES", "METRICS"]) -> bool:
    """Return whether somebody has said where this signal goes."""
    if environ.get(f"OTEL_{signal}_EXPORTER") == "none":
        return False
    return bool(environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def _tracers(resource: Resource, *, exports: bool) -> TracerProvider:
    if not exports:
        # Ids without recording; a caller's sampled trace stays sampled for whom we call.
        return TracerProvider(ParentBased(ALWAYS_OFF), resource, shutdown_on_exit=False)
    # Imported late: half as much again as all the rest, and a laptop does not need it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return tracers


def _meters(resource: Resource, registry: CollectorRegistry, *, exports: bool) -> MeterProvider:
    readers: list[MetricReader] = [PrometheusMetricReader(registry=registry, scope_info_enabled=False)]
    if exports:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
    return MeterProvider(readers, resource, shutdown_on_exit=False)


def _say_farewell(*shutdowns: Callable[[], Any]) -> None:
    """Send what is left, but do not wait for ever: the SDK retries a dead collector for half a minute."""
    threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in shutdowns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(FAREWELL.total_seconds())
