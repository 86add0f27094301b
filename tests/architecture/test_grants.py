"""Least rights: every grant stands in a table that a reviewer reads, and no login owns or makes anything."""

import asyncpg
import pytest

from tests.architecture.grants import SCHEMAS, present_grants
from tests.architecture.repository import GRANTS, MIGRATIONS, REGENERATE, SCHEMA
from tests.architecture.schema_md import present_schema
from tests.support.database import Databases, DatabaseUrls, connected
from tidemill.shared.catalog import Service

LOGINS = [f"tidemill_{service}" for service in Service]


async def test_all_rights_are_those_of_the_golden_table(databases: Databases) -> None:
    # Not a copy of the template: a copy does not take over the rights on the database itself.
    urls = await databases.migrated("tidemill_rights")
    async with connected(urls.admin) as admin:
        present = await present_grants(admin)
    assert present == GRANTS.read_text(encoding="utf-8"), f"look at the difference, then {REGENERATE}"


async def test_schema_md_is_fresh(database_urls: DatabaseUrls) -> None:
    async with connected(database_urls.admin) as admin:
        present = await present_schema(admin, MIGRATIONS)
    assert present == SCHEMA.read_text(encoding="utf-8"), REGENERATE


@pytest.mark.parametrize("login", LOGINS)
async def test_a_login_owns_nothing_and_is_nobody_special(database_urls: DatabaseUrls, login: str) -> None:
    async with connected(database_urls.admin) as admin:
        owned = await admin.fetchval(
            "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = $1::regrole", login
        )
        role = await admin.fetchrow("SELECT * FROM pg_roles WHERE rolname = $1", login)
    assert owned == 0
    assert role is not None
    special = ("rolsuper", "rolinherit", "rolcreaterole", "rolcreatedb", "rolreplication", "rolbypassrls")
    assert [name for name in special if role[name]] == []


@pytest.mark.parametrize("service", list(Service))
async def test_a_login_can_make_no_schema_and_no_table(database_urls: DatabaseUrls, service: Service) -> None:
    statements = ["CREATE SCHEMA mine", *(f"CREATE TABLE {schema}.mine ()" for schema in SCHEMAS)]
    async with connected(database_urls[service]) as connection:
        for statement in statements:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


@pytest.mark.parametrize(
    "statement", ["UPDATE audit.entry SET username = ''", "DELETE FROM audit.entry", "TRUNCATE audit.entry"]
)
@pytest.mark.parametrize("service", list(Service))
async def test_nobody_may_change_or_delete_what_was_audited(
    database_urls: DatabaseUrls, service: Service, statement: str
) -> None:
    async with connected(database_urls[service]) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


@pytest.mark.parametrize(
    "table", ["queue.live_job", "queue.job", "queue.finished_job", "queue.token_key", "bus.outbox"]
)
@pytest.mark.parametrize("service", list(Service))
async def test_nobody_reaches_the_queue_but_by_its_functions_and_views(
    database_urls: DatabaseUrls, service: Service, table: str
) -> None:
    async with connected(database_urls[service]) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.fetch(f"SELECT * FROM {table}")


async def test_partitions_of_new_days_are_as_closed_as_those_of_the_first(database_urls: DatabaseUrls) -> None:
    async with connected(database_urls[Service.SCHEDULER]) as scheduler:
        await scheduler.execute("SELECT queue.prepare_days(30)")
    async with connected(database_urls.admin) as admin:
        rows = await admin.fetch(
            "SELECT c.relname, c.relowner::regrole::text AS owner, c.relacl FROM pg_class c"
            " WHERE c.relispartition AND c.relkind = 'r'"
        )
    assert len(rows) >= 31 * 3
    assert {(row["owner"], row["relacl"]) for row in rows} == {("tidemill_queue_owner", None)}
