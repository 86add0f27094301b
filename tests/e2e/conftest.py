"""A running Tidemill of each shape for the whole session, started by the command that a new user types."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.installation import SHAPES, Installation, Shape, installation


@pytest_asyncio.fixture(scope="module", params=SHAPES)
async def tidemill(request: pytest.FixtureRequest) -> AsyncIterator[Installation]:
    shape: Shape = request.param
    async with installation(shape) as running:
        yield running
