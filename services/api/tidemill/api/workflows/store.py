"""The steps of jobs in the queue, each call with the job's own token: it counts for as long as the job's claim does."""

from datetime import datetime
from uuid import UUID

import msgspec
from asyncpg import InvalidTextRepresentationError

from tidemill.api.http.errors import BadRequest, Conflict
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "queries.sql")


async def keep_step(
    db: Executor,
    token: str,
    job_id: UUID,
    key: str,
    result: msgspec.Raw,
    started_at: datetime | None,
    duration_ms: int | None,
) -> str:
    """Keep what a step has come to and return what is kept of it; raises BadRequest or Conflict."""
    try:
        row = await db.fetchrow(QUERIES.keep_step, token, job_id, key, bytes(result).decode(), started_at, duration_ms)
    except InvalidTextRepresentationError as error:
        raise BadRequest("The result is not valid JSON.") from error
    assert row is not None
    if row["answer"] == "over":
        raise _over(job_id)
    if row["answer"] == "taken":
        raise Conflict(f"The key {key!r} is that of another kind of step.")
    kept: str = row["result"]
    return kept


async def call_task(
    db: Executor, token: str, job_id: UUID, child: UUID, entrypoint: str, args: msgspec.Raw, tag: str | None, also: str
) -> str:
    """Ask for a job of a function of a job's own script; return what was said. Raises BadRequest or Conflict."""
    try:
        row = await db.fetchrow(QUERIES.call_task, token, job_id, child, entrypoint, bytes(args).decode(), tag, also)
    except InvalidTextRepresentationError as error:
        raise BadRequest("The arguments are not valid JSON.") from error
    assert row is not None
    if row["answer"] == "over":
        raise _over(job_id)
    said: str = row["said"]
    return said


def _over(job_id: UUID) -> Conflict:
    return Conflict(f"The job {job_id} has ended, is being canceled, or goes on elsewhere.")
