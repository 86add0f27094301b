"""Tokens as clients see them."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import Paged


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token to be made."""

    label: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    expiration: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    workspace_id: str | None = None
    """Bind it to this workspace: it works nowhere else."""
    read_only: bool | None = None


class TruncatedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret."""

    token_prefix: str
    created_at: datetime
    last_used_at: datetime
    read_only: bool
    label: str | UnsetType = UNSET
    expiration: datetime | UnsetType = UNSET
    email: str | UnsetType = UNSET
    workspace_id: str | UnsetType = UNSET


class TokenPage(Paged, frozen=True, kw_only=True):
    """Which tokens to list."""
