"""What is written down for ever about who did what."""

from datetime import datetime
from typing import Any, ClassVar, Literal

import msgspec

from tidemill.shared.message import Message

ActionKind = Literal["Created", "Updated", "Delete", "Execute"]


class AuditRecorded(Message, frozen=True, kw_only=True):
    """Somebody changed or ran something; said in the same transaction as the change."""

    TYPE: ClassVar[str] = "audit.recorded.v1"
    workspace_id: str
    """Empty for what belongs to the whole installation."""
    at: datetime
    username: str
    email: str
    operation: str
    """One name of the closed list that clients know, such as `scripts.create`."""
    action_kind: ActionKind
    resource: str
    """Path, id or email of what was touched."""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    span: str | None = None
    """Job id or trace id that leads to more."""
