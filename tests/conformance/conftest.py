"""A private RabbitMQ node for the whole session."""

from collections.abc import AsyncIterator

import pytest

from tests.support.servers import Rabbit, rabbit_node
from tidemill.allinone.rabbitmq import RabbitMqNotFound


@pytest.fixture(scope="session")
async def rabbit() -> AsyncIterator[Rabbit]:
    try:
        async with rabbit_node() as node:
            yield node
    except RabbitMqNotFound as missing:
        pytest.skip(str(missing))
