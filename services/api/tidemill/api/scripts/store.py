"""Scripts in the database."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import UNSET

from tidemill.api.http.paging import Paged
from tidemill.api.http.route import Viewer
from tidemill.api.scripts import rules
from tidemill.api.scripts.rules import Version
from tidemill.api.scripts.schemas import DeploymentStatus, ListQuery, NewScript, Script, ScriptHistory
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "queries.sql")

_OF_A_VERSION = (
    "path",
    "summary",
    "description",
    "content",
    "language",
    "kind",
    "schema",
    "lock",
    "tag",
    "envs",
    "labels",
    "concurrent_limit",
    "concurrency_key",
    "priority",
    "timeout_s",
    "is_template",
    "visible_to_runner_only",
    "auto_kind",
    "dedicated_worker",
    "cache_ttl_s",
    "erase_after_s",
)
"""The columns that make two versions differ."""


def values_of(new: NewScript) -> Mapping[str, Any]:
    """Return what a new version will be, by column; what was sent as nothing, zero or empty is stored as nothing."""
    return {
        "path": new.path,
        "summary": new.summary,
        "description": new.description or "",
        "content": new.content,
        "language": new.language,
        "kind": new.kind or "script",
        "schema": None if rules.lacks_schema(new) else bytes(new.schema).decode(),
        "lock": new.lock,
        "tag": new.tag or None,
        "envs": new.envs or [],
        "labels": new.labels or [],
        "concurrent_limit": new.concurrent_limit or None,
        "concurrency_key": new.concurrency_key or None,
        "priority": new.priority or None,
        "timeout_s": new.timeout or None,
        "is_template": new.is_template or False,
        "visible_to_runner_only": new.visible_to_runner_only or False,
        "auto_kind": new.auto_kind or None,
        "dedicated_worker": new.dedicated_worker or False,
        "cache_ttl_s": new.cache_ttl or None,
        "erase_after_s": rules.erase_after(new),
    }


async def may_write(db: Executor, path: str, viewer: Viewer) -> bool:
    """Return whether the viewer may deploy to this path."""
    answer: bool = await db.fetchval(QUERIES.may_write, path, viewer.username, viewer.is_admin)
    return answer


async def lock_standing(
    tx: Executor, workspace: str, path: str, parent_hash: str | None, viewer: Viewer
) -> tuple[Version | None, Version | None]:
    """Return the head of the path and the version that `parent_hash` names, and keep both from changing."""
    await tx.execute(QUERIES.lock_path, workspace, path)
    rows = await tx.fetch(QUERIES.lock_standing, workspace, path, parent_hash, viewer.username, viewer.is_admin)
    standing = [_version(row) for row in rows]
    head = next((each for each in standing if each.is_head and each.path == path), None)
    named = next((each for each in standing if each.hash == parent_hash), None)
    return head, named


async def insert(
    tx: Executor,
    workspace: str,
    values: Mapping[str, Any],
    print_: bytes,
    parent: Version | None,
    message: str | None,
    viewer: Viewer,
    lock_job: UUID | None,
) -> str:
    """Write a new version down, archive the one that it follows, and return its hash, which `print_` decides.

    It serves at once unless its lock is still to be found and another one serves meanwhile.
    """
    path = values["path"]
    predecessor = await tx.fetchval(QUERIES.find_newest, workspace, path)
    new_hash = rules.hash_of(print_, predecessor)
    lineage: list[str] = []
    if parent is not None:
        moves = parent.path != path
        gone = QUERIES.retire if moves else QUERIES.archive
        await tx.fetchval(gone, workspace, parent.hash, viewer.username, viewer.is_admin)
        lineage = [parent.hash, *parent.parent_hashes][: rules.KEPT_ANCESTORS]
    serves = values["lock"] is not None or not await tx.fetchval(QUERIES.is_served, workspace, path)
    if serves:
        await tx.execute(QUERIES.stop_serving, workspace, path)
    columns = [values[name] for name in _OF_A_VERSION]
    await tx.execute(
        QUERIES.insert,
        workspace,
        new_hash,
        columns[0],
        lineage,
        *columns[1:],
        message or None,
        viewer.username,
        lock_job,
        serves,
    )
    return new_hash


async def archive_head(tx: Executor, workspace: str, path: str, viewer: Viewer) -> str | None:
    """Archive the head of a path and return its hash, or None when there is none that the viewer may change."""
    await tx.execute(QUERIES.lock_path, workspace, path)
    head: str | None = await tx.fetchval(QUERIES.find_head, workspace, path)
    return head if head is not None and await archive_version(tx, workspace, head, viewer) is not None else None


async def archive_version(tx: Executor, workspace: str, version: str, viewer: Viewer) -> str | None:
    """Archive one version and return its path, or None when there is none to archive that the viewer may change."""
    path: str | None = await tx.fetchval(QUERIES.retire, workspace, version, viewer.username, viewer.is_admin)
    return path


async def head(db: Executor, workspace: str, path: str, viewer: Viewer) -> Script | None:
    """Return the head of a path, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.head, workspace, path, viewer.username, viewer.is_admin)
    return None if row is None else _script(row, await _why_no_lock(db, [row]))


async def version(db: Executor, workspace: str, version_hash: str, viewer: Viewer) -> Script | None:
    """Return one version, archived or not, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.version, workspace, version_hash, viewer.username, viewer.is_admin)
    return None if row is None else _script(row, await _why_no_lock(db, [row]))


async def deployment_status(db: Executor, workspace: str, version_hash: str, viewer: Viewer) -> DeploymentStatus | None:
    """Return how far a version's deployment is, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.version, workspace, version_hash, viewer.username, viewer.is_admin)
    if row is None:
        return None
    return DeploymentStatus(
        lock=UNSET if row["lock"] is None else row["lock"],
        lock_error_logs=_or_unset((await _why_no_lock(db, [row])).get(row["lock_job"])),
        job_id=_or_unset(row["lock_job"]),
        serving_hash=_or_unset(await db.fetchval(QUERIES.serving, workspace, row["path"])),
    )


async def source_of_head(db: Executor, workspace: str, path: str, without_extension: str, viewer: Viewer) -> str | None:
    """Return the content of the head of a path, or of the path without its extension."""
    content: str | None = await db.fetchval(
        QUERIES.source_of_head, workspace, path, without_extension, viewer.username, viewer.is_admin
    )
    return content


async def exists(db: Executor, workspace: str, path: str, viewer: Viewer) -> bool:
    """Return whether a path has a head that the viewer may see."""
    answer: bool = await db.fetchval(QUERIES.exists, workspace, path, viewer.username, viewer.is_admin)
    return answer


async def has_history(db: Executor, workspace: str, path: str, viewer: Viewer) -> bool:
    """Return whether a path has any version that the viewer may see."""
    answer: bool = await db.fetchval(QUERIES.has_history, workspace, path, viewer.username, viewer.is_admin)
    return answer


async def history(db: Executor, workspace: str, path: str, page: Paged, viewer: Viewer) -> list[ScriptHistory]:
    """Return the versions of a path, newest first."""
    rows = await db.fetch(
        QUERIES.history, workspace, path, viewer.username, viewer.is_admin, page.per_page, page.offset
    )
    return [
        ScriptHistory(
            script_hash=row["hash"],
            created_at=row["created_at"],
            created_by=row["created_by"],
            deployment_msg=_or_unset(row["deployment_message"]),
        )
        for row in rows
    ]


async def paths_of_heads(db: Executor, workspace: str, viewer: Viewer) -> list[str]:
    """Return the paths that the viewer may see, in order."""
    return [row["path"] for row in await db.fetch(QUERIES.list_paths, workspace, viewer.username, viewer.is_admin)]


async def listing(db: Executor, workspace: str, query: ListQuery, viewer: Viewer) -> list[Script]:
    """Return one page of the scripts that fit."""
    rows = await db.fetch(
        QUERIES.list_newest_first if query.order_desc else QUERIES.list_oldest_first,
        workspace,
        viewer.username,
        viewer.is_admin,
        query.show_archived,
        query.path_start,
        query.path_exact,
        query.created_by,
        _parts(query.kinds),
        _parts(query.languages),
        query.label,
        query.is_template,
        query.parent_hash,
        query.dedicated_worker,
        query.per_page,
        query.offset,
    )
    why_no_lock = await _why_no_lock(db, rows)
    scripts = [_script(row, why_no_lock) for row in rows]
    if query.without_description:
        scripts = [msgspec.structs.replace(each, description="") for each in scripts]
    return scripts


def _parts(text: str | None) -> Sequence[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]


def _version(row: asyncpg.Record) -> Version:
    stored = {name: row[name] for name in _OF_A_VERSION}
    return Version(
        hash=row["hash"],
        path=row["path"],
        parent_hashes=row["parent_hashes"],
        fingerprints={
            rules.fingerprint(stored),
            *([rules.fingerprint({**stored, "lock": None})] if row["lock_was_found"] else []),
        },
        is_head=row["is_head"],
        may_write=row["may_write"],
        has_no_lock=row["has_no_lock"],
    )


async def _why_no_lock(db: Executor, rows: Sequence[asyncpg.Record]) -> Mapping[UUID, str]:
    """Return, by the job that looked for it, why a version has no lock; one that is still looked for is not there."""
    jobs = [row["lock_job"] for row in rows if row["lock"] is None and row["lock_job"] is not None]
    if not jobs:
        return {}
    return {
        row["lock_job"]: rules.why_no_lock(row["message"], is_known=row["is_known"])
        for row in await db.fetch(QUERIES.why_no_lock, jobs)
        if row["outcome"] is not None or not row["is_known"]
    }


def _script(row: asyncpg.Record, why_no_lock: Mapping[UUID, str]) -> Script:
    return Script(
        workspace_id=row["workspace_id"],
        hash=row["hash"],
        path=row["path"],
        parent_hashes=_or_unset(row["parent_hashes"]),
        summary=row["summary"],
        description=row["description"],
        content=row["content"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        archived=row["archived"],
        deleted=row["deleted"],
        is_template=row["is_template"],
        language=row["language"],
        kind=row["kind"],
        schema=UNSET if row["schema"] is None else msgspec.Raw(row["schema"].encode()),
        lock=UNSET if row["lock"] is None else row["lock"],
        lock_error_logs=_or_unset(why_no_lock.get(row["lock_job"])),
        tag=_or_unset(row["tag"]),
        envs=_or_unset(row["envs"]),
        labels=_or_unset(row["labels"]),
        timeout=_or_unset(row["timeout_s"]),
        priority=_or_unset(row["priority"]),
        concurrent_limit=_or_unset(row["concurrent_limit"]),
        concurrency_key=_or_unset(row["concurrency_key"]),
        visible_to_runner_only=_or_unset(row["visible_to_runner_only"]),
        auto_kind=_or_unset(row["auto_kind"]),
        dedicated_worker=_or_unset(row["dedicated_worker"]),
        cache_ttl=_or_unset(row["cache_ttl_s"]),
        delete_after_secs=UNSET if row["erase_after_s"] is None else row["erase_after_s"],
        deployment_msg=_or_unset(row["deployment_message"]),
    )


def _or_unset(value: Any) -> Any:
    # Falsy is unset here: clients compare a missing field with a missing field.
    return value or UNSET
