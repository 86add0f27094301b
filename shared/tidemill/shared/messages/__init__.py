"""Every message, one module a subject."""

from tidemill.shared.messages.audit import AuditRecorded
from tidemill.shared.messages.control import CancelJob
from tidemill.shared.messages.jobs import FlowReady, JobAnswered, JobProgressed, JobScheduled, JobTicket
from tidemill.shared.messages.workers import WorkerAnnounced

__all__ = [
    "AuditRecorded",
    "CancelJob",
    "FlowReady",
    "JobAnswered",
    "JobProgressed",
    "JobScheduled",
    "JobTicket",
    "WorkerAnnounced",
]
