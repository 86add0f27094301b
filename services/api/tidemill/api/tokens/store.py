"""The rows of tokens."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from tidemill.api.http.answer import or_unset
from tidemill.api.tokens.rules import NewSecret
from tidemill.api.tokens.schemas import TruncatedToken
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load("tidemill.api.tokens", "queries.sql")


async def add(
    db: Executor,
    secret: NewSecret,
    *,
    email: str,
    label: str | None,
    workspace: str | None,
    read_only: bool,
    expires_at: datetime | None,
) -> None:
    """Keep a new token."""
    await db.execute(QUERIES.add, secret.hash, secret.prefix, email, label, workspace, read_only, expires_at)


async def list_of_person(
    db: Executor, email: str, *, workspace: str | None, limit: int, offset: int
) -> Sequence[TruncatedToken]:
    """Return a person's valid tokens, newest first; with a workspace only those bound to it."""
    rows = await db.fetch(QUERIES.list_of_person, email, workspace, limit, offset)
    return [
        TruncatedToken(
            token_prefix=row["prefix"],
            created_at=row["created_at"],
            last_used_at=row["last_used_at"],
            read_only=row["read_only"],
            label=or_unset(row["label"]),
            expiration=or_unset(row["expires_at"]),
            workspace_id=or_unset(row["workspace_id"]),
            email=email,
        )
        for row in rows
    ]


async def remove_by_prefix(db: Executor, email: str, prefix: str, *, workspace: str | None) -> bool:
    """Revoke a person's token and return whether there was one."""
    return bool(await db.fetch(QUERIES.remove_by_prefix, email, prefix, workspace))


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
