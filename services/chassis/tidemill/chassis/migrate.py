"""Bring a database to the state that this version needs: roles, tables, functions, grants, catalog, passwords.

Tables change by numbered migrations (yoyo), which run once. Functions, views and grants stand in files that are applied
whole whenever they differ from what was applied last, so that each file always shows the present state.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from yoyo import get_backend, read_migrations
from yoyo.migrations import MigrationList

from tidemill.chassis.database import SUPPORTED
from tidemill.chassis.errors import StartRefused
from tidemill.shared.catalog import CATALOG, Service

SCHEMAS = ("bus", "platform", "queue", "audit")
_LOCK = 7_433_001
_TRIES = 5
_PAUSE = 2


def migrate(url: str, passwords: Mapping[Service, str], say: Callable[[str], None]) -> None:
    """Apply everything that is missing and set the login roles' passwords; safe to repeat and to run twice at once."""
    folder = migrations_folder()
    logging.getLogger("yoyo").setLevel(logging.WARNING)
    with _connected(url, say) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        applied = _applied(connection)
        _apply_file(connection, applied, folder, folder / "roles.sql")
        backend = get_backend(url.replace("postgresql://", "postgresql+psycopg://", 1))
        migrations = _numbered(folder)
        with closing(backend.connection), backend.lock():
            missing = backend.to_apply(migrations)
            for each in missing:
                say(f"migration {each.id}")
            backend.apply_migrations(missing)
        for schema in SCHEMAS:
            for file in sorted(folder.joinpath(schema).glob("[a-z]*.sql")):
                if _apply_file(connection, applied, folder, file):
                    say(f"applied {schema}/{file.name}")
        _copy_catalog(connection)
        for service, password in passwords.items():
            _set_password(connection, f"tidemill_{service}", password)


def migrations_folder() -> Path:
    """Return the folder of the migrations: the nearest one above this file, as in a checkout or in our images."""
    for parent in Path(__file__).resolve().parents:
        if parent.joinpath("migrations", "roles.sql").is_file():
            return parent / "migrations"
    raise StartRefused("the migrations folder is not there: run `tidemill migrate` from a checkout or our image")


def _connected(url: str, say: Callable[[str], None]) -> psycopg.Connection:
    for attempt in range(_TRIES):
        try:
            connection = psycopg.connect(url, autocommit=True, connect_timeout=5)
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            if attempt + 1 == _TRIES:
                raise StartRefused(f"Postgres can't be reached: {reason}") from None
            say(f"waiting for Postgres: {reason}")
            time.sleep(_PAUSE)
            continue
        major = connection.info.server_version // 10_000
        if major not in SUPPORTED:
            connection.close()
            raise StartRefused(f"Postgres {major} is not supported: {SUPPORTED[0]} to {SUPPORTED[-1]} are")
        return connection
    raise AssertionError("unreachable")


def _numbered(folder: Path) -> MigrationList:
    # Read folder by folder: yoyo would take each schema's `interface.sql` for a migration of the same name.
    return MigrationList(
        each for schema in SCHEMAS for each in read_migrations(str(folder / schema)) if each.id[0].isdigit()
    )


def _applied(connection: psycopg.Connection) -> dict[str, str]:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS public.tidemill_applied (file text PRIMARY KEY, sha256 text NOT NULL)"
    )
    return dict(connection.execute("SELECT file, sha256 FROM public.tidemill_applied").fetchall())


def _apply_file(connection: psycopg.Connection, applied: Mapping[str, str], folder: Path, file: Path) -> bool:
    name, content = str(file.relative_to(folder)), file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if applied.get(name) == digest:
        return False
    with connection.transaction():
        connection.execute(content)
        connection.execute("RESET ROLE")
        connection.execute(
            "INSERT INTO public.tidemill_applied VALUES (%s, %s)"
            " ON CONFLICT (file) DO UPDATE SET sha256 = excluded.sha256",
            [name, digest],
        )
    return True


def _copy_catalog(connection: psycopg.Connection) -> None:
    with _as_role(connection, "tidemill_bus_owner"):
        for entry in CATALOG:
            if entry.outbox:
                connection.execute(
                    "INSERT INTO bus.kind (type, exchange, says) VALUES (%s, %s, %s)"
                    " ON CONFLICT (type) DO UPDATE SET exchange = excluded.exchange, says = excluded.says",
                    [entry.message.TYPE, entry.exchange.value, sorted(each.value for each in entry.says)],
                )


@contextmanager
def _as_role(connection: psycopg.Connection, role: str) -> Iterator[None]:
    with connection.transaction():
        connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        yield


def _set_password(connection: psycopg.Connection, role: str, password: str) -> None:
    # The verifier is made here, so that the password itself never reaches the server or its log.
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier)))
