"""Migrations go forth and back, and repeating them changes nothing."""

import asyncio
import re
from pathlib import Path

import pytest
from yoyo import get_backend

from tests.architecture.repository import MIGRATIONS, ROOT
from tests.architecture.schema_md import present_schema
from tests.support.database import Databases, DatabaseUrls, connected
from tidemill.chassis import migrate as chassis
from tidemill.shared.catalog import Service

NUMBERED = sorted(file for file in MIGRATIONS.glob("*/[0-9]*.sql") if not file.name.endswith(".rollback.sql"))


@pytest.mark.parametrize("migration", NUMBERED, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_migration_has_a_way_back(migration: Path) -> None:
    assert migration.with_suffix(".rollback.sql").is_file()


def test_every_schema_has_its_migrations_and_its_interface() -> None:
    assert {folder.name for folder in MIGRATIONS.iterdir() if folder.is_dir()} == set(chassis.SCHEMAS)
    for schema in chassis.SCHEMAS:
        assert (MIGRATIONS / schema / "interface.sql").is_file()


async def test_all_migrations_can_be_taken_back_and_applied_again(databases: Databases) -> None:
    urls = await databases.migrated("tidemill_back_and_forth")
    before = await described(urls)
    await asyncio.to_thread(roll_back, urls)
    async with connected(urls.admin) as admin:
        left = await admin.fetchval(
            "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace::regnamespace::text = ANY ($1)",
            list(chassis.SCHEMAS),
        )
        # What was applied whole is applied again only when it is not known to be there.
        await admin.execute("DELETE FROM public.tidemill_applied")
    assert left == 0
    await migrate_again(urls)
    assert await described(urls) == before


async def test_migrating_again_changes_nothing_and_is_harmless_twice_at_once(own_database_urls: DatabaseUrls) -> None:
    before = await described(own_database_urls)
    said = await asyncio.gather(*(migrate_again(own_database_urls) for _ in range(2)))
    assert said == [[], []]
    assert await described(own_database_urls) == before


def roll_back(urls: DatabaseUrls) -> None:
    backend = get_backend(urls.migrator.replace("postgresql://", "postgresql+psycopg://", 1))
    with backend.lock():
        backend.rollback_migrations(backend.to_rollback(chassis._numbered(MIGRATIONS)))
    backend.connection.close()


async def migrate_again(urls: DatabaseUrls) -> list[str]:
    """Migrate and return what was said to have been done; no password is touched."""
    said: list[str] = []
    await asyncio.to_thread(chassis.migrate, urls.migrator, dict[Service, str](), said.append)
    return said


async def described(urls: DatabaseUrls) -> str:
    async with connected(urls.admin) as admin:
        return await present_schema(admin, MIGRATIONS)


NEWER_THAN_15 = (
    "any_value|array_reverse|array_sample|array_shuffle|array_sort|casefold|crc32|crc32c|date_add|date_subtract"
    "|erf|erfc|gamma|json_array|json_exists|json_object|json_query|json_scalar|json_serialize|json_table|json_value"
    "|lgamma|pg_input_error_info|pg_input_is_valid|random_normal|to_bin|to_oct|unicode_assigned|uuid_extract_timestamp"
    "|uuid_extract_version|uuidv4|uuidv7|xmltext"
)


def test_no_statement_calls_a_function_that_postgres_15_does_not_have() -> None:
    # The suite runs on the embedded server, which is newer than the oldest one that we support.
    call = re.compile(rf"(?<![\w.])({NEWER_THAN_15})\s*\(", re.IGNORECASE)
    found = [
        f"{file.relative_to(ROOT)}: {match[1]}"
        for folder in ("migrations", "services")
        for file in ROOT.joinpath(folder).rglob("*.sql")
        for match in call.finditer(re.sub(r"--.*", "", file.read_text(encoding="utf-8")))
    ]
    assert found == []
