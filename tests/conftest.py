"""What all tests have in common: one real Postgres and one real RabbitMQ a session, and a database of one's own.

    async def test_something(database_urls): ...        # a database that this test's module shares
    async def test_another(own_database_urls): ...      # a database that nobody else sees

Both are copies of one migrated template. The keys of what you get are services: `database_urls[Service.API]`.
"""

import secrets
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.support.database import Databases, DatabaseUrls
from tests.support.servers import Rabbit, postgres_server, rabbit_node
from tidemill.allinone.postgres import PostgresAddress
from tidemill.allinone.rabbitmq import RabbitMqNotFound


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes more than five seconds; leave out with -m 'not slow'")


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[PostgresAddress]:
    """A Postgres server for the whole session."""
    async with postgres_server() as address:
        yield address


@pytest.fixture(scope="session")
async def databases(postgres: PostgresAddress) -> Databases:
    """The maker of databases, its template ready."""
    databases = Databases(postgres, secrets.token_hex(16))
    await databases.prepare_template()
    return databases


@pytest.fixture(scope="module")
async def database_urls(databases: Databases) -> AsyncIterator[DatabaseUrls]:
    """A migrated database for the tests of one module."""
    async with databases.copy() as urls:
        yield urls


@pytest.fixture
async def own_database_urls(databases: Databases) -> AsyncIterator[DatabaseUrls]:
    """A migrated database for one test."""
    async with databases.copy() as urls:
        yield urls


@pytest.fixture(scope="session")
async def rabbit() -> AsyncIterator[Rabbit]:
    """A RabbitMQ node for the whole session; without one, the tests that want it are left out."""
    try:
        async with rabbit_node() as node:
            yield node
    except RabbitMqNotFound as missing:
        pytest.skip(str(missing))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what was left out and why, so that a green run doesn't claim more than it has shown."""
    reasons = Counter(_reason(report) for report in terminalreporter.getreports("skipped"))
    if reasons:
        terminalreporter.section("left out")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}")


def _reason(report: pytest.TestReport) -> str:
    return report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
