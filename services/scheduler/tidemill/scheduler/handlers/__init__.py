"""The scheduler's inbox on one screen."""

from collections.abc import Mapping

from tidemill.chassis.inbox import Handler
from tidemill.scheduler.context import Context
from tidemill.scheduler.handlers import flow_ready, job_scheduled, worker_announced
from tidemill.shared.message import Message
from tidemill.shared.messages import FlowReady, JobScheduled, WorkerAnnounced


def flow_handlers(ctx: Context) -> Mapping[type[Message], Handler]:
    """Return who handles what moves flows."""
    return {FlowReady: lambda message, _: flow_ready.handle(message, ctx)}


def handlers(ctx: Context) -> Mapping[type[Message], Handler]:
    """Return who handles what."""
    return {
        JobScheduled: lambda message, _: job_scheduled.handle(message, ctx),
        WorkerAnnounced: lambda message, _: worker_announced.handle(message, ctx),
    }
