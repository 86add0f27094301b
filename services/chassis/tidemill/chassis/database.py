"""Postgres as the services see it: a pool that survives every outage, and transactions one can see.

A single statement that ends in a deadlock or a serialization failure is repeated here, with jitter, because nothing of
it was done; so is a transaction that is run through `repeated`. A connection that breaks raises DatabaseUnavailable:
whether the statement was done is then unknown, and only the caller's key (job id, claim key, event id) makes the
repetition harmless.
"""

from __future__ import annotations  # the driver's classes are generic only for the type checker

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import asyncpg
from asyncpg import PostgresError
from asyncpg.exceptions import (
    AdminShutdownError,
    CannotConnectNowError,
    ConnectionDoesNotExistError,
    CrashShutdownError,
    DeadlockDetectedError,
    InterfaceError,
    InternalClientError,
    InvalidAuthorizationSpecificationError,
    InvalidPasswordError,
    SerializationError,
    TooManyConnectionsError,
)
from asyncpg.pool import PoolConnectionProxy

from tidemill.chassis.backoff import delays
from tidemill.chassis.errors import DatabaseUnavailable, StartRefused

log = logging.getLogger(__name__)

SUPPORTED = range(15, 19)
REPEATABLE = (DeadlockDetectedError, SerializationError)
"""What Postgres ends a transaction with that stood in the way of others."""
_BROKEN = (
    AdminShutdownError,
    CannotConnectNowError,
    ConnectionDoesNotExistError,
    CrashShutdownError,
    InternalClientError,  # what the driver says when the server's farewell comes between two of its own steps
    OSError,
    TimeoutError,
    TooManyConnectionsError,
)
_PASSING = ("08", "40", "53", "57", "58")
"""Classes of errors that hang on the moment, not on the statement."""
_REFUSED = (InvalidAuthorizationSpecificationError, InvalidPasswordError)
_TRIES = 6
_FIRST_PAUSE = timedelta(milliseconds=100)
_LONGEST_PAUSE = timedelta(seconds=3)
R = TypeVar("R")


class Executor(Protocol):
    """What runs statements: the database itself, each in its own transaction, or one open transaction."""

    async def fetch(self, query: str, *values: Any) -> list[asyncpg.Record]: ...
    async def fetchrow(self, query: str, *values: Any) -> asyncpg.Record | None: ...
    async def fetchval(self, query: str, *values: Any) -> Any: ...
    async def execute(self, query: str, *values: Any) -> None: ...


class Transaction:
    """One open transaction; what it wrote is there for others only after its block has ended well."""

    def __init__(self, connection: PoolConnectionProxy[asyncpg.Record], lost: Callable[[], None]) -> None:
        self.connection = connection
        self.lost = lost

    async def fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        with _Translated(self.lost):
            return await self.connection.fetch(query, *values)

    async def fetchrow(self, query: str, *values: Any) -> asyncpg.Record | None:
        with _Translated(self.lost):
            return await self.connection.fetchrow(query, *values)

    async def fetchval(self, query: str, *values: Any) -> Any:
        with _Translated(self.lost):
            return await self.connection.fetchval(query, *values)

    async def execute(self, query: str, *values: Any) -> None:
        with _Translated(self.lost):
            await self.connection.execute(query, *values)


class Database:
    """A pool of connections under one service's login."""

    def __init__(
        self, url: str, *, name: str, connections: int = 10, timeout: timedelta = timedelta(seconds=30)
    ) -> None:
        self._name = name
        self._timeout = timeout.total_seconds()
        self._reachable_since: float | None = None
        self._pool = asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections,
            command_timeout=self._timeout,
            timeout=5,
            init=self._greet,
            # Nothing of ours sets session state, so the round trip that asyncpg spends on undoing it is saved.
            reset=_leave_as_is,
            server_settings={"application_name": f"tidemill-{name}"},
        )

    async def __aenter__(self) -> Database:
        self._pool = await self._pool
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.wait_for(self._pool.close(), 5)
        except TimeoutError:
            self._pool.terminate()

    @property
    def reachable_for(self) -> timedelta:
        """For how long statements have been answered without an outage; zero while there is one."""
        if self._reachable_since is None:
            return timedelta(0)
        return timedelta(seconds=time.monotonic() - self._reachable_since)

    async def wait_until_reachable(self, patience: timedelta | None = None) -> None:
        """Return once a statement was answered, trying for ever or until patience ends with DatabaseUnavailable.

        Raises StartRefused for what waiting can't mend: a version outside 15 to 18, a login that is refused.
        """
        until = None if patience is None else time.monotonic() + patience.total_seconds()
        for delay in delays(_FIRST_PAUSE, _LONGEST_PAUSE, random.Random()):  # noqa: S311 - jitter, not a secret
            try:
                await self.fetchval("SELECT 1")
            except DatabaseUnavailable as error:
                if until is not None and time.monotonic() > until:
                    raise
                log.warning("waiting for postgres", extra={"error": str(error)})
                await asyncio.sleep(delay.total_seconds())
            except _REFUSED as error:
                raise StartRefused(f"Postgres refuses the login of {self._name}: {error}") from error
            else:
                return

    async def fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        return await self._repeat(lambda pool: pool.fetch(query, *values))

    async def fetchrow(self, query: str, *values: Any) -> asyncpg.Record | None:
        return await self._repeat(lambda pool: pool.fetchrow(query, *values))

    async def fetchval(self, query: str, *values: Any) -> Any:
        return await self._repeat(lambda pool: pool.fetchval(query, *values))

    async def execute(self, query: str, *values: Any) -> None:
        await self._repeat(lambda pool: pool.execute(query, *values))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction for the block; committed at its end, undone when it raises.

        Only what the driver raises is translated, never what the block itself does.
        """
        with _Translated(self.lost):
            connection = await self._pool.acquire(timeout=self._timeout)
        try:
            transaction = connection.transaction()
            with _Translated(self.lost):
                await transaction.start()
            try:
                yield Transaction(connection, self.lost)
            except BaseException:
                # A connection that is gone has undone everything already.
                with suppress(InterfaceError, *_BROKEN):
                    await transaction.rollback()
                raise
            with _Translated(self.lost):
                await transaction.commit()
        finally:
            await self._pool.release(connection)

    async def _repeat(self, statement: Callable[[asyncpg.Pool[asyncpg.Record]], Awaitable[R]]) -> R:
        async def once() -> R:
            with _Translated(self.lost):
                return await statement(self._pool)

        answer = await repeated(once)
        if self._reachable_since is None:
            self._reachable_since = time.monotonic()
        return answer

    def lost(self) -> None:
        """Note that Postgres could not be reached just now."""
        self._reachable_since = None

    async def _greet(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        major = connection.get_server_version().major
        if major not in SUPPORTED:
            raise StartRefused(f"Postgres {major} is not supported: {SUPPORTED[0]} to {SUPPORTED[-1]} are")


async def repeated(work: Callable[[], Awaitable[R]]) -> R:
    """Do one transaction's work, again from its beginning when it stood in the way of others; at most six times."""
    for attempt in range(_TRIES - 1):
        try:
            return await work()
        except REPEATABLE:
            await asyncio.sleep(random.uniform(0.001, 0.02) * 2**attempt)  # noqa: S311 - jitter, not a secret
    return await work()


class _Translated:
    """Turn what the driver raises when the server is away into DatabaseUnavailable."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # InterfaceError is also what the driver raises for a wrong number of arguments: a mistake of ours, no outage.
        closed = isinstance(error, InterfaceError) and any(word in str(error) for word in ("clos", "released"))
        if closed or isinstance(error, _BROKEN):
            self._lost()
            raise DatabaseUnavailable(f"{type(error).__name__}: {error}") from error


async def _leave_as_is(_: asyncpg.Connection[asyncpg.Record]) -> None:
    return None


def sqlstate(error: PostgresError) -> str:
    """Return the five characters by which a function of ours, or Postgres, says what went wrong."""
    return str(error.sqlstate)


def passes(error: BaseException) -> bool:
    """Return whether the same may go well later: the server is away, is short of something or was told to stop."""
    if isinstance(error, PostgresError):
        return sqlstate(error)[:2] in _PASSING
    return isinstance(error, DatabaseUnavailable)
