"""The states of flows in the queue."""

from uuid import UUID

from asyncpg.exceptions import InvalidTextRepresentationError

from tidemill.api.http.errors import BadRequest
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "queries.sql")

MOST = 100
LONGEST = 256 * 1024
"""Bytes of all values of one flow: they are told with each look at it."""


async def keep(db: Executor, workspace: str, flow_id: UUID, key: str, value: str, also: str) -> tuple[str, str | None]:
    """Keep a value; return `kept`, `no_flow`, `ended` or `too_much`, and what was said."""
    try:
        row = await db.fetchrow(QUERIES.keep, workspace, flow_id, key, value, MOST, LONGEST, also)
    except InvalidTextRepresentationError as error:
        raise BadRequest("The value is not valid JSON.") from error
    assert row is not None
    return row["answer"], row["said"]


async def kept(db: Executor, flow_id: UUID, key: str) -> str | None:
    """Return the value of a key as JSON text, or None when there is none."""
    value: str | None = await db.fetchval(QUERIES.kept, flow_id, key)
    return value


async def is_flow(db: Executor, workspace: str, job_id: UUID) -> bool:
    """Return whether a job is a flow."""
    found: bool = await db.fetchval(QUERIES.is_flow, workspace, job_id)
    return found
