"""Entries of the audit log, as its owner publishes them."""

from collections.abc import Sequence

import msgspec
from asyncpg import Record

from tidemill.api.audit.rules import Reach, kind_of, names_of
from tidemill.api.audit.schemas import AuditFilter, AuditLog
from tidemill.api.http.answer import or_unset
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load("tidemill.api.audit", "queries.sql")


async def list_entries(db: Executor, reach: Reach, wanted: AuditFilter) -> Sequence[AuditLog]:
    """Return one page of what is within reach, newest first."""
    operations = [wanted.operation] if wanted.operation else names_of(wanted.operations)
    rows = await db.fetch(
        QUERIES.list_entries,
        reach.workspaces,
        reach.email,
        wanted.before,
        wanted.after,
        wanted.username,
        operations,
        names_of(wanted.exclude_operations),
        wanted.resource,
        kind_of(wanted),
        wanted.before_id,
        wanted.per_page,
        wanted.offset,
    )
    return [_entry(row) for row in rows]


async def entry(db: Executor, reach: Reach, number: int) -> AuditLog | None:
    """Return one entry, or None when there is none within reach."""
    row = await db.fetchrow(QUERIES.entry, number, reach.workspaces, reach.email)
    return None if row is None else _entry(row)


def _entry(row: Record) -> AuditLog:
    return AuditLog(
        workspace_id=row["workspace_id"],
        id=row["id"],
        timestamp=row["at"],
        username=row["username"],
        operation=row["operation"],
        action_kind=row["action_kind"],
        resource=or_unset(row["resource"] or None),
        parameters=or_unset(msgspec.json.decode(row["parameters"]) or None),
        span=or_unset(row["span"]),
    )
