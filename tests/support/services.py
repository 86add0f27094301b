"""Real services in this process: the same specs, a memory broker and a test's own database."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from tests.support.database import DatabaseUrls
from tidemill.chassis.broker import Broker
from tidemill.chassis.health import Health
from tidemill.chassis.memory import MemoryBroker
from tidemill.chassis.service import ServiceSpec, standing
from tidemill.chassis.settings import ChassisSettings, read


@asynccontextmanager
async def running(
    urls: DatabaseUrls,
    *specs: ServiceSpec,
    settings: Mapping[str, str] | None = None,
    broker: Broker | None = None,
) -> AsyncIterator[Broker]:
    """Run services for the block and give the broker between them."""
    environ = {f"TIDEMILL_{service.upper()}_DATABASE_URL": url for service, url in urls.items()} | dict(settings or {})
    between = broker or MemoryBroker()
    async with AsyncExitStack() as stack:
        for spec in specs:
            await stack.enter_async_context(standing(spec, read(ChassisSettings, environ), environ, between, Health()))
        yield between
