"""The rows of workspaces."""

from collections.abc import Sequence
from typing import Literal

from asyncpg import Record

from tidemill.api.http.answer import or_unset
from tidemill.api.workspaces.rules import capabilities_of
from tidemill.api.workspaces.schemas import Membership, Workspace
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load("tidemill.api.workspaces", "queries.sql")


async def exists(db: Executor, workspace: str) -> bool:
    """Return whether there is such a workspace, an archived one included: its id is taken."""
    return bool(await db.fetchval(QUERIES.exists, workspace))


async def name_of(db: Executor, workspace: str) -> str | None:
    """Return the name that people read."""
    name: str | None = await db.fetchval(QUERIES.name_of, workspace)
    return name


async def add(db: Executor, workspace: str, *, name: str, owner: str, color: str | None) -> bool:
    """Make a workspace and return True, or False when its id is taken."""
    return await db.fetchval(QUERIES.add, workspace, name, owner, color) is not None


async def add_member(db: Executor, workspace: str, *, username: str, email: str, is_admin: bool) -> None:
    """Let a person into a workspace."""
    await db.execute(QUERIES.add_member, workspace, username, email, is_admin)


async def list_of_person(db: Executor, email: str, *, only: str | None) -> Sequence[Workspace]:
    """Return the workspaces that a person may enter, by id."""
    return [_workspace(row) for row in await db.fetch(QUERIES.memberships, email, only) if not row["disabled"]]


async def memberships(db: Executor, email: str, *, only: str | None) -> Sequence[Membership]:
    """Return a person's workspaces with what they are there, by id."""
    return [
        Membership(
            id=row["id"],
            name=row["name"],
            username=row["username"],
            color=row["color"] or "",
            disabled=row["disabled"],
            role=_role(row),
            capabilities=capabilities_of(operator=row["operator"] and not row["is_admin"]),
        )
        for row in await db.fetch(QUERIES.memberships, email, only)
    ]


async def list_all(db: Executor, *, limit: int, offset: int) -> Sequence[Workspace]:
    """Return all workspaces of the installation, by id."""
    return [_workspace(row, deleted=row["archived"]) for row in await db.fetch(QUERIES.list_all, limit, offset)]


def _workspace(row: Record, *, deleted: bool = False) -> Workspace:
    return Workspace(
        id=row["id"],
        name=row["name"],
        owner=row["owner"],
        color=or_unset(row["color"]),
        deleted=or_unset(deleted or None),
    )


def _role(row: Record) -> Literal["admin", "developer", "operator"]:
    if row["is_admin"]:
        return "admin"
    return "operator" if row["operator"] else "developer"
