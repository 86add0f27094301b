"""The rows of people and members."""

from dataclasses import dataclass
from datetime import datetime

from tidemill.api.http.answer import or_unset
from tidemill.api.users.schemas import GlobalUserInfo
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
    if row is None:
        return None
    return GlobalUserInfo(
        email=row["email"],
        super_admin=row["super_admin"],
        name=or_unset(row["name"]),
        company=or_unset(row["company"]),
        disabled=row["disabled"],
    )


async def member_since(db: Executor, workspace: str, email: str) -> Since | None:
    """Return since when a person is a member; for others, since when they are known at all."""
    row = await db.fetchrow(QUERIES.member_since, workspace, email)
    return None if row is None else Since(created_at=row["created_at"], name=row["name"])


async def email_of_username(db: Executor, workspace: str, username: str) -> str | None:
    """Return the email behind a username, or None when nobody has it in this workspace."""
    email: str | None = await db.fetchval(QUERIES.email_of_username, workspace, username)
    return email
