"""A log of one's own: its database, the key that signs it, and somebody who owns the database and tampers with it."""

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.database import Connection, DatabaseUrls, connected
from tidemill.audit import anchoring
from tidemill.audit.chain import Finding, Wrong
from tidemill.audit.store import entries
from tidemill.audit.store.entries import Event
from tidemill.audit.verify import verify
from tidemill.chassis.clock import SystemClock
from tidemill.chassis.database import Database
from tidemill.chassis.loops import Turn
from tidemill.shared.catalog import Service
from tidemill.shared.messages import AuditRecorded


def an_event(workspace: str = "w", resource: str = "u/ann/x") -> AuditRecorded:
    return AuditRecorded(
        workspace_id=workspace,
        at=datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=UTC),
        username="ann",
        email="ann@example.com",
        operation="scripts.create",
        action_kind="Created",
        resource=resource,
        parameters={"name": "ä\t\U0001f600", "n": [1, 2.5, None]},
    )


@dataclass(frozen=True)
class Log:
    """The audit log under test."""

    database: Database
    key: bytes
    forger: Connection
    """Owns the database: no right and no trigger keeps it from anything."""

    async def append(self, count: int = 1, workspace: str = "w") -> None:
        for number in range(count):
            await entries.append(self.database, [Event(uuid.uuid4(), an_event(workspace, f"u/ann/{number}"))])

    async def anchor(self) -> Turn:
        return await anchoring.run_once(self.database, self.key, SystemClock())

    async def findings(
        self, *, key: bytes | None = None, patience: timedelta = timedelta(minutes=15), only: str | None = None
    ) -> Sequence[Finding]:
        return await verify(self.database, key or self.key, patience, lambda _: None, only)

    async def wrong(self, **how: timedelta) -> list[tuple[str, int, Wrong]]:
        return [(each.workspace_id, each.seq, each.wrong) for each in await self.findings(**how)]  # type: ignore[arg-type]  # only spans

    async def rewrite(self) -> None:
        """Make the chain of `w` anew from the rows that are there, so that it fits together again."""
        await self.forger.execute(
            """
            DO $$
            DECLARE
                v_row  audit.entry;
                v_hash bytea;
                v_seq  bigint := 0;
            BEGIN
                v_hash := audit.genesis('w');
                FOR v_row IN SELECT * FROM audit.entry WHERE workspace_id = 'w' ORDER BY seq, id LOOP
                    v_seq := v_seq + 1;
                    v_row.seq := v_seq;
                    v_row.previous_hash := v_hash;
                    v_hash := audit.digest(v_row);
                    UPDATE audit.entry SET seq = v_seq, previous_hash = v_row.previous_hash, hash = v_hash
                    WHERE id = v_row.id;
                END LOOP;
                UPDATE audit.chain SET seq = v_seq, hash = v_hash WHERE workspace_id = 'w';
            END
            $$
            """
        )


@pytest.fixture
async def log(own_database_urls: DatabaseUrls) -> AsyncIterator[Log]:
    """An empty log."""
    async with (
        Database(own_database_urls[Service.AUDIT], name="audit") as database,
        connected(own_database_urls.admin) as forger,
    ):
        # As replication does it: triggers stay silent.
        await forger.execute("SET session_replication_role = replica")
        await entries.prepare_days(database, 1)
        yield Log(database, b"k" * 32, forger)
