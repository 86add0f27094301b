"""`tidemill up`: a whole installation on this machine, from an empty folder to a URL, until Ctrl-C.

    data folder > Postgres > (RabbitMQ) > migrations > services

What is entered later is left earlier. An address in the environment (TIDEMILL_DATABASE_URL, TIDEMILL_AMQP_URL) takes
the place of a server of our own. Each service logs in as itself, in either shape: its rights are the same everywhere.
"""

import argparse
import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from enum import StrEnum
from pathlib import Path

from tidemill.allinone.daemon import Say
from tidemill.allinone.foreign import refuse_unreachable_broker
from tidemill.allinone.home import opened
from tidemill.allinone.logins import service_passwords, service_urls
from tidemill.allinone.postgres import embedded_postgres
from tidemill.allinone.rabbitmq import private_rabbitmq
from tidemill.allinone.services import as_processes, in_one_process
from tidemill.api.bootstrap import PASSWORD_FILE
from tidemill.api.settings import ApiSettings
from tidemill.chassis.cli import Command
from tidemill.chassis.commands import setting_kinds
from tidemill.chassis.errors import StartRefused
from tidemill.chassis.migrate import migrate
from tidemill.chassis.settings import ChassisSettings, read, refuse_unknown, variable
from tidemill.shared.catalog import Service

EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what a user may have set, not what we choose


class Shape(StrEnum):
    """How the services run."""

    ALL_IN_ONE = "all-in-one"
    DISTRIBUTED = "distributed"


async def up(shape: Shape, environ: Mapping[str, str], say: Say) -> None:
    """Start everything, say where it is, and keep it running until cancelled."""
    kinds = setting_kinds()
    refuse_unknown(kinds, environ)
    for kind in kinds:
        # Every service would refuse a wrong one itself, but only after the servers have been started for it.
        read(kind, environ)
    settings, api = read(ChassisSettings, environ), read(ApiSettings, environ)
    refuse_taken_port(api.bind, api.port)
    async with AsyncExitStack() as stack:
        home = stack.enter_context(opened(settings.home))
        migrator_url = settings.migrator_database_url or settings.database_url
        if migrator_url is None:
            migrator_url = (await stack.enter_async_context(embedded_postgres(home, say))).migrator_dsn
        amqp_urls: Mapping[Service, str] = {}
        if shape is Shape.DISTRIBUTED:
            amqp_urls = await foreign_rabbitmq(settings, say)
            if not amqp_urls:
                node = await stack.enter_async_context(private_rabbitmq(home, say, settings.queue_type))
                amqp_urls = {service: node.url_of(service) for service in Service}

        urls = {
            service: environ.get(variable(f"{service}_database_url")) or derived
            for service, derived in service_urls(migrator_url).items()
        }
        await asyncio.to_thread(migrate, migrator_url, service_passwords(urls), say)
        say("✓ database migrated")

        of_services = {
            variable("api_url"): local_url(api),
            variable("base_url"): api.public_url,
            variable("log_format"): "text",
            **environ,
            variable("home"): str(home),
            **{variable(f"{service}_database_url"): url for service, url in urls.items()},
            **{variable(f"{service}_amqp_url"): url for service, url in amqp_urls.items()},
        }
        run_services = in_one_process if shape is Shape.ALL_IN_ONE else as_processes
        try:
            await run_services(of_services, lambda: greet(api, home, say), say)
        except* StartRefused as several:
            raise next(leaves(several)) from None


async def foreign_rabbitmq(settings: ChassisSettings, say: Say) -> Mapping[Service, str]:
    """Return the logins at a RabbitMQ that somebody else runs, each tried once; nothing when none is set."""
    if all(getattr(settings, field) is None for field in ("amqp_url", *(f"{each}_amqp_url" for each in Service))):
        return {}
    urls = {service: settings.amqp_url_of(service) for service in Service}
    for url in dict.fromkeys(urls.values()):
        named = next(service for service in Service if urls[service] == url)
        field = "amqp_url" if url == settings.amqp_url else f"{named}_amqp_url"
        await refuse_unreachable_broker(url, variable(field), say)
    return urls


def refuse_taken_port(address: str, port: int) -> None:
    """Raise StartRefused when somebody listens already; said here once, before anything is started."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise StartRefused(
                f"port {port} of {address} cannot be used ({error.strerror}); set {variable('port')} to another one, "
                "say `make up PORT=8001`"
            ) from error


def local_url(api: ApiSettings) -> str:
    """Return the address by which jobs on this machine reach the api."""
    host = "localhost" if api.bind in EVERYWHERE else api.bind
    return f"http://[{host}]:{api.port}" if ":" in host else f"http://{host}:{api.port}"


def greet(api: ApiSettings, home: Path, say: Say) -> None:
    """Say where Tidemill is and how its first admin logs in."""
    file = home / PASSWORD_FILE
    if file.exists():
        login = f"password {file.read_text().strip()} (kept in {file})"
    elif api.admin_password is not None:
        login = f"with the password of {variable('admin_password')}"
    else:
        login = "with the password that was chosen at the first start"
    say(f"\nTidemill is at {api.public_url}\n  login {api.admin_email}, {login}\n  Ctrl-C stops it\n")


def leaves(group: BaseExceptionGroup[StartRefused]) -> Iterator[StartRefused]:
    """Return the refusals in a group and in the groups within it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


@asynccontextmanager
async def cancelled_by_signals() -> AsyncIterator[None]:
    """Cancel the block at the first SIGINT or SIGTERM and leave quietly; a second one ends us at once."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        task.cancel()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, stop)
    try:
        yield
    except asyncio.CancelledError:
        if not stopping:
            raise


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped, which is no failure."""

    async def until_stopped() -> None:
        async with cancelled_by_signals():
            await up(Shape(arguments.shape), os.environ, say)

    asyncio.run(until_stopped())
    say("stopped")
    return 0


def say(line: str) -> None:
    """Show a line of progress at once; nobody may be reading any more, which must not keep us from stopping."""
    with suppress(BrokenPipeError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `tidemill up`."""
    parser.add_argument(
        "--shape",
        choices=[shape.value for shape in Shape],
        default=Shape.ALL_IN_ONE.value,
        help="all services in one process, or one process each with RabbitMQ between them (default: %(default)s)",
    )


command = Command(name="up", help="run a whole installation on this machine", run=run, configure=configure)
