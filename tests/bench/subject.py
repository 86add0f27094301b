"""The Tidemill under test: started by its own command, on a Postgres that can count its statements.

    async with subject(shape) as it:
        await it.call_and_wait("u/admin/bench", {"x": 1})       one kept-alive connection
        async with counted(it) as counts:                       pg_stat_statements is on only in here
            ...

Statements are those that clients send, so a call of an SQL function is one; what the function does within is not
counted again. Transactions that write are read off the transaction ids, which is exact and at once.
"""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from tests.support.database import Connection, DatabaseUrls, connected
from tests.support.installation import Installation, Shape, installation
from tests.support.servers import temporary_home
from tests.support.waiting import eventually
from tidemill.allinone.logins import service_urls
from tidemill.allinone.postgres import PostgresAddress, embedded_postgres

SERVERS = frozenset({"postgres", "beam.smp", "epmd", "erl_child_setup", "inet_gethost"})
QUIET = {"TIDEMILL_LOG_LEVEL": "warning"}
SCRIPT = "def main(x: int):\n    return x\n"
PATH = "u/admin/bench"
_PATIENCE = aiohttp.ClientTimeout(120)


@dataclass(frozen=True)
class Subject:
    """A running installation, one connection to its api and one to its database as the superuser."""

    installation: Installation
    session: aiohttp.ClientSession
    admin: Connection
    cluster: "Cluster"

    def url(self, rest: str) -> str:
        """Return an address below the workspace."""
        return f"{self.installation.url}/api/w/{self.installation.workspace}/{rest}"

    async def call_and_wait(self, path: str, args: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
        """Run a script and return its result."""
        url = self.url(f"jobs/run_wait_result/p/{path}")
        async with self.session.post(url, json=args, headers=headers) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
            return await answer.json()

    async def submit(self, path: str, args: Mapping[str, Any]) -> str:
        """Ask for a run and return the job's id."""
        async with self.session.post(self.url(f"jobs/run/p/{path}"), json=args) as answer:
            if answer.status != 201:
                raise RuntimeError(f"{path}: {answer.status} {await answer.text()}")
            return await answer.text()

    async def until_nothing_is_left(self, patience: float = 120) -> None:
        """Return when no job is unfinished and no message unsaid."""
        await eventually(lambda: self.admin.fetchval(_NOTHING_LEFT), patience)

    def processes(self) -> Iterator[tuple[psutil.Process, Sequence[str]]]:
        """Yield our own processes and their command lines, sandboxes included, but not Postgres and RabbitMQ."""
        first = psutil.Process(self.installation.process.pid)
        for each in (first, *first.children(recursive=True)):
            # Sandboxes come and go while we look.
            with suppress(psutil.NoSuchProcess):
                # What a server starts belongs to it: RabbitMQ watches its disk by a shell.
                if SERVERS.isdisjoint(one.name() for one in (each, *each.parents())):
                    yield each, each.cmdline() or [each.name()]


@asynccontextmanager
async def subject(
    shape: Shape, settings: Mapping[str, str] | None = None, cluster: "Cluster | None" = None
) -> AsyncIterator[Subject]:
    """Start Tidemill with an empty database, or with that of `cluster`, and stop it at the end."""
    if cluster is None:
        async with new_cluster() as made, subject(shape, settings, made) as it:
            yield it
        return
    async with (
        installation(shape, {**QUIET, **(settings or {})}, home=cluster.home) as running,
        aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {running.token}"},
            timeout=_PATIENCE,
            connector=aiohttp.TCPConnector(limit=64),
        ) as session,
        connected(admin_url(cluster.address)) as admin,
    ):
        yield Subject(running, session, admin, cluster)


@dataclass(frozen=True)
class Cluster:
    """A data folder whose Postgres counts statements when it is asked to."""

    home: Path
    address: PostgresAddress

    @property
    def urls(self) -> DatabaseUrls:
        """Return the addresses of the installation's database."""
        address = self.address
        return DatabaseUrls(
            name=address.database,
            migrator=address.migrator_dsn,
            admin=admin_url(address),
            services=service_urls(address.migrator_dsn),
        )


@asynccontextmanager
async def new_cluster() -> AsyncIterator[Cluster]:
    """Make a data folder with a Postgres that is not running; the installation started there finds it."""
    with temporary_home() as home:
        # Not in the installation's own database, whose schemas are its migrations' business.
        async with embedded_postgres(home) as address, connected(statistics_url(address)) as connection:
            await connection.execute("CREATE EXTENSION pg_stat_statements")
        # ALTER SYSTEM would refuse the second one before the library has been loaded.
        with home.joinpath("postgres", "data", "postgresql.auto.conf").open("a") as settings:
            settings.write("shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.track = 'none'\n")
        yield Cluster(home, address)


def admin_url(address: PostgresAddress, database: str | None = None) -> str:
    """Return how the superuser reaches a database, by default that of the installation."""
    return address.dsn(address.admin["user"], address.superuser_password, database)


def statistics_url(address: PostgresAddress) -> str:
    """Return the address of the database in which the statistics can be seen."""
    return admin_url(address, "postgres")


class Statement(dict[str, Any]):
    """A statement as pg_stat_statements knows it: role, query, calls, ms."""


@dataclass
class Counts:
    """What Postgres did during a block."""

    statements: list[Statement] = field(default_factory=list)
    writing_transactions: int = 0
    transactions: int = 0
    wal_bytes: int = 0

    @property
    def calls(self) -> int:
        """How many statements were sent."""
        return sum(each["calls"] for each in self.statements)


@asynccontextmanager
async def counted(it: Subject) -> AsyncIterator[Counts]:
    """Count what the services ask of Postgres during the block; the counts are there when it is over."""
    counts = Counts()
    name = it.cluster.address.database
    async with connected(statistics_url(it.cluster.address)) as stats:
        try:
            await _track(stats, "top")
            await stats.execute("SELECT pg_stat_statements_reset()")
            before = await stats.fetchrow(_CLUSTER, name)
            assert before is not None
            yield counts
            after = await stats.fetchrow(_CLUSTER, name)
            assert after is not None
            counts.statements = [Statement(row) for row in await stats.fetch(_STATEMENTS, name)]
            counts.writing_transactions = after["xid"] - before["xid"]
            counts.transactions = after["transactions"] - before["transactions"]
            counts.wal_bytes = after["wal"] - before["wal"]
        finally:
            await _track(stats, "none")


async def _track(stats: Connection, which: str) -> None:
    await stats.execute(f"ALTER SYSTEM SET pg_stat_statements.track = '{which}'")
    await stats.execute("SELECT pg_reload_conf()")
    await eventually(lambda: stats.fetchval("SELECT current_setting('pg_stat_statements.track') = $1", which))


_NOTHING_LEFT = "SELECT NOT EXISTS (SELECT FROM queue.live_job) AND NOT EXISTS (SELECT FROM bus.outbox)"
_CLUSTER = """
    SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS xid,
           (pg_current_wal_insert_lsn() - '0/0')::bigint AS wal,
           (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1) AS transactions
"""
_STATEMENTS = """
    SELECT replace(rolname, 'tidemill_', '') AS role, query, calls, mean_exec_time AS ms
    FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid JOIN pg_database d ON d.oid = s.dbid
    WHERE datname = $1 AND rolname LIKE 'tidemill\\_%' ORDER BY calls DESC, query
"""
