"""Script versions: their source, immutable and so kept once it is complete, and the locks that are found for them."""

from collections import OrderedDict
from uuid import UUID

import msgspec

from tidemill.chassis.database import Database, Executor
from tidemill.chassis.sql import load

QUERIES = load(__package__, "scripts.sql")

_KEPT_BYTES = 64 << 20


class Source(msgspec.Struct, frozen=True):
    """What runs, and what it has asked for; `lock` is what exactly is installed, None as long as that is not known."""

    content: str
    lock: str | None
    dedicated_worker: bool


async def keep_lock(tx: Executor, workspace_id: str, script_hash: str, lock_job: UUID, lock: str) -> None:
    """Keep the lock that a version's own job has found, in the transaction that ends the job."""
    await tx.execute(QUERIES.keep_lock, workspace_id, script_hash, lock_job, lock)


class Sources:
    """Source by workspace and hash, the most recently used ones in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[tuple[str, str], Source] = OrderedDict()
        self._size = 0

    async def get(self, workspace_id: str, script_hash: str) -> Source | None:
        """Return the source of a version, or None when it has been deleted."""
        key = (workspace_id, script_hash)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        row = await self._database.fetchrow(QUERIES.source, workspace_id, script_hash)
        if row is None:
            return None
        source = Source(row["content"], row["lock"], row["dedicated_worker"])
        if source.lock is not None:
            self._keep(key, source)
        return source

    def _keep(self, key: tuple[str, str], source: Source) -> None:
        if key in self._kept:
            # Somebody else has read it meanwhile.
            return
        self._kept[key] = source
        self._size += _weight(source)
        while self._size > _KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._size -= _weight(dropped)


def _weight(source: Source) -> int:
    return len(source.content) + len(source.lock or "")
