"""Databases for tests: one migrated template a session, and a copy of it for every test that wants its own."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import asyncpg

from tidemill.allinone.postgres import MIGRATOR, PostgresAddress
from tidemill.chassis.migrate import migrate
from tidemill.shared.catalog import Service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class DatabaseUrls(Mapping[Service, str]):
    """One database, seen from each login: `urls[Service.API]`, `urls.migrator`, and `urls.admin` for repairs."""

    name: str
    migrator: str = field(repr=False)
    admin: str = field(repr=False)
    services: Mapping[Service, str] = field(repr=False)

    def __getitem__(self, service: Service) -> str:
        return self.services[service]

    def __iter__(self) -> Iterator[Service]:
        return iter(self.services)

    def __len__(self) -> int:
        return len(self.services)


class Databases:
    """Makes databases on one server; every service has the same password in all of them."""

    def __init__(self, address: PostgresAddress, password: str) -> None:
        self._address = address
        self._password = password
        self._template: str | None = None

    async def migrated(self, name: str) -> DatabaseUrls:
        """Return a new database that the migrations have built from nothing."""
        urls = await self.empty(name)
        await asyncio.to_thread(migrate, urls.migrator, dict.fromkeys(Service, self._password), lambda _: None)
        return urls

    async def empty(self, name: str) -> DatabaseUrls:
        """Return a new database without any schema of ours."""
        await self._as_admin(f'CREATE DATABASE "{name}" OWNER {MIGRATOR}')
        return self._urls(name)

    async def prepare_template(self) -> None:
        """Build the database that `copy` copies; nobody may connect to it from now on, or it could not be copied."""
        name = (await self.migrated("tidemill_template")).name
        await self._as_admin(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await self._as_admin(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'")
        self._template = name

    @asynccontextmanager
    async def copy(self) -> AsyncIterator[DatabaseUrls]:
        """Make a copy of the template for the block and drop it at the end, even when it is still in use."""
        name = f"tidemill_test_{next(_numbers)}"
        await self._as_admin(f'CREATE DATABASE "{name}" TEMPLATE "{self._template}" OWNER {MIGRATOR}')
        try:
            yield self._urls(name)
        finally:
            await self._as_admin(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _urls(self, name: str) -> DatabaseUrls:
        address = self._address
        return DatabaseUrls(
            name=name,
            migrator=address.dsn(MIGRATOR, address.migrator_password, name),
            admin=address.dsn(address.admin["user"], address.superuser_password, name),
            services={each: address.dsn(f"tidemill_{each}", self._password, name) for each in Service},
        )

    async def _as_admin(self, statement: str) -> None:
        connection = await asyncpg.connect(**self._address.admin)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Open one connection for the block."""
    connection: Connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)
