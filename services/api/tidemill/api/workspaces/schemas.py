"""Workspaces as clients see them."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import Paged
from tidemill.api.users.schemas import Email

Role = Literal["admin", "developer", "operator"]


class WorkspaceExists(msgspec.Struct, frozen=True, kw_only=True):
    """Which workspace is asked for."""

    id: str


class CreateWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace to be made."""

    id: str
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    username: str | None = None
    """What its maker is called in it; left out, their email suggests it."""
    color: Annotated[str, msgspec.Meta(max_length=50)] | None = None


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """A workspace from outside."""

    id: str
    name: str
    owner: str
    color: str | UnsetType = UNSET
    deleted: bool | UnsetType = UNSET


class WorkspacePage(Paged, frozen=True, kw_only=True):
    """Which workspaces to list."""


class NewMember(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who is to belong to a workspace."""

    email: Email
    is_admin: bool
    operator: bool
    username: str | None = None
    """Left out, the email suggests it."""


class NewInvite(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may join a workspace, and as what."""

    email: Email
    is_admin: bool
    operator: bool


class NoInvite(msgspec.Struct, frozen=True, kw_only=True):
    """Whose invitation is taken back."""

    email: Email


class WorkspaceInvite(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation that waits for its answer."""

    workspace_id: str
    email: str
    is_admin: bool
    operator: bool
    role: Role


class AcceptInvite(msgspec.Struct, frozen=True, kw_only=True):
    """Which workspace the viewer joins, and under what name."""

    workspace_id: str
    username: str | None = None


class DeclineInvite(msgspec.Struct, frozen=True, kw_only=True):
    """Which workspace the viewer does not join."""

    workspace_id: str


class Visibility(msgspec.Struct, frozen=True, kw_only=True):
    """Which pages a console shows to a member."""

    runs: bool = True
    schedules: bool = True
    resources: bool = True
    variables: bool = True
    assets: bool = True
    triggers: bool = True
    audit_logs: bool = True
    groups: bool = True
    folders: bool = True
    workers: bool = True


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a member may author."""

    code: bool
    flows: Literal["none", "full"]
    apps: Literal["none", "full"]
    manage_schedules: bool
    manage_triggers: bool
    visibility: Visibility = Visibility()


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """One workspace of a person."""

    id: str
    name: str
    username: str
    color: str
    is_dev_workspace: bool = False
    disabled: bool
    role: Role
    capabilities: Capabilities


class UserWorkspaceList(msgspec.Struct, frozen=True, kw_only=True):
    """All workspaces of a person."""

    email: str
    workspaces: list[Membership]
