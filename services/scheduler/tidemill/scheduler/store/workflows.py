"""Workflows written as code, which decide for themselves and only have to be let go on."""

from uuid import UUID

import msgspec

from tidemill.chassis.database import Database
from tidemill.chassis.sql import load

QUERIES = load(__package__, "workflows.sql")


class Resumed(msgspec.Struct, frozen=True):
    """What has to be published, and whether the workflow has ended, with the api replica that waits for that."""

    said: str
    ended: bool
    reply_to: str | None


async def resume(database: Database, workflow_id: UUID) -> Resumed | None:
    """Let a workflow go on if nothing keeps it; return None where there is nothing to tell."""
    row = await database.fetchrow(QUERIES.resume, workflow_id)
    return None if row is None else Resumed(**row)
