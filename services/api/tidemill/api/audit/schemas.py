"""Entries of the audit log as clients see them."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import Paged

Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class AuditLog(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what."""

    workspace_id: str
    id: int
    timestamp: datetime
    username: str
    operation: str
    action_kind: Literal["Created", "Updated", "Delete", "Execute"]
    resource: str | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    span: str | UnsetType = UNSET


class AuditFilter(Paged, frozen=True, kw_only=True):
    """Which entries to list."""

    before: Instant | None = None
    after: Instant | None = None
    username: str | None = None
    operation: str | None = None
    operations: str | None = None
    """Names with commas between them."""
    exclude_operations: str | None = None
    resource: str | None = None
    action_kind: Literal["Create", "Update", "Delete", "Execute"] | None = None
    before_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    """Entries older than this one: the quick way to page through many."""
    all_workspaces: bool = False
