"""The rows of people and members."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record

from tidemill.api.http.answer import or_unset
from tidemill.api.users.schemas import GlobalUserInfo, User
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load("tidemill.api.users", "queries.sql")


@dataclass(frozen=True, kw_only=True)
class Since:
    """When somebody came to a workspace, and their name."""

    created_at: datetime
    name: str | None


async def password_hash_of(db: Executor, email: str) -> str | None:
    """Return what is kept of a person's password, or None when nobody can log in with this email."""
    row = await db.fetchrow(QUERIES.password_of, email)
    return None if row is None or row["disabled"] else row["password_hash"]


async def person(db: Executor, email: str) -> GlobalUserInfo | None:
    """Return a person of the installation."""
    row = await db.fetchrow(QUERIES.person, email)
    return None if row is None else _person(row)


async def member_since(db: Executor, workspace: str, email: str) -> Since | None:
    """Return since when a person is a member; for others, since when they are known at all."""
    row = await db.fetchrow(QUERIES.member_since, workspace, email)
    return None if row is None else Since(created_at=row["created_at"], name=row["name"])


async def email_of_username(db: Executor, workspace: str, username: str) -> str | None:
    """Return the email behind a username, or None when nobody has it in this workspace."""
    email: str | None = await db.fetchval(QUERIES.email_of_username, workspace, username)
    return email


async def person_exists(db: Executor, email: str) -> bool:
    """Return whether there is such a person, a disabled one included."""
    return bool(await db.fetchval(QUERIES.person_exists, email))


async def list_people(db: Executor, *, limit: int, offset: int) -> Sequence[GlobalUserInfo]:
    """Return the people of the installation, by email."""
    return [_person(row) for row in await db.fetch(QUERIES.list_people, limit, offset)]


async def lock_superadmins(db: Executor) -> Sequence[str]:
    """Return who is a superadmin and not disabled; none of them changes until the end of the transaction."""
    return [row["email"] for row in await db.fetch(QUERIES.superadmins)]


async def add_person(
    db: Executor, email: str, *, password_hash: str | None, super_admin: bool, name: str | None, company: str | None
) -> bool:
    """Make a person and return True, or False when there is one already."""
    return await db.fetchval(QUERIES.add_person, email, password_hash, super_admin, name, company) is not None


async def update_person(
    db: Executor, email: str, *, super_admin: bool | None, name: str | None, disabled: bool | None
) -> bool:
    """Change what is not None of a person and return whether there was one."""
    return await db.fetchval(QUERIES.update_person, email, super_admin, name, disabled) is not None


async def set_password(db: Executor, email: str, password_hash: str) -> bool:
    """Give a person another password and return whether there was one."""
    return await db.fetchval(QUERIES.set_password, email, password_hash) is not None


async def remove_person(db: Executor, email: str) -> bool:
    """Remove a person with all memberships, invitations and tokens, and return whether there was one."""
    await db.execute(QUERIES.remove_invites_of_person, email)
    return await db.fetchval(QUERIES.remove_person, email) is not None


async def members(db: Executor, workspace: str) -> Sequence[User]:
    """Return the members of a workspace, by username."""
    return [_member(row) for row in await db.fetch(QUERIES.members, workspace, None)]


async def member(db: Executor, workspace: str, username: str) -> User | None:
    """Return one member of a workspace."""
    row = await db.fetchrow(QUERIES.members, workspace, username)
    return None if row is None else _member(row)


async def update_member(
    db: Executor, workspace: str, username: str, *, is_admin: bool | None, operator: bool | None, disabled: bool | None
) -> str | None:
    """Change what is not None of a member and return the email, or None when there is no such member."""
    email: str | None = await db.fetchval(QUERIES.update_member, workspace, username, is_admin, operator, disabled)
    return email


async def remove_member(db: Executor, workspace: str, username: str) -> str | None:
    """Take a member out of a workspace and return the email, or None when there was no such member."""
    email: str | None = await db.fetchval(QUERIES.remove_member, workspace, username)
    return email


def _person(row: Record) -> GlobalUserInfo:
    return GlobalUserInfo(
        email=row["email"],
        super_admin=row["super_admin"],
        name=or_unset(row["name"]),
        company=or_unset(row["company"]),
        disabled=row["disabled"],
    )


def _member(row: Record) -> User:
    return User(
        email=row["email"],
        username=row["username"],
        is_admin=row["is_admin"],
        is_super_admin=row["super_admin"],
        created_at=row["created_at"],
        operator=row["operator"],
        disabled=row["disabled"],
        name=or_unset(row["name"]),
        groups=("all",),
    )
