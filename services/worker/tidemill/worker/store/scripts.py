"""The source of script versions; immutable, so what was read once is kept."""

from collections import OrderedDict

from tidemill.chassis.database import Database
from tidemill.chassis.sql import load

QUERIES = load(__package__, "scripts.sql")

_KEPT_BYTES = 64 << 20


class Sources:
    """Source by workspace and hash, the most recently used ones in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._size = 0

    async def get(self, workspace_id: str, script_hash: str) -> str | None:
        """Return the code of a version, or None when it has been deleted."""
        key = (workspace_id, script_hash)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        row = await self._database.fetchrow(QUERIES.source, workspace_id, script_hash)
        if row is None:
            return None
        content: str = row["content"]
        self._keep(key, content)
        return content

    def _keep(self, key: tuple[str, str], content: str) -> None:
        self._kept[key] = content
        self._size += len(content)
        while self._size > _KEPT_BYTES:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)
