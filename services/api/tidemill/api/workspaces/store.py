"""The rows of workspaces."""

from collections.abc import Sequence

from asyncpg import Record

from tidemill.api.http.answer import or_unset
from tidemill.api.workspaces.rules import capabilities_of
from tidemill.api.workspaces.schemas import Membership, Role, Workspace, WorkspaceInvite
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


async def add_member(
    db: Executor, workspace: str, *, username: str, email: str, is_admin: bool, operator: bool = False
) -> bool:
    """Let a person into a workspace and return True, or False when they or another of that name are there already."""
    return await db.fetchval(QUERIES.add_member, workspace, username, email, is_admin, operator) is not None


async def set_archived(db: Executor, workspace: str, *, archived: bool) -> bool:
    """Close or open a workspace and return whether there is one."""
    return await db.fetchval(QUERIES.set_archived, workspace, archived) is not None


async def remove(db: Executor, workspace: str) -> bool:
    """Remove a workspace with all that belongs to it and return whether there was one; nobody gets its id again.

    Jobs and audit entries of it are kept elsewhere for their time: a new workspace of that name would show them.
    """
    if await db.fetchval(QUERIES.remove, workspace) is None:
        return False
    await db.execute(QUERIES.bury, workspace)
    return True


async def add_invite(db: Executor, workspace: str, *, email: str, is_admin: bool, operator: bool) -> bool:
    """Invite somebody and return True, or False when they are a member already."""
    return await db.fetchval(QUERIES.add_invite, workspace, email, is_admin, operator) is not None


async def take_invite(db: Executor, workspace: str, email: str) -> WorkspaceInvite | None:
    """Return an invitation that is over with this, or None when there is none."""
    row = await db.fetchrow(QUERIES.take_invite, workspace, email)
    return None if row is None else _invite(row)


async def invites_here(db: Executor, workspace: str) -> Sequence[WorkspaceInvite]:
    """Return the invitations to a workspace, by email."""
    return [_invite(row) for row in await db.fetch(QUERIES.invites_here, workspace)]


async def invites_of_person(db: Executor, email: str) -> Sequence[WorkspaceInvite]:
    """Return a person's invitations, by workspace."""
    return [_invite(row) for row in await db.fetch(QUERIES.invites_of_person, email)]


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


def _invite(row: Record) -> WorkspaceInvite:
    return WorkspaceInvite(**row, role=_role(row))


def _role(row: Record) -> Role:
    if row["is_admin"]:
        return "admin"
    return "operator" if row["operator"] else "developer"
