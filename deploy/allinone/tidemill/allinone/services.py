"""The two ways to run the services: beside each other in this process, or as one process each under a supervisor.

Both take the environment that the services shall see, call `announce` once everything answers, and run until cancelled.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

from tidemill.allinone.daemon import Say
from tidemill.allinone.supervise import Command, supervise
from tidemill.api.settings import ApiSettings
from tidemill.chassis.extensions import load
from tidemill.chassis.health import Health, serve_health
from tidemill.chassis.memory import MemoryBroker
from tidemill.chassis.service import GROUP, ServiceSpec, standing
from tidemill.chassis.settings import ChassisSettings, read, variable
from tidemill.chassis.telemetry import configure_logging, telemetry
from tidemill.shared.catalog import Service

# Who hears is there before who speaks, and is still there when the other one says its last word.
ORDER = (Service.AUDIT, Service.SCHEDULER, Service.WORKER, Service.API)
GRACE = timedelta(seconds=30)  # longer than a worker's drain


async def in_one_process(environ: Mapping[str, str], announce: Callable[[], None], say: Say) -> None:  # noqa: ARG001
    """Run all services in this event loop with the memory broker between them."""
    settings = read(ChassisSettings, environ)
    configure_logging("all-in-one", settings.log_level, settings.log_format)
    async with AsyncExitStack() as stack:
        stack.enter_context(telemetry("all-in-one", environ))
        health = Health()
        broker = await stack.enter_async_context(MemoryBroker())
        if settings.health_port:
            await stack.enter_async_context(serve_health(health, settings.health_bind, settings.health_port))
        for spec in sorted(load(GROUP, ServiceSpec), key=lambda spec: ORDER.index(spec.name)):
            await stack.enter_async_context(standing(spec, settings, environ, broker, health))
        announce()
        # Being cancelled is the order to stop, not an error: what stands in the stack ends in peace.
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def as_processes(environ: Mapping[str, str], announce: Callable[[], None], say: Say) -> None:
    """Run each service as a process of its own and start again what dies."""
    commands = [
        Command(service.value, (sys.executable, "-m", f"tidemill.{service.value}"), environment_of(service, environ))
        for service in ORDER
    ]
    api = read(ApiSettings, environ)
    async with asyncio.TaskGroup() as group:
        group.create_task(supervise(commands, say, grace=GRACE))
        await _until_somebody_listens(api.bind, api.port)
        announce()


def environment_of(service: Service, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what this service may know: its own login and nobody else's, and a health port of its own."""
    private = {variable("database_url"), variable("migrator_database_url")}
    for other in Service:
        if other is not service:
            private |= {variable(f"{other}_database_url"), variable(f"{other}_amqp_url")}
    if variable(f"{service}_amqp_url") in environ:
        private.add(variable("amqp_url"))
    if service is not Service.API:
        private.add(variable("admin_password"))
    own = {name: value for name, value in environ.items() if name not in private}
    port = read(ChassisSettings, environ).health_port
    if port:
        own[variable("health_port")] = str(port + list(Service).index(service))
    return own


async def _until_somebody_listens(address: str, port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(address, port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
