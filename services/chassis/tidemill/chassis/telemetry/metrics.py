"""Every metric, in one table."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal

import msgspec

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metric(StrEnum):
    """Every metric that a service may report."""

    HTTP_REQUEST = "http.server.request.duration"
    FIELDS_IGNORED = "tidemill.http.fields_ignored"
    JOBS_FINISHED = "tidemill.jobs.finished"
    JOB_WAIT = "tidemill.job.wait"
    JOB_RUN = "tidemill.job.run"
    JOBS_WAITING = "tidemill.jobs.waiting"
    OLDEST_WAITING = "tidemill.jobs.oldest_waiting"
    SLOTS_BUSY = "tidemill.worker.slots_busy"
    WARM_CHILDREN = "tidemill.worker.warm_children"
    MESSAGE_HANDLED = "tidemill.message.handled"
    MESSAGES_BURIED = "tidemill.messages.buried"
    LOOP_TURN = "tidemill.loop.turn"


class MetricSpec(msgspec.Struct, frozen=True):
    """What a metric means and how it is counted."""

    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    help: str


METRICS: Mapping[Metric, MetricSpec] = {
    Metric.HTTP_REQUEST: MetricSpec("histogram", "s", "HTTP requests by method, route and status"),
    Metric.FIELDS_IGNORED: MetricSpec("counter", "{field}", "fields of requests that nobody here knows, by route"),
    Metric.JOBS_FINISHED: MetricSpec("counter", "{job}", "jobs finished by reason and language"),
    Metric.JOB_WAIT: MetricSpec("histogram", "s", "time from a job's due time to its claim"),
    Metric.JOB_RUN: MetricSpec("histogram", "s", "time from a job's claim to its outcome"),
    Metric.JOBS_WAITING: MetricSpec("gauge", "{job}", "queued jobs by tag"),
    Metric.OLDEST_WAITING: MetricSpec("gauge", "s", "age of the oldest queued job by tag"),
    Metric.SLOTS_BUSY: MetricSpec("gauge", "{slot}", "slots of a worker that run a job"),
    Metric.WARM_CHILDREN: MetricSpec("gauge", "{process}", "processes that wait for the next job of a warm script"),
    Metric.MESSAGE_HANDLED: MetricSpec("histogram", "s", "message handlers by queue and whether they raised"),
    Metric.MESSAGES_BURIED: MetricSpec("counter", "{message}", "messages sent to the dead letters by queue"),
    Metric.LOOP_TURN: MetricSpec("histogram", "s", "turns of a loop by name and whether they raised"),
}
