import asyncio
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiormq
import aiormq.abc
import pytest

from tests.support.processes import is_gone, kill, listening_addresses, next_line, python_program
from tidemill.allinone import rabbitmq
from tidemill.allinone.lifeline import occupants
from tidemill.allinone.rabbitmq import PROGRAMS, RabbitMqNode, RabbitMqNotFound, find_rabbitmq, free_ports
from tidemill.shared.catalog import Service

LAUNCHER = Path(__file__).with_name("launcher.py")

try:
    find_rabbitmq()
    missing = None
except RabbitMqNotFound as error:
    missing = str(error)

with_rabbitmq = pytest.mark.skipif(missing is not None, reason=str(missing))


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[RabbitMqNode]:
    node = RabbitMqNode(home)
    try:
        await node.start()
        yield node
    finally:
        await node.stop()


@asynccontextmanager
async def channel(url: str) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    """Connect as a service does, which tries again until its broker is there."""
    async with asyncio.timeout(60):
        while True:
            try:
                connection = await aiormq.connect(url)
                break
            except (OSError, aiormq.exceptions.AMQPError):
                await asyncio.sleep(0.1)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


async def put(url: str, queue: str) -> None:
    async with channel(url) as open_channel:
        await open_channel.queue_declare(queue, durable=True)
        persistent = aiormq.spec.Basic.Properties(delivery_mode=2)
        await open_channel.basic_publish(b"kept", routing_key=queue, properties=persistent)


async def take(url: str, queue: str) -> bytes:
    async with channel(url) as open_channel:
        return (await open_channel.basic_get(queue, no_ack=True)).body


@pytest.mark.slow
@with_rabbitmq
async def test_one_node_through_stop_start_and_crash(home: Path) -> None:
    """One long story, because each start takes seconds: the door, the files, a planned stop, a crash."""
    async with running(home) as node:
        url, worker = node.url, node.url_of(Service.WORKER)
        place = urlsplit(url)

        # Neither the well-known user nor a wrong password comes in.
        for login in ("guest:guest", "tidemill:wrong"):
            with pytest.raises(aiormq.exceptions.AMQPError):
                await aiormq.connect(f"amqp://{login}@{place.hostname}:{place.port}/")

        # Nothing listens but on the loopback address; secrets are in nobody else's reach.
        members = occupants(home / "rabbitmq", PROGRAMS)
        assert node.pid in members
        assert {address.rpartition(":")[0] for pid in members for address in listening_addresses(pid)} <= LOOPBACK
        for folder in (home, home / "rabbitmq", home / "log" / "rabbitmq"):
            assert mode_of(folder) == 0o700, folder
        for name in ("server.conf", "definitions.json", ".erlang.cookie", "ports.json"):
            assert mode_of(home / "rabbitmq" / name) == 0o600, name
        assert all(str(place.password) not in command_line_of(pid) for pid in members)

        # A durable message outlives a planned stop, at the same address.
        await put(url, "planned")
        # A queue that has just been declared may die with its node, a confirmed message in a queue that stands may not.
        await put(url, "crashed")
        assert await take(url, "crashed") == b"kept"
        stopped = node.pid
        assert stopped is not None
        await node.stop()
        assert await is_gone(stopped)
        assert occupants(home / "rabbitmq", PROGRAMS) == []
        with pytest.raises((OSError, aiormq.exceptions.AMQPError)):
            await aiormq.connect(url)
        (home / "secrets" / "rabbitmq-worker").unlink()
        await node.start()
        assert node.url == url

        # A service's login is made anew with the password of this start, in the old data folder.
        async with channel(node.url_of(Service.WORKER)):
            pass
        with pytest.raises(aiormq.exceptions.AMQPError):
            await aiormq.connect(worker)
        assert await take(url, "planned") == b"kept"

        # A node that dies is started again by itself.
        await put(url, "crashed")
        crashed = node.pid
        assert crashed is not None
        kill(crashed)
        assert await is_gone(crashed)
        assert await take(url, "crashed") == b"kept"
        assert node.pid != crashed


@pytest.mark.slow
@with_rabbitmq
async def test_node_and_name_server_end_with_a_killed_launcher(home: Path) -> None:
    async with python_program(LAUNCHER, "rabbitmq", home) as launcher:
        await next_line(launcher)
        members = occupants(home / "rabbitmq", PROGRAMS)
        assert len(members) >= 2
        launcher.kill()
        await launcher.wait()
        for pid in members:
            assert await is_gone(pid)


@pytest.mark.slow
@with_rabbitmq
async def test_a_node_that_lives_on_alone_is_stopped_before_ours_starts(home: Path) -> None:
    async with python_program(LAUNCHER, "rabbitmq", home) as launcher:
        left = int((await next_line(launcher)).split()[1])
        launcher.send_signal(signal.SIGSTOP)  # alive, but it does not look after its node any more
        async with running(home) as node:
            assert await is_gone(left, within=0.1)
            await put(node.url, "mine")


async def test_without_rabbitmq_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("PATH", str(home))
    monkeypatch.setattr(rabbitmq, "PACKAGED", str(home / "*"))
    with pytest.raises(RabbitMqNotFound, match=r"apt-get install rabbitmq-server.*TIDEMILL_AMQP_URL") as refused:
        RabbitMqNode(home)
    assert "\n" not in str(refused.value)


def test_ports_are_free_different_and_below_those_of_outgoing_connections() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < port < lowest_outgoing for port in ports)


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def command_line_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()
