"""A service's life, by nesting: what is entered later is left earlier, so the order of start and stop can be read.

    telemetry > database > broker > outbox > the service's own parts > health

The same `ServiceSpec` runs as a process of its own (`python -m tidemill.worker`) or beside others in one process.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import msgspec

from tidemill.chassis.broker import Broker
from tidemill.chassis.clock import Clock, SystemClock
from tidemill.chassis.database import Database
from tidemill.chassis.ending import end
from tidemill.chassis.errors import DatabaseUnavailable, StartRefused
from tidemill.chassis.extensions import load
from tidemill.chassis.health import Health, serve_health
from tidemill.chassis.outbox import Outbox
from tidemill.chassis.rabbit import RabbitBroker
from tidemill.chassis.settings import ChassisSettings, read
from tidemill.chassis.telemetry import configure_logging, telemetry
from tidemill.shared.catalog import Service

log = logging.getLogger(__name__)
S = TypeVar("S", bound=msgspec.Struct)

GROUP = "tidemill.services"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a service stands on."""

    settings: ChassisSettings
    environ: Mapping[str, str]
    database: Database
    broker: Broker
    outbox: Outbox
    health: Health
    clock: Clock

    def read(self, kind: type[S]) -> S:
        """Return a service's own settings."""
        return read(kind, self.environ)


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """A service as the frame knows it."""

    name: Service
    settings: type[msgspec.Struct]
    open: Callable[[Frame], AbstractAsyncContextManager[None]]
    """Start the service's parts; they stop when the context is left."""


@asynccontextmanager
async def background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the block and end them with it; one that fails is a bug and ends the block.

    What the block itself raises comes out as it is, not in a group: callers catch it by its kind.
    """
    raised: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in work]
            try:
                yield
            except BaseException as error:
                raised = error
                raise
            await end(*tasks)
    except BaseExceptionGroup as several:
        if raised is not None and list(several.exceptions) == [raised]:
            raise raised from None
        raise


@asynccontextmanager
async def standing(
    spec: ServiceSpec, settings: ChassisSettings, environ: Mapping[str, str], broker: Broker, health: Health
) -> AsyncIterator[None]:
    """Run one service for the block, on a broker that stands already; `health` belongs to the process."""
    async with Database(
        settings.database_url_of(spec.name), name=spec.name, connections=settings.database_connections
    ) as database:
        await database.wait_until_reachable()
        await _refuse_unmigrated(database)
        health.check(f"{spec.name} postgres", _answers(database))
        health.check(f"{spec.name} broker", _connected(broker))
        outbox = Outbox(database, broker)
        async with background(outbox.run()):
            frame = Frame(
                settings=settings,
                environ=environ,
                database=database,
                broker=broker,
                outbox=outbox,
                health=health,
                clock=SystemClock(),
            )
            async with spec.open(frame), _extended(spec.name, frame):
                yield
            await outbox.drain()


@dataclass(frozen=True, kw_only=True)
class Extension:
    """A part that somebody else adds to a service, found in the entry-point group `tidemill.<service>.extensions`."""

    open: Callable[[Frame], AbstractAsyncContextManager[None]]
    """Start the part on the service's own frame; it stops when the context is left, before the service does."""


@asynccontextmanager
async def _extended(service: Service, frame: Frame) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for extension in load(f"tidemill.{service}.extensions", Extension):
            await stack.enter_async_context(extension.open(frame))
        yield


async def serve(spec: ServiceSpec, environ: Mapping[str, str]) -> None:
    """Run one service as this process until SIGTERM or SIGINT."""
    settings = read(ChassisSettings, environ)
    configure_logging(spec.name, settings.log_level, settings.log_format)
    amqp_url = settings.amqp_url_of(spec.name)
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        stack.enter_context(telemetry(spec.name))
        broker = await stack.enter_async_context(
            RabbitBroker(amqp_url, name=f"tidemill-{spec.name}", queue_type=settings.queue_type)
        )
        health = Health()
        await stack.enter_async_context(standing(spec, settings, environ, broker, health))
        if settings.health_port:
            await stack.enter_async_context(serve_health(health, settings.health_bind, settings.health_port))
        log.info("ready", extra={"service": spec.name})
        await stop.wait()
        log.info("stopping", extra={"service": spec.name})


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    return stop


def main(spec: ServiceSpec) -> None:
    """Run one service as this process; a refused start is one line and exit code 2."""
    try:
        asyncio.run(serve(spec, os.environ))
    except StartRefused as refused:
        sys.exit(_say(f"tidemill-{spec.name}: {refused}"))


def _say(line: str) -> int:
    sys.stderr.write(line + "\n")
    return 2


async def _refuse_unmigrated(database: Database) -> None:
    if await database.fetchval("SELECT to_regnamespace('bus') IS NULL"):
        raise StartRefused("the database has no Tidemill schemas: run `tidemill migrate` first")


def _answers(database: Database) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def check() -> bool:
        try:
            await database.wait_until_reachable(timedelta(0))
        except DatabaseUnavailable:
            return False
        return True

    return check


def _connected(broker: Broker) -> Callable[[], Coroutine[Any, Any, bool]]:
    async def check() -> bool:
        return broker.connected

    return check
