"""Traces and metrics by OpenTelemetry, exported when the standard OTEL_* variables say where to; and logs.

    span("claim", ...)              a span of the service that runs this code, and the parent of what is called inside
    past_span("wait in line", ...)  a span of what nobody could watch while it was
    current_traceparent()           what to send along, so that the trace goes on in another process
    count / observe / gauge         one metric of the table; Prometheus text for /metrics in any case
    configure_logging(...)          records as JSON or short text, with the ids of the present span, without secrets

`telemetry(service)` belongs to the context it is entered in (a context variable), so several services in one process
keep theirs apart. Outside of any, spans still have ids: answers and logs carry them.
"""

from tidemill.chassis.telemetry.logs import configure_logging
from tidemill.chassis.telemetry.metrics import METRICS, Metric
from tidemill.chassis.telemetry.signals import (
    Telemetry,
    count,
    current,
    current_traceparent,
    gauge,
    observe,
    past_span,
    span,
    telemetry,
)

__all__ = [
    "METRICS",
    "Metric",
    "Telemetry",
    "configure_logging",
    "count",
    "current",
    "current_traceparent",
    "gauge",
    "observe",
    "past_span",
    "span",
    "telemetry",
]
