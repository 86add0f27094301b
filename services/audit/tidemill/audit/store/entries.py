"""The log itself."""

from uuid import UUID

import msgspec

from tidemill.chassis.database import Database
from tidemill.chassis.sql import load
from tidemill.shared.messages import AuditRecorded

QUERIES = load(__package__, "entries.sql")


async def append(database: Database, event_id: UUID, entry: AuditRecorded) -> None:
    """Write the event down, once however often it comes."""
    await database.execute(
        QUERIES.append,
        event_id,
        entry.workspace_id,
        entry.at,
        entry.username,
        entry.email,
        entry.operation,
        entry.action_kind,
        entry.resource,
        msgspec.json.encode(entry.parameters).decode(),
        entry.span,
    )
