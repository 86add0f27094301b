"""Versions of flows: their values, and the locks that are found for the code inside of them."""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "flows.sql")


async def value(db: Executor, workspace_id: str, version: int) -> bytes | None:
    """Return the value of a version, or None when it is not there."""
    text: str | None = await db.fetchval(QUERIES.value, workspace_id, version)
    return None if text is None else text.encode()


async def keep_locks(tx: Executor, workspace_id: str, version: int, lock_job: UUID, locks: Mapping[str, str]) -> None:
    """Keep the locks that a version's own job has found, in the transaction that ends the job."""
    await tx.execute(QUERIES.keep_locks, workspace_id, version, lock_job, msgspec.json.encode(locks).decode())
