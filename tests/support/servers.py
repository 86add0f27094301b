"""The real servers that tests run against: one private Postgres and one private RabbitMQ node for a whole test session.

Wrap them into session fixtures, or use them by hand; each has its own temporary folder and leaves nothing behind.
"""

import asyncio
import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tidemill.allinone.postgres import PostgresAddress, embedded_postgres
from tidemill.allinone.rabbitmq import RabbitMqNode

Server = TypeVar("Server")


@asynccontextmanager
async def postgres_server() -> AsyncIterator[PostgresAddress]:
    """Run a new, empty Postgres; `.admin` are keyword arguments of `asyncpg.connect`, `.migrator_dsn` is a URL."""
    with temporary_home() as home:
        async with embedded_postgres(home) as address:
            yield address


@contextmanager
def postgres_server_in_a_thread() -> Iterator[PostgresAddress]:
    """Run a new, empty Postgres for tests that have no event loop of their own."""
    with in_a_thread(postgres_server()) as address:
        yield address


@dataclass(frozen=True)
class Rabbit:
    """A broker for tests; `node` is None when it is somebody else's, who must not be stopped."""

    url: str
    node: RabbitMqNode | None


@asynccontextmanager
async def rabbit_node() -> AsyncIterator[Rabbit]:
    """Run a new, empty RabbitMQ node, or use TIDEMILL_AMQP_URL; raise RabbitMqNotFound when there is neither."""
    if url := os.environ.get("TIDEMILL_AMQP_URL"):
        yield Rabbit(url, None)
        return
    with temporary_home() as home:
        node = RabbitMqNode(home)
        try:
            yield Rabbit(await node.start(), node)
        finally:
            await node.stop()


@contextmanager
def rabbit_node_in_a_thread() -> Iterator[Rabbit]:
    """Run a new, empty RabbitMQ node for tests that have no event loop of their own."""
    with in_a_thread(rabbit_node()) as rabbit:
        yield rabbit


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Return a data folder with a short name, because the path of a Unix socket is limited to 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="tidemill-test-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def in_a_thread(server: AbstractAsyncContextManager[Server]) -> Iterator[Server]:
    """Keep an asynchronous context open in a thread that lives exactly as long as the server does."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers", daemon=True)
    thread.start()
    done = asyncio.Event()
    entered: asyncio.Future[Server] = loop.create_future()

    async def hold() -> None:
        try:
            async with server as value:
                entered.set_result(value)
                await done.wait()
        except BaseException as error:
            if entered.done():
                raise
            entered.set_exception(error)

    # Entered and left by one task, so that time-outs and cancellations inside the context work.
    holder = asyncio.run_coroutine_threadsafe(hold(), loop)
    try:
        yield asyncio.run_coroutine_threadsafe(asyncio.wait_for(entered, 120), loop).result()
    finally:
        loop.call_soon_threadsafe(done.set)
        holder.result(120)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
