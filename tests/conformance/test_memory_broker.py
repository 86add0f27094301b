"""The memory adapter keeps the promises of the port."""

from collections.abc import AsyncIterator

import pytest

from tests.conformance.broker_suite import BrokerSuite
from tidemill.chassis.memory import MemoryBroker


@pytest.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    async with MemoryBroker() as memory:
        yield memory


@pytest.fixture
def neighbour(broker: MemoryBroker) -> MemoryBroker:
    """Another service of the same process: there is only one memory broker in it."""
    return broker


class TestMemoryBroker(BrokerSuite):
    pass
