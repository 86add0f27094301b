"""What the audit service can be told."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from tidemill.chassis.settings import doc


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long entries are kept, and by what they are proven."""

    audit_retention: Annotated[timedelta, doc("entries of the audit log are kept for this long, in whole days")] = (
        timedelta(days=365)
    )
    audit_anchor: Annotated[timedelta, doc("how often the ends of the audit log's chains are signed")] = timedelta(
        minutes=5
    )
    audit_key_file: Annotated[
        Path | None,
        doc(
            "file of the key that signs the audit log, made when missing and the same for all replicas; "
            "default HOME/secrets/audit-key"
        ),
    ] = None
