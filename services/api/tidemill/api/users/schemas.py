"""People as clients see them."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import Paged

Email = Annotated[str, msgspec.Meta(min_length=3, max_length=320)]
Password = Annotated[str, msgspec.Meta(min_length=8, max_length=1024)]
"""A new one; an old one may be shorter."""
Name = Annotated[str, msgspec.Meta(max_length=200)]


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


class PersonPage(Paged, frozen=True, kw_only=True):
    """Which people to list."""


class NewPerson(msgspec.Struct, frozen=True, kw_only=True):
    """A person to be made; without a password nobody can log in as them yet."""

    email: Email
    super_admin: bool
    password: Password | None = None
    name: Name | None = None
    company: Name | None = None


class EditPerson(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of a person; what is left out stays."""

    is_super_admin: bool | None = None
    name: Name | None = None
    disabled: bool | None = None


class NewPassword(msgspec.Struct, frozen=True, kw_only=True):
    """A password to log in with from now on."""

    password: Password


class EditMember(msgspec.Struct, frozen=True, kw_only=True):
    """What changes of a member; what is left out stays, and who becomes an admin is no operator any more."""

    is_admin: bool | None = None
    operator: bool | None = None
    disabled: bool | None = None
