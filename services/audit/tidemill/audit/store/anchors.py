"""Signed anchors of the chains."""

from collections.abc import Sequence

from asyncpg import Record

from tidemill.audit.chain import Anchor, Link
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "anchors.sql")


async def add(db: Executor, anchor: Anchor) -> None:
    """Write an anchor down; one for the same place that is there already stays."""
    link = anchor.link
    await db.execute(
        QUERIES.add, anchor.workspace_id, link.seq, anchor.is_floor, link.hash, anchor.at, anchor.signature
    )


async def of_workspace(db: Executor, workspace_id: str) -> Sequence[Anchor]:
    """Return all anchors of a chain in its order."""
    return [_anchor(row) for row in await db.fetch(QUERIES.of_workspace, workspace_id)]


async def newest(db: Executor, workspace_id: str) -> Anchor | None:
    """Return the furthest anchor of a chain."""
    row = await db.fetchrow(QUERIES.newest, workspace_id)
    return None if row is None else _anchor(row)


async def unanchored(db: Executor) -> Sequence[str]:
    """Return the workspaces whose chain's end is not signed."""
    return [row["workspace_id"] for row in await db.fetch(QUERIES.unanchored)]


def _anchor(row: Record) -> Anchor:
    return Anchor(
        workspace_id=row["workspace_id"],
        link=Link(seq=row["seq"], hash=row["hash"]),
        at=row["at"],
        is_floor=row["is_floor"],
        signature=row["signature"],
    )
