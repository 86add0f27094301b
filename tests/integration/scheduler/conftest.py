"""A scheduler on a database of its own, and flows on it."""

from collections.abc import AsyncIterator

import pytest

from tests.support.database import DatabaseUrls
from tests.support.flows import Stage, stage_on
from tests.support.queue import queue_of
from tests.support.services import running
from tidemill.scheduler.service import SERVICE


@pytest.fixture(scope="module")
async def stage(database_urls: DatabaseUrls) -> AsyncIterator[Stage]:
    """A scheduler and a worker for the flows of one module."""
    async with (
        queue_of(database_urls) as queue,
        running(database_urls, SERVICE) as broker,
        stage_on(queue, broker) as stage,
    ):
        yield stage
