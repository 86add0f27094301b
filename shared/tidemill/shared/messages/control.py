"""What is asked of running workers."""

from typing import ClassVar
from uuid import UUID

from tidemill.shared.message import Message


class CancelJob(Message, frozen=True, kw_only=True):
    """Stop this job's run now; a worker that misses it learns the same from its next beat."""

    TYPE: ClassVar[str] = "job.cancel.v1"
    job_id: UUID
    worker_run: UUID
