"""Flows as they travel: what clients send, what they get; an optional field without a value is left out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import Paged

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Value = Annotated[msgspec.Raw, msgspec.Meta(description="OpenFlow")]


class EditFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A new version of a flow; the fields that are refused or of no use stand in `rules.py`."""

    value: Value
    path: str | None = None
    summary: str = ""
    description: str | None = None
    schema: msgspec.Raw = msgspec.Raw(b"null")
    deployment_message: str | None = None
    tag: str | None = None
    labels: list[str] | None = None
    timeout: Count | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    visible_to_runner_only: bool | None = None


class NewFlow(EditFlow, frozen=True, kw_only=True):
    """A flow to deploy."""

    path: str


class Archiving(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a flow is to be archived, or to be there again."""

    archived: bool | None = None


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a version is said to be about."""

    deployment_msg: str


class ListQuery(Paged, frozen=True, kw_only=True):
    """Which flows to list."""

    path_start: str | None = None
    path_exact: str | None = None
    created_by: str | None = None
    label: str | None = None
    show_archived: bool = False
    order_desc: bool = True
    without_description: bool = False


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow as one version of it says."""

    workspace_id: str
    path: str
    summary: str
    description: str
    value: Value
    edited_by: str
    edited_at: datetime
    archived: bool
    version_id: int
    schema: msgspec.Raw | UnsetType = UNSET
    lock_error_logs: str | UnsetType = UNSET
    tag: str | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET
    timeout: int | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    visible_to_runner_only: bool | UnsetType = UNSET
    deployment_msg: str | UnsetType = UNSET
    ws_error_handler_muted: bool = False
    dedicated_worker: bool = False
    extra_perms: dict[str, bool] = {}
    starred: bool = False
    is_draft: bool = False


class FlowVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the history of a flow."""

    id: int
    created_at: datetime
    created_by: str
    deployment_msg: str | UnsetType = UNSET


class DeploymentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The job that looks, or has looked, for the locks of the newest version, and why it has not found them."""

    lock_error_logs: str | UnsetType = UNSET
    job_id: UUID | UnsetType = UNSET
