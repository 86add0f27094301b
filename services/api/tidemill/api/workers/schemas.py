"""Workers as clients see them."""

from datetime import datetime
from typing import Annotated

import msgspec

from tidemill.api.http.paging import Paged


class WorkerPage(Paged, frozen=True, kw_only=True):
    """Which workers to list."""

    ping_since: Annotated[int, msgspec.Meta(ge=0, le=10_000_000)] = 300
    """Those who gave a sign of life within so many seconds."""


class WorkerPing(msgspec.Struct, frozen=True, kw_only=True):
    """A worker and its last sign of life."""

    worker: str
    worker_instance: str
    last_ping: int
    """Seconds ago."""
    started_at: datetime
    ip: str
    jobs_executed: int
    custom_tags: list[str]
    worker_group: str
    wm_version: str
    job_isolation: str
