"""Run a RabbitMQ found on this machine as a private node of this installation.

    <home>/rabbitmq/ports.json   the ports, chosen once; a port that is taken meanwhile is replaced at the next start
    <home>/rabbitmq/data         queues and messages
    <home>/rabbitmq/server.conf  where it listens
    <home>/rabbitmq/definitions.json  loaded at each start: an operator, a user of each service with its least rights,
                                 salted hashes of their random passwords (0600); there is no `guest`
    <home>/log/rabbitmq/

The node, its distribution port and its own name server (epmd) listen on the loopback address only, and a random cookie
guards the distribution. All of it dies with us, even when we are killed (`PR_SET_PDEATHSIG`); what an earlier run may
have left behind is stopped before ours is started; and a node that dies while we live is started again.
"""

import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiormq
import msgspec

from tidemill.allinone.daemon import Daemon, Say, say_nothing
from tidemill.allinone.home import private_folder, secret
from tidemill.allinone.lifeline import child_setup, evict
from tidemill.allinone.logins import role_of
from tidemill.chassis.errors import StartRefused
from tidemill.chassis.rabbit import QueueType
from tidemill.chassis.rabbit.rights import OPERATOR, Login, definitions, rights_of
from tidemill.shared.catalog import Service

LOOPBACK = "127.0.0.1"
OPERATOR_NAME = "tidemill"
VHOST = "/"
NODE_NAME = "tidemill@localhost"
PACKAGED = "/usr/lib/rabbitmq/lib/*/sbin"  # Debian's and Red Hat's own command insists on the user `rabbitmq`
PROGRAMS = ("beam.smp", "epmd", "rabbitmq-server", "erl_child_setup")
START_WITHIN = timedelta(minutes=2)
STOP_WITHIN = timedelta(seconds=20)
CONFIG = """\
listeners.tcp.1 = {address}:{amqp}
load_definitions = {definitions}
log.file.level = info
log.console = false
"""


class RabbitMqNotFound(StartRefused):
    """There is no RabbitMQ on this machine and no address of another one."""

    def __init__(self) -> None:
        super().__init__(
            "no rabbitmq-server was found on this machine: install it (Debian, Ubuntu: `apt-get install "
            "rabbitmq-server`; Fedora: `dnf install rabbitmq-server`; macOS: `brew install rabbitmq`), or set "
            "TIDEMILL_AMQP_URL to a running RabbitMQ 3.10 ... 4.x"
        )


class Ports(msgspec.Struct, frozen=True):
    """The three ports of a private node."""

    amqp: int
    distribution: int
    epmd: int


@asynccontextmanager
async def private_rabbitmq(
    home: Path, say: Say = say_nothing, queue_type: QueueType = "classic"
) -> AsyncIterator["RabbitMqNode"]:
    """Start the node of this data folder, and stop it at the end."""
    node = RabbitMqNode(home, say, queue_type)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()


class RabbitMqNode:
    """The node of one data folder; may be stopped and started again at the same address with its messages."""

    def __init__(self, home: Path, say: Say = say_nothing, queue_type: QueueType = "classic") -> None:
        self._home = home.absolute()
        self._say = say
        self._queue_type = queue_type
        self._folder = self._home / "rabbitmq"
        self._log = self._home / "log" / "rabbitmq"
        self._programs = find_rabbitmq()
        self._ports: Ports | None = None
        self._epmd: Process | None = None
        self._daemon = Daemon(
            "RabbitMQ",
            self._spawn,
            self._wait_ready,
            say,
            stop_signal=signal.SIGTERM,
            start_within=START_WITHIN,
            stop_within=STOP_WITHIN,
        )

    @property
    def pid(self) -> int | None:
        """The process of the node, or None while there is none."""
        return self._daemon.pid

    @property
    def url(self) -> str:
        """The AMQP address of the operator, who may do everything; the ports are chosen at the first start."""
        return self._url_of(OPERATOR_NAME, self._secret_of("user"))

    def url_of(self, service: Service) -> str:
        """Return the AMQP address by which a service logs in with its least rights."""
        return self._url_of(role_of(service), self._secret_of(service))

    def _url_of(self, user: str, password: str) -> str:
        assert self._ports is not None, "the node has not been started yet"
        return f"amqp://{user}:{password}@{LOOPBACK}:{self._ports.amqp}/"

    def _secret_of(self, who: str) -> str:
        return secret(self._home, f"rabbitmq-{who}")

    async def start(self) -> str:
        """Return the operator's AMQP address when the node accepts it."""
        began = time.monotonic()
        self._say("starting a private RabbitMQ node ...")
        for folder in (self._home, self._log.parent, self._log, self._folder):
            private_folder(folder)
        await self._evict_earlier()
        if self._ports is None:
            self._ports = self._choose_ports()
        self._write_files(self._ports)
        try:
            await self._daemon.start()
        except StartRefused as error:
            await self._end_epmd()
            raise StartRefused(f"{error} (log: {self._log})") from error
        self._say(f"✓ RabbitMQ ready ({time.monotonic() - began:.1f} s)")
        return self.url

    async def stop(self) -> None:
        """Stop the node and its name server and return when both are gone."""
        await self._daemon.stop()
        await self._end_epmd()

    async def _evict_earlier(self) -> None:
        if await evict(self._folder, PROGRAMS, signal.SIGTERM, STOP_WITHIN):
            self._say("stopped a RabbitMQ that an earlier run had left behind")

    def _choose_ports(self) -> Ports:
        file = self._folder / "ports.json"
        try:
            ports = msgspec.json.decode(file.read_bytes(), type=Ports)
        except (FileNotFoundError, msgspec.DecodeError):
            ports = Ports(0, 0, 0)
        if not all(_is_free(port) for port in (ports.amqp, ports.distribution, ports.epmd)):
            ports = Ports(*free_ports(3))
            _write_private(file, json.dumps(msgspec.structs.asdict(ports)))
        return ports

    def _write_files(self, ports: Ports) -> None:
        known = self._folder / "definitions.json"
        config = CONFIG.format(address=LOOPBACK, amqp=ports.amqp, definitions=known)
        _write_private(self._folder / "server.conf", config)
        _write_private(known, definitions(self._logins(), VHOST, self._queue_type).decode())
        _write_private(self._folder / "enabled_plugins", "[].\n")
        _write_private(self._folder / ".erlang.cookie", secret(self._home, "rabbitmq-cookie"))

    def _logins(self) -> list[Login]:
        return [
            Login(name=OPERATOR_NAME, password=self._secret_of("user"), rights=OPERATOR),
            *(
                Login(name=role_of(service), password=self._secret_of(service), rights=rights_of(service))
                for service in Service
            ),
        ]

    async def _spawn(self) -> Process:
        assert self._ports is not None
        await self._end_epmd()
        await self._evict_earlier()
        environment = self._environment(self._ports)
        # Our own, in the foreground: the one that Erlang starts by itself would outlive us.
        self._epmd = await self._run(find_epmd(), "-port", str(self._ports.epmd), "-address", LOOPBACK, env=environment)
        return await self._run(self._programs / "rabbitmq-server", env=environment)

    async def _run(self, program: Path, *arguments: str, env: dict[str, str]) -> Process:
        descriptor = os.open(self._log / "start.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                env=env,
                cwd=self._folder,  # by which a later run knows it for ours
                start_new_session=True,  # Ctrl-C is for us: services finish first, then their broker stops
                preexec_fn=child_setup(signal.SIGTERM),
            )
        finally:
            os.close(descriptor)

    def _environment(self, ports: Ports) -> dict[str, str]:
        data = self._folder / "data"
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self._folder),  # where Erlang looks for the cookie
            "detached": "true",  # the script becomes the server instead of waiting for it
            "RABBITMQ_NODENAME": NODE_NAME,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(ports.amqp),
            "RABBITMQ_DIST_PORT": str(ports.distribution),
            "ERL_EPMD_PORT": str(ports.epmd),
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "server.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self._folder / "generated"),
            "RABBITMQ_SCHEMA_DIR": str(self._folder / "schema"),
            "RABBITMQ_PID_FILE": str(self._folder / "pid"),
            "RABBITMQ_MNESIA_BASE": str(data),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(data / "feature_flags"),
            "RABBITMQ_QUORUM_DIR": str(data / "quorum"),
            "RABBITMQ_STREAM_DIR": str(data / "stream"),
            "RABBITMQ_LOG_BASE": str(self._log),
        }

    async def _wait_ready(self) -> None:
        assert self._ports is not None
        while True:
            try:
                # The driver logs each refused connection, so it comes in when somebody listens.
                _, writer = await asyncio.open_connection(LOOPBACK, self._ports.amqp)
                writer.close()
                connection = await asyncio.wait_for(aiormq.connect(self.url), 10)
            except (OSError, TimeoutError, aiormq.exceptions.AMQPError):
                await asyncio.sleep(0.05)
            else:
                await connection.close()
                return

    async def _end_epmd(self) -> None:
        process, self._epmd = self._epmd, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def find_rabbitmq() -> Path:
    """Return the folder of RabbitMQ's own scripts on this machine."""
    command = shutil.which("rabbitmq-server")
    folders = [Path(command).resolve().parent] if command else []
    folders += sorted(Path("/").glob(PACKAGED.lstrip("/")), reverse=True)
    for folder in folders:
        script = folder / "rabbitmq-server"
        if script.is_file() and (folder / "rabbitmq-env").is_file():
            return script.resolve().parent
    raise RabbitMqNotFound


def find_epmd() -> Path:
    """Return Erlang's name server."""
    command = shutil.which("epmd")
    if command:
        return Path(command)
    erl = shutil.which("erl")
    if erl:
        for found in Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd"):
            return found
    raise StartRefused("RabbitMQ needs Erlang's `epmd`, which is not on this machine; install the package erlang-base")


def free_ports(count: int) -> list[int]:
    """Return free loopback ports below those that the kernel gives to outgoing connections.

    A client that reconnects to a port of that range while nobody listens can reach itself and so take the port away.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randint(15_000, 31_000)  # noqa: S311 - any free one will do
        if port not in found and _is_free(port):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    if port == 0:
        return False
    with socket.socket() as probe:
        # Like Erlang does: a port whose last connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _write_private(file: Path, text: str) -> None:
    draft = file.with_name(f"{file.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.replace(file)
