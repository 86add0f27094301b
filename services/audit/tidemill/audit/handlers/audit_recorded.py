"""Somebody changed or ran something."""

import logging
from uuid import UUID

from tidemill.audit.store import entries
from tidemill.chassis.database import Database
from tidemill.shared.message import Envelope
from tidemill.shared.messages import AuditRecorded

log = logging.getLogger(__name__)


async def handle(message: AuditRecorded, envelope: Envelope, database: Database) -> None:
    """Append it to the log; the message is acknowledged only after the row has committed."""
    await entries.append(database, UUID(envelope.id), message)
    # What and where, but not who and with what: that stands in the entry, for those who may read it.
    log.info("written down", extra={"operation": message.operation, "workspace_id": message.workspace_id})
