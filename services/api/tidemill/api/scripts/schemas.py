"""Scripts as they travel: what clients send, what they get; an optional field without a value is left out."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import Paged

Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class NewScript(msgspec.Struct, frozen=True, kw_only=True):
    """A version to deploy; the fields that are refused or of no use stand in `rules.py`."""

    path: str
    content: str
    language: str
    summary: str = ""
    description: str | None = None
    kind: str | None = None
    schema: msgspec.Raw = msgspec.Raw(b"null")
    lock: str | None = None
    parent_hash: str | None = None
    auto_parent: bool | None = None
    deployment_message: str | None = None
    tag: str | None = None
    envs: list[str] | None = None
    labels: list[str] | None = None
    timeout: Count | None = None
    priority: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    concurrent_limit: Count | None = None
    concurrency_key: str | None = None
    is_template: bool | None = None
    visible_to_runner_only: bool | None = None
    auto_kind: str | None = None
    dedicated_worker: bool | None = None
    cache_ttl: Count | None = None
    delete_after_secs: Count | None = None
    delete_after_use: bool | None = None
    """What older clients send for a `delete_after_secs` of zero."""


class CreateQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How to deploy."""

    skip_if_noop: bool = False


class ListQuery(Paged, frozen=True, kw_only=True):
    """Which scripts to list."""

    path_start: str | None = None
    path_exact: str | None = None
    created_by: str | None = None
    kinds: str | None = None
    languages: str | None = None
    label: str | None = None
    parent_hash: str | None = None
    is_template: bool | None = None
    dedicated_worker: bool | None = None
    show_archived: bool = False
    order_desc: bool = True
    without_description: bool = False


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a script."""

    workspace_id: str
    hash: str
    path: str
    summary: str
    description: str
    content: str
    created_by: str
    created_at: datetime
    archived: bool
    deleted: bool
    is_template: bool
    language: str
    kind: str
    parent_hashes: list[str] | UnsetType = UNSET
    schema: msgspec.Raw | UnsetType = UNSET
    lock: str | UnsetType = UNSET
    lock_error_logs: str | UnsetType = UNSET
    tag: str | UnsetType = UNSET
    envs: list[str] | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET
    timeout: int | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    concurrent_limit: int | UnsetType = UNSET
    concurrency_key: str | UnsetType = UNSET
    visible_to_runner_only: bool | UnsetType = UNSET
    auto_kind: str | UnsetType = UNSET
    dedicated_worker: bool | UnsetType = UNSET
    cache_ttl: int | UnsetType = UNSET
    delete_after_secs: int | UnsetType = UNSET
    deployment_msg: str | UnsetType = UNSET
    ws_error_handler_muted: bool = False
    extra_perms: dict[str, bool] = {}
    starred: bool = False
    has_preprocessor: bool = False
    is_draft: bool = False


class DeploymentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a version waits for before it serves: its lock, or why that was not found, and the job that looks for it.

    `serving_hash` is the version that runs at the path meanwhile, archived or not; it is left out where none does.
    """

    lock: str | UnsetType = UNSET
    lock_error_logs: str | UnsetType = UNSET
    job_id: UUID | UnsetType = UNSET
    serving_hash: str | UnsetType = UNSET


class ScriptHistory(msgspec.Struct, frozen=True, kw_only=True):
    """One version in the history of a path."""

    script_hash: str
    created_at: datetime
    created_by: str
    deployment_msg: str | UnsetType = UNSET
