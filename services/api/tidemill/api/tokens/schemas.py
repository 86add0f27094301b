"""Tokens as clients see them."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import Paged

ScopeTexts = Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]], msgspec.Meta(max_length=50)]


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token to be made."""

    label: Annotated[str, msgspec.Meta(max_length=500)] | None = None
    expiration: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    workspace_id: str | None = None
    """Bind it to this workspace: it works nowhere else."""
    read_only: bool | None = None
    scopes: ScopeTexts | None = None
    """Limit it to these; none at all means everything that its person may."""


class NewLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is called from now on."""

    label: Annotated[str, msgspec.Meta(max_length=500)] | None = None


class NewScopes(msgspec.Struct, frozen=True, kw_only=True):
    """What a token may do from now on."""

    scopes: ScopeTexts | None = None


class TruncatedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token without its secret."""

    token_prefix: str
    created_at: datetime
    last_used_at: datetime
    read_only: bool
    label: str | UnsetType = UNSET
    scopes: list[str] | UnsetType = UNSET
    expiration: datetime | UnsetType = UNSET
    email: str | UnsetType = UNSET
    workspace_id: str | UnsetType = UNSET


class TokenPage(Paged, frozen=True, kw_only=True):
    """Which tokens to list."""
