"""The numbers of jobs in the queue."""

from uuid import UUID

import msgspec

from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "queries.sql")


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job; its progress only as long as it has not ended, its memory only after that."""

    progress: int | None
    memory_peak_kb: int | None


async def tell(db: Executor, workspace: str, job_id: UUID, percent: int, also: str) -> tuple[str, str | None]:
    """Note how far a job is; return `kept`, `ended` or `unknown`, and what was said."""
    row = await db.fetchrow(QUERIES.tell, workspace, job_id, percent, also)
    assert row is not None
    return row["answer"], row["said"]


async def numbers(db: Executor, workspace: str, job_id: UUID) -> Numbers | None:
    """Return the numbers of a job, or None when it is gone."""
    row = await db.fetchrow(QUERIES.numbers, workspace, job_id)
    return None if row is None else Numbers(**row)
