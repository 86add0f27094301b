"""What the audit service can be told: nothing of its own yet, the frame's settings suffice."""

import msgspec


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """No setting."""
