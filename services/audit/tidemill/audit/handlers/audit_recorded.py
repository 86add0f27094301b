"""Somebody changed or ran something."""

from uuid import UUID

from tidemill.audit.store import entries
from tidemill.chassis.database import Database
from tidemill.shared.message import Envelope
from tidemill.shared.messages import AuditRecorded


async def handle(message: AuditRecorded, envelope: Envelope, database: Database) -> None:
    """Append it to the log; the message is acknowledged only after the row has committed."""
    await entries.append(database, UUID(envelope.id), message)
