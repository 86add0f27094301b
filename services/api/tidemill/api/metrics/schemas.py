"""What is known of a job in numbers."""

from datetime import datetime
from typing import Annotated

import msgspec


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job says it is."""

    percent: Annotated[int, msgspec.Meta(ge=0, le=100)]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing: all that there is is answered."""


class MetricMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a number means."""

    id: str
    name: str


class ScalarMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One number."""

    metric_id: str
    value: float


class DataPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One number at one time."""

    timestamp: datetime
    value: float


class TimeseriesMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A number as it went."""

    metric_id: str
    values: list[DataPoint]


class JobMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """All numbers of a job."""

    metrics_metadata: list[MetricMetadata]
    scalar_metrics: list[ScalarMetric]
    timeseries_metrics: list[TimeseriesMetric]
