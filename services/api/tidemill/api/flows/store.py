"""Flows in the database."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from msgspec import UNSET

from tidemill.api.flows import rules
from tidemill.api.flows.schemas import DeploymentStatus, Flow, FlowVersion, ListQuery
from tidemill.api.http.answer import or_unset
from tidemill.api.http.paging import Paged
from tidemill.api.http.route import Viewer
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "queries.sql")

_OF_A_VERSION = (
    "summary",
    "description",
    "value",
    "schema",
    "tag",
    "labels",
    "concurrent_limit",
    "concurrency_key",
    "priority",
    "timeout_s",
    "visible_to_runner_only",
    "cache_ttl_s",
    "erase_after_s",
    "has_preprocessor",
    "deployment_message",
)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that is there, archived or not."""

    id: int
    path: str
    archived: bool
    may_write: bool


class Below(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that would run inside of another, by which of its steps, and how deep."""

    named: str
    """The path of the step's flow."""
    path: str
    depth: int
    is_there: bool


async def may_write(db: Executor, path: str, viewer: Viewer) -> bool:
    """Return whether the viewer may deploy to this path."""
    answer: bool = await db.fetchval(QUERIES.may_write, path, viewer.username, viewer.is_admin)
    return answer


async def lock(tx: Executor, workspace: str, path: str, viewer: Viewer) -> Standing | None:
    """Return the flow at a path and keep it from changing, or None when there is none that the viewer may see."""
    row = await tx.fetchrow(QUERIES.lock_flow, workspace, path, viewer.username, viewer.is_admin)
    return None if row is None else Standing(**row)


async def is_taken(tx: Executor, workspace: str, path: str) -> bool:
    """Return whether a flow stands at this path, visible or not."""
    answer: bool = await tx.fetchval(QUERIES.is_taken, workspace, path)
    return answer


async def insert(tx: Executor, workspace: str, path: str) -> int:
    """Make a flow without a version; raises UniqueViolationError where one stands."""
    flow_id: int = await tx.fetchval(QUERIES.insert_flow, workspace, path)
    return flow_id


async def insert_version(
    tx: Executor,
    flow_id: int,
    path: str,
    columns: Mapping[str, Any],
    flows: Sequence[str],
    locks: str | None,
    lock_job: UUID | None,
    viewer: Viewer,
) -> int:
    """Write a new version down, which the flow shows from now on at this path, and return its number."""
    version: int = await tx.fetchval(
        QUERIES.insert_version,
        flow_id,
        path,
        *(columns[name] for name in _OF_A_VERSION),
        list(flows),
        locks,
        lock_job,
        viewer.username,
    )
    return version


async def set_archived(tx: Executor, flow_id: int, *, archived: bool) -> None:
    """Archive a flow, or let it be there again."""
    await tx.execute(QUERIES.set_archived, flow_id, archived)


async def delete(tx: Executor, flow_id: int) -> None:
    """Take a flow away with all its versions; its jobs go on."""
    await tx.execute(QUERIES.delete, flow_id)


async def set_message(tx: Executor, workspace: str, version: int, message: str, viewer: Viewer) -> str | None:
    """Change what a version is said to be about; return its path, or None when there is none to change."""
    path: str | None = await tx.fetchval(
        QUERIES.set_message, workspace, version, viewer.username, viewer.is_admin, message or None
    )
    return path


async def absent_scripts(
    db: Executor, workspace: str, paths: Sequence[str], hashes: Sequence[str], viewer: Viewer
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the paths and the hashes at which there is no script that the viewer may read."""
    rows = await db.fetch(
        QUERIES.absent_scripts, workspace, list(paths), list(hashes), viewer.username, viewer.is_admin
    )
    return [row["name"] for row in rows if not row["is_hash"]], [row["name"] for row in rows if row["is_hash"]]


async def flows_below(
    db: Executor, workspace: str, paths: Sequence[str], own_path: str | None, deepest: int, viewer: Viewer
) -> Sequence[Below]:
    """Return all flows that would run inside of one that names these paths, the nearest first."""
    rows = await db.fetch(QUERIES.below, workspace, list(paths), own_path, deepest, viewer.username, viewer.is_admin)
    return [
        Below(named=row["named"], path=row["path"], depth=row["depth"], is_there=row["is_there"])
        for row in sorted(rows, key=lambda row: (row["nearest"], row["path"]))
    ]


async def newest(db: Executor, workspace: str, path: str, viewer: Viewer) -> Flow | None:
    """Return the flow at a path, archived or not, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.newest, workspace, path, viewer.username, viewer.is_admin)
    return None if row is None else _flow(row, await _why_no_locks(db, [row]))


async def version(db: Executor, workspace: str, number: int, viewer: Viewer) -> Flow | None:
    """Return a flow as one version of it says, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.version, workspace, number, viewer.username, viewer.is_admin)
    return None if row is None else _flow(row, await _why_no_locks(db, [row]))


async def deployment_status(db: Executor, workspace: str, path: str, viewer: Viewer) -> DeploymentStatus | None:
    """Return how far the newest version's locks are, or None when there is none that the viewer may see."""
    row = await db.fetchrow(QUERIES.newest, workspace, path, viewer.username, viewer.is_admin)
    if row is None:
        return None
    why = await _why_no_locks(db, [row])
    return DeploymentStatus(lock_error_logs=or_unset(why.get(row["lock_job"])), job_id=or_unset(row["lock_job"]))


async def exists(db: Executor, workspace: str, path: str, viewer: Viewer) -> bool:
    """Return whether at a path there is a flow that the viewer may see and that is not archived."""
    answer: bool = await db.fetchval(QUERIES.exists, workspace, path, viewer.username, viewer.is_admin)
    return answer


async def history(db: Executor, workspace: str, path: str, page: Paged, viewer: Viewer) -> list[FlowVersion]:
    """Return the versions of the flow at a path, newest first, from other paths that it had as well."""
    rows = await db.fetch(
        QUERIES.history, workspace, path, viewer.username, viewer.is_admin, page.per_page, page.offset
    )
    return [
        FlowVersion(
            id=row["id"],
            created_at=row["created_at"],
            created_by=row["created_by"],
            deployment_msg=or_unset(row["deployment_message"]),
        )
        for row in rows
    ]


async def paths_of_flows(db: Executor, workspace: str, viewer: Viewer) -> list[str]:
    """Return the paths that the viewer may see, in order."""
    return [row["path"] for row in await db.fetch(QUERIES.list_paths, workspace, viewer.username, viewer.is_admin)]


async def listing(db: Executor, workspace: str, query: ListQuery, viewer: Viewer) -> list[Flow]:
    """Return one page of the flows that fit."""
    rows = await db.fetch(
        QUERIES.list_newest_first if query.order_desc else QUERIES.list_oldest_first,
        workspace,
        viewer.username,
        viewer.is_admin,
        query.show_archived,
        query.path_start,
        query.path_exact,
        query.created_by,
        query.label,
        query.per_page,
        query.offset,
    )
    why = await _why_no_locks(db, rows)
    found = [_flow(row, why) for row in rows]
    return [msgspec.structs.replace(each, description="") for each in found] if query.without_description else found


async def _why_no_locks(db: Executor, rows: Sequence[asyncpg.Record]) -> Mapping[UUID, str]:
    """Return, by the job that looked for them, why locks are missing; one that goes on is not there."""
    jobs = [row["lock_job"] for row in rows if row["locks"] is None and row["lock_job"] is not None]
    if not jobs:
        return {}
    return {
        row["lock_job"]: rules.why_no_locks(row["message"], is_known=row["is_known"])
        for row in await db.fetch(QUERIES.why_no_locks, jobs)
        if row["outcome"] is not None or not row["is_known"]
    }


def _flow(row: asyncpg.Record, why_no_locks: Mapping[UUID, str]) -> Flow:
    return Flow(
        workspace_id=row["workspace_id"],
        path=row["path"],
        summary=row["summary"],
        description=row["description"],
        value=msgspec.Raw(row["value"].encode()),
        edited_by=row["created_by"],
        edited_at=row["created_at"],
        archived=row["archived"],
        version_id=row["id"],
        schema=UNSET if row["schema"] is None else msgspec.Raw(row["schema"].encode()),
        lock_error_logs=or_unset(why_no_locks.get(row["lock_job"])),
        tag=or_unset(row["tag"]),
        # Falsy is unset here: clients compare a missing field with a missing field.
        labels=row["labels"] or UNSET,
        timeout=or_unset(row["timeout_s"]),
        priority=or_unset(row["priority"]),
        visible_to_runner_only=row["visible_to_runner_only"] or UNSET,
        deployment_msg=or_unset(row["deployment_message"]),
    )
