"""The audit service's inbox on one screen."""

from collections.abc import Mapping

from tidemill.audit.handlers import audit_recorded
from tidemill.audit.pen import Pen
from tidemill.chassis.inbox import Handler
from tidemill.shared.message import Message
from tidemill.shared.messages import AuditRecorded


def handlers(pen: Pen) -> Mapping[type[Message], Handler]:
    """Return who handles what."""
    return {AuditRecorded: lambda message, envelope: audit_recorded.handle(message, envelope, pen)}
