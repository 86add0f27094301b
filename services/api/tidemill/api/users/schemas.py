"""People as clients see them."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to log in."""

    email: Annotated[str, msgspec.Meta(min_length=1, max_length=320)]
    password: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class GlobalUserInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A person of this installation."""

    email: str
    login_type: Literal["password"] = "password"
    super_admin: bool
    verified: bool = True
    name: str | UnsetType = UNSET
    company: str | UnsetType = UNSET
    first_time_user: bool = False
    role_source: Literal["manual"] = "manual"
    disabled: bool = False


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person in one workspace."""

    email: str
    username: str
    is_admin: bool
    is_super_admin: bool
    created_at: datetime
    operator: bool
    disabled: bool = False
    name: str | UnsetType = UNSET
    groups: tuple[str, ...]
    folders: tuple[str, ...] = ()
    folders_read: tuple[str, ...] = ()
    folders_owners: tuple[str, ...] = ()
    non_member: bool | UnsetType = UNSET
    """True for a superadmin who looks in from outside."""
