"""The database as services see it: outages by their own name, everything else as it is."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import pytest

from tests.support.database import DatabaseUrls
from tidemill.chassis.database import Database, repeated
from tidemill.chassis.errors import DatabaseUnavailable, StartRefused
from tidemill.shared.catalog import Service


@pytest.fixture
async def database(database_urls: DatabaseUrls) -> AsyncIterator[Database]:
    async with Database(database_urls[Service.SCHEDULER], name="scheduler") as database:
        yield database


async def end_all_connections(urls: DatabaseUrls) -> None:
    admin = await asyncpg.connect(urls.admin)
    try:
        await admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE usename = 'tidemill_scheduler' AND datname = current_database()"
        )
    finally:
        await admin.close()


async def test_a_connection_that_breaks_is_an_outage_and_the_next_statement_gets_a_new_one(
    database: Database, database_urls: DatabaseUrls
) -> None:
    async def break_it() -> None:
        async with database.transaction() as tx:
            await tx.execute("SELECT 1")
            await end_all_connections(database_urls)
            await tx.execute("SELECT 2")

    with pytest.raises(DatabaseUnavailable):
        await break_it()
    assert database.reachable_for == timedelta(0)
    assert await database.fetchval("SELECT 3") == 3
    assert database.reachable_for > timedelta(0)


async def test_of_two_transactions_that_wait_for_each_other_both_are_done_in_the_end(database: Database) -> None:
    both_hold = asyncio.Barrier(2)
    begun: list[int] = []

    async def lock(first: int, second: int) -> int:
        begun.append(first)
        async with database.transaction() as tx:
            await tx.execute("SELECT pg_advisory_xact_lock($1)", first)
            if len(begun) <= 2:
                async with asyncio.timeout(20):
                    await both_hold.wait()
            await tx.execute("SELECT pg_advisory_xact_lock($1)", second)
        return first

    done = await asyncio.gather(repeated(lambda: lock(80_001, 80_002)), repeated(lambda: lock(80_002, 80_001)))
    assert list(done) == [80_001, 80_002]
    assert len(begun) > 2


async def test_however_a_connection_is_ended_it_is_an_outage(database: Database, database_urls: DatabaseUrls) -> None:
    """The farewell of a server that is shut down comes at any moment, also between two steps of one statement."""
    answered = broken = 0
    done = asyncio.Event()

    async def keep_asking() -> None:
        nonlocal answered, broken
        while not done.is_set():
            try:
                await database.fetchval("SELECT count(*) FROM pg_class WHERE relname <> $1", "x")
                answered += 1
            except DatabaseUnavailable:
                broken += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(keep_asking())
        for _ in range(6):
            await end_all_connections(database_urls)
        done.set()
    assert answered
    assert broken
    assert await database.fetchval("SELECT 3") == 3


async def test_what_the_block_of_a_transaction_raises_is_no_outage(database: Database) -> None:
    async def lose_a_file() -> None:
        async with database.transaction():
            raise FileNotFoundError("a file of the block")

    with pytest.raises(FileNotFoundError):
        await lose_a_file()


async def test_a_wrong_number_of_arguments_is_a_mistake_and_no_outage(database: Database) -> None:
    with pytest.raises(asyncpg.InterfaceError):
        await database.fetchval("SELECT $1::int")


async def test_nobody_listening_is_an_outage() -> None:
    async with Database("postgresql://nobody:x@127.0.0.1:1/none", name="api") as nowhere:
        with pytest.raises(DatabaseUnavailable):
            await nowhere.fetchval("SELECT 1")
        with pytest.raises(DatabaseUnavailable):
            await nowhere.wait_until_reachable(timedelta(0))


async def test_a_refused_login_refuses_the_start(database_urls: DatabaseUrls) -> None:
    url = database_urls[Service.SCHEDULER].replace("tidemill_scheduler:", "tidemill_scheduler:wrong")
    async with Database(url, name="scheduler") as database:
        with pytest.raises(StartRefused, match="Postgres refuses the login of scheduler"):
            await database.wait_until_reachable()
