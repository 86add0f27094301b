"""The rows of tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tidemill.api.http.answer import or_unset
from tidemill.api.tokens.rules import NewSecret
from tidemill.api.tokens.schemas import TruncatedToken
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load("tidemill.api.tokens", "queries.sql")


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Which of a person's tokens somebody may look at and change."""

    email: str
    workspace: str | None = None
    """Only those bound to it."""
    scopes: Sequence[str] | None = None
    """Only those with no other scopes than these."""


async def add(
    db: Executor,
    secret: NewSecret,
    *,
    email: str,
    label: str | None,
    workspace: str | None,
    read_only: bool,
    expires_at: datetime | None,
    scopes: Sequence[str] | None = None,
    is_session: bool = False,
) -> None:
    """Keep a new token."""
    await db.execute(
        QUERIES.add, secret.hash, secret.prefix, email, label, workspace, read_only, expires_at, scopes, is_session
    )


async def list_of_person(db: Executor, reach: Reach, *, limit: int, offset: int) -> Sequence[TruncatedToken]:
    """Return a person's valid tokens within reach, newest first."""
    rows = await db.fetch(QUERIES.list_of_person, reach.email, reach.workspace, reach.scopes, limit, offset)
    return [
        TruncatedToken(
            token_prefix=row["prefix"],
            created_at=row["created_at"],
            last_used_at=row["last_used_at"],
            read_only=row["read_only"],
            label=or_unset(row["label"]),
            expiration=or_unset(row["expires_at"]),
            workspace_id=or_unset(row["workspace_id"]),
            scopes=or_unset(row["scopes"]),
            email=reach.email,
        )
        for row in rows
    ]


async def remove_by_prefix(db: Executor, reach: Reach, prefix: str) -> bool:
    """Revoke a person's token and return whether there was one."""
    return bool(await db.fetch(QUERIES.remove_by_prefix, reach.email, prefix, reach.workspace, reach.scopes))


async def update_label(db: Executor, reach: Reach, prefix: str, label: str | None) -> bool:
    """Call a person's token something else and return whether there was one."""
    return bool(await db.fetch(QUERIES.update_label, reach.email, prefix, reach.workspace, reach.scopes, label))


async def update_scopes(db: Executor, reach: Reach, prefix: str, scopes: Sequence[str] | None) -> bool:
    """Limit a person's token anew and return whether there was one."""
    return bool(await db.fetch(QUERIES.update_scopes, reach.email, prefix, reach.workspace, reach.scopes, scopes))


async def remove_of_person_here(db: Executor, email: str, workspace: str) -> None:
    """Revoke what a person has bound to a workspace."""
    await db.execute(QUERIES.remove_of_person_here, email, workspace)


async def end_sessions(db: Executor, email: str, *, but: bytes | None = None) -> None:
    """End a person's sessions, all but the one with this hash."""
    await db.execute(QUERIES.end_sessions, email, but)


async def remove_by_hash(db: Executor, token_hash: bytes) -> bool:
    """Revoke the very token that was sent."""
    return await db.fetchval(QUERIES.remove_by_hash, token_hash) is not None


async def may_bind(db: Executor, workspace: str, email: str, *, is_super_admin: bool) -> bool:
    """Return whether a person's token may be bound to this workspace."""
    return bool(await db.fetchval(QUERIES.may_bind, workspace, email, is_super_admin))


async def mark_used(db: Executor, used: Mapping[bytes, datetime]) -> None:
    """Write down when each of these tokens was last used."""
    if used:
        # One order for everybody, so that two replicas do not wait for each other in a circle.
        ordered = sorted(used.items())
        await db.execute(QUERIES.mark_used, [each for each, _ in ordered], [at for _, at in ordered])


async def forget_expired(db: Executor) -> int:
    """Delete tokens that expired over a day ago and return how many."""
    return int(await db.fetchval(QUERIES.forget_expired))
