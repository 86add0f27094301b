"""The names of things that cross a service's border, and how new job ids are made."""

import os
import time
import uuid
from datetime import UTC, datetime
from typing import NewType

JobId = NewType("JobId", uuid.UUID)
WorkspaceId = NewType("WorkspaceId", str)
ScriptHash = NewType("ScriptHash", str)
"""Sixteen lower-case hex digits."""
Tag = NewType("Tag", str)
WorkerRun = NewType("WorkerRun", uuid.UUID)
"""One start of one worker process; new at each start."""
ClaimKey = NewType("ClaimKey", uuid.UUID)
"""128 random bits chosen by the worker: the fence that a run's every write has to show."""
ReplicaId = NewType("ReplicaId", str)
"""One start of one api process: where answers for its waiting clients go."""


def new_job_id() -> JobId:
    """Return a fresh UUIDv7 (RFC 9562 §5.7): its first 48 bits are the milliseconds since 1970."""
    millis = time.time_ns() // 1_000_000
    bits = (millis << 80) | int.from_bytes(os.urandom(10), "big")
    bits = (bits & ~(0xF << 76)) | (0x7 << 76)
    bits = (bits & ~(0x3 << 62)) | (0x2 << 62)
    return JobId(uuid.UUID(int=bits))


def born_at(job_id: uuid.UUID) -> datetime:
    """Return the instant written into a UUIDv7; meaningless for other versions."""
    return datetime.fromtimestamp((job_id.int >> 80) / 1000, tz=UTC)
