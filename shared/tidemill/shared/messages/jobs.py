"""What is said about jobs."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar
from uuid import UUID

from tidemill.shared.message import Message


class JobTicket(Message, frozen=True, kw_only=True):
    """There is work for this tag; the job id is only a preference."""

    TYPE: ClassVar[str] = "job.ticket.v1"
    job_id: UUID
    tag: str


class JobScheduled(Message, frozen=True, kw_only=True):
    """A job waits for its time: whoever sleeps until the next due time may have to wake earlier."""

    TYPE: ClassVar[str] = "job.scheduled.v1"
    job_id: UUID
    due_at: datetime


class FlowReady(Message, frozen=True, kw_only=True):
    """A flow may go on: it was asked for, a job of it has ended, or its time has come. Its rows say what is so."""

    TYPE: ClassVar[str] = "flow.ready.v1"
    flow_id: UUID


class JobAnswered(Message, frozen=True, kw_only=True):
    """A job that a client of this api replica waits for has finished; its row holds the result."""

    TYPE: ClassVar[str] = "job.answered.v1"
    job_id: UUID


class Progress(StrEnum):
    """What a follower of a job may want to look at."""

    STARTED = "started"
    LOGGED = "logged"
    ENDED = "ended"


class JobProgressed(Message, frozen=True, kw_only=True):
    """There is something new to see about a job; said only for those who follow it at this moment."""

    TYPE: ClassVar[str] = "job.progressed.v1"
    job_id: UUID
    what: Progress
