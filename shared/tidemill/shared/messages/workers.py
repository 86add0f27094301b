"""What workers say about themselves."""

from typing import ClassVar
from uuid import UUID

from tidemill.shared.message import Message


class WorkerAnnounced(Message, frozen=True, kw_only=True):
    """A worker now listens to these tags: rows that waited for one of them deserve a new ticket."""

    TYPE: ClassVar[str] = "worker.announced.v1"
    worker_run: UUID
    name: str
    tags: list[str]
