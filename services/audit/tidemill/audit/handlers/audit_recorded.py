"""Somebody changed or ran something."""

import logging
from uuid import UUID

from tidemill.audit.pen import Pen
from tidemill.audit.store.entries import Event
from tidemill.shared.message import Envelope
from tidemill.shared.messages import AuditRecorded

log = logging.getLogger(__name__)


async def handle(message: AuditRecorded, envelope: Envelope, pen: Pen) -> None:
    """Append it to the log; the message is acknowledged only after the row has committed."""
    await pen.write(Event(UUID(envelope.id), message))
    # What and where, but not who and with what: that stands in the entry, for those who may read it.
    log.info("written down", extra={"operation": message.operation, "workspace_id": message.workspace_id})
