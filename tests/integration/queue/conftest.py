"""The queue over a real Postgres, empty at the start of each test."""

from collections.abc import AsyncIterator

import pytest

from tests.support.database import DatabaseUrls
from tests.support.queue import Queue, queue_of


@pytest.fixture(scope="module")
async def logged_in(database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    """The queue of this module's database."""
    async with queue_of(database_urls) as queue:
        yield queue


@pytest.fixture
async def queue(logged_in: Queue) -> Queue:
    """The queue, empty, with one worker that serves python3."""
    await logged_in.empty()
    await logged_in.start_worker()
    await logged_in.look.execute("DELETE FROM bus.outbox")
    return logged_in
