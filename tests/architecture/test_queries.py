"""Every named query is one that its own service may run: prepared and explained under the service's login.

Preparing alone checks no rights on tables; explaining the execution does, and runs nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.repository import ROOT
from tests.support.database import DatabaseUrls, connected
from tidemill.chassis.sql import parse
from tidemill.shared.catalog import Service


def named_queries() -> Iterator[tuple[Service, Path, str, str]]:
    for file in sorted((ROOT / "services").glob("*/tidemill/*/**/*.sql")):
        place = file.relative_to(ROOT / "services")
        for name, statement in parse(file.read_text(encoding="utf-8")).items():
            yield Service(place.parts[0].replace("-", "_")), Path(*place.parts[3:]), name, statement


QUERIES = list(named_queries())


@pytest.mark.parametrize(
    ("service", "statement"),
    [(service, statement) for service, _, _, statement in QUERIES],
    ids=[f"{service}/{file}:{name}" for service, file, name, _ in QUERIES],
)
async def test_a_query_fits_the_schema_and_the_rights_of_its_service(
    database_urls: DatabaseUrls, service: Service, statement: str
) -> None:
    async with connected(database_urls[service]) as connection:
        await connection.execute(f"PREPARE named AS {statement}")
        types = await connection.fetchval(
            "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'named'"
        )
        values = ", ".join(f"NULL::{each}" for each in types)
        await connection.execute(f"EXPLAIN EXECUTE named{f'({values})' if values else ''}")


def test_every_file_of_queries_has_names() -> None:
    found = {(service, file) for service, file, _, _ in QUERIES}
    assert len(found) == len(list((ROOT / "services").glob("*/tidemill/*/**/*.sql")))
