"""Workers, as the queue publishes them."""

from collections.abc import Sequence

from tidemill.api.workers.schemas import WorkerPage, WorkerPing
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load("tidemill.api.workers", "queries.sql")


async def list_workers(db: Executor, page: WorkerPage) -> Sequence[WorkerPing]:
    """Return the workers that were heard of lately, the last heard first."""
    rows = await db.fetch(QUERIES.list_workers, page.ping_since, page.per_page, page.offset)
    return [
        WorkerPing(
            worker=row["name"],
            worker_instance=row["instance"],
            last_ping=row["silent_s"],
            started_at=row["started_at"],
            # Where a worker sits in the network is nobody's business; clients only want the key to be there.
            ip="",
            jobs_executed=row["jobs_executed"],
            custom_tags=row["tags"],
            worker_group=row["worker_group"],
            wm_version=row["version"],
            job_isolation=row["isolation"],
        )
        for row in rows
    ]
