"""Whom a job can talk to: the api, the world where that is allowed, and nobody else on this host."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.integration.worker_sandbox.harness import Scripts, children_of, processes_with, until
from tidemill.worker.sandbox.inside import network
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, SandboxUnavailable, ZygoteKey
from tidemill.worker.sandbox.settings import Network

TOOLS = [tool for tool in ("pasta", "slirp4netns") if shutil.which(tool)]
HELLO = b"hello from the api"
ASK = """
import socket
def ask(host, port):
    with socket.socket() as sock:
        sock.settimeout(3)
        try:
            sock.connect((host, port))
            sock.sendall(b'?')
            return sock.recv(100).decode()
        except OSError as error:
            return None
def main(targets): return [ask(*each) for each in targets]
"""


@dataclass
class Host:
    """Servers on this host: the api on the loopback, another on every address."""

    api: int
    other: int
    addresses: list[str]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(HELLO)
    writer.close()


@pytest.fixture(scope="module")
async def host() -> AsyncIterator[Host]:
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(await asyncio.start_server(answer, at, 0))
            for at in ("127.0.0.1", "0.0.0.0")
        ]
        api, other = (server.sockets[0].getsockname()[1] for server in servers)
        addresses = [
            each.address.partition("%")[0]
            for card in psutil.net_if_addrs().values()
            for each in card
            if each.family == socket.AF_INET
        ]
        yield Host(api, other, addresses)


@pytest.fixture(scope="module", params=[*TOOLS, None])
async def connected(request: pytest.FixtureRequest, host: Host) -> AsyncIterator[Sandbox]:
    """Give a sandbox with each tool that is here, and one without any."""
    uplinks = (request.param,) if request.param else ()
    async with Sandbox(SandboxSettings(uplinks=uplinks, relays=both_names(host))) as sandbox:
        if request.param and sandbox.uplink is None:
            pytest.skip(f"{request.param} cannot connect a network here")
        yield sandbox


def both_names(host: Host) -> tuple[tuple[str, int], ...]:
    return (("localhost", host.api), ("127.0.0.1", host.api))


@pytest.mark.parametrize("policy", ["none", "all"])
async def test_a13_only_the_api_answers_on_this_host(connected: Sandbox, host: Host, policy: Network) -> None:
    if policy == "all" and connected.uplink is None:
        assert "own network" in connected.isolation
        pytest.skip("without pasta or slirp4netns the policy all is the host's network, and said to be")
    scripts = Scripts(connected, ZygoteKey(workspace="w", network=policy))
    targets = [(address, host.other) for address in [*host.addresses, "0.0.0.0", "127.0.0.2"]]
    targets += [("169.254.169.254", 80)]
    closed = await scripts.result(ASK, {"targets": targets})
    assert closed == [None] * len(targets)
    assert await scripts.result(ASK, {"targets": [("localhost", host.api)]}) == [HELLO.decode()]
    bash = f"exec 3<>/dev/tcp/127.0.0.1/{host.api}; printf '?' >&3; cat <&3"
    assert await scripts.result(bash, language="bash") == HELLO.decode()
    error = await scripts.error(f"exec 3<>/dev/tcp/127.0.0.1/{host.other}", language="bash")
    assert error["reason"] == "exit_code"


def listening() -> set[int]:
    return {getattr(each.laddr, "port", 0) for each in psutil.net_connections("tcp4") if each.status == "LISTEN"}


def unix_sockets() -> list[str]:
    return sorted({line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if " /" in line})


async def test_a13_every_listening_port_and_socket_of_the_host_is_closed(connected: Sandbox, host: Host) -> None:
    ports = sorted(listening() - {host.api})
    policy: Network = "all" if connected.uplink else "none"
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0tidemill-test-abstract")
        abstract.listen()
        code = (
            ASK.replace("def main", "def asked")
            + """
def main(targets, names, paths):
    import os
    def named(name):
        with socket.socket(socket.AF_UNIX) as sock:
            try: sock.connect(name)
            except OSError: return None
            return name
    return [*asked(targets), *(named(chr(0) + name) for name in names), *(named(path) for path in paths)]
"""
        )
        targets = [(address, port) for port in ports for address in host.addresses]
        found = await Scripts(connected, ZygoteKey(workspace="w", network=policy)).result(
            code, {"targets": targets, "names": ["tidemill-test-abstract"], "paths": unix_sockets()}
        )
    assert found
    assert set(found) == {None}


async def test_a_job_has_a_way_out_when_its_policy_is_all(connected: Sandbox) -> None:
    if connected.uplink is None:
        pytest.skip("no tool connects a network here")
    code = """
def main():
    names = [line.split()[0].rstrip(':') for line in open('/proc/net/dev').read().splitlines()[2:]]
    routes = [line.split()[1] for line in open('/proc/net/route').read().splitlines()[1:]]
    return [sorted(names), '00000000' in routes, open('/etc/resolv.conf').read()]
"""
    devices, has_default, resolvers = await Scripts(connected, ZygoteKey(workspace="w")).result(code)
    assert ({"lo", "eth0"} <= set(devices), has_default) == (True, True)
    assert [line for line in resolvers.splitlines() if line.startswith("nameserver")] != []
    only = await Scripts(connected, ZygoteKey(workspace="w", network="none")).result(code)
    assert "eth0" not in only[0]
    assert not only[1]


async def test_a_network_cannot_be_changed_from_within(connected: Sandbox) -> None:
    code = """
import fcntl, socket, struct
def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try: fcntl.ioctl(sock, 0x8914, b'lo'.ljust(16, b'\\0') + struct.pack('=H14x', 0))
        except PermissionError: pass
        else: return 'the loopback was taken down'
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        route = struct.pack('=BBBBBBBBI', 2, 16, 0, 0, 254, 4, 0, 7, 0)
        body = route + struct.pack('=HH', 8, 1) + bytes([169, 254, 0, 0])
        sock.send(struct.pack('=LHHLL', 16 + len(body), 25, 5, 1, 0) + body)
        return struct.unpack_from('=i', sock.recv(4096), 16)[0]
"""
    assert await Scripts(connected, ZygoteKey(workspace="w", network="none")).result(code) == -1


async def test_the_api_keeps_its_name_and_address_in_a_network_without_names(host: Host) -> None:
    async with Sandbox(SandboxSettings(relays=(("localhost", host.api),))) as sandbox:
        script = "import socket\ndef main(): return socket.gethostbyname('localhost')"
        assert await Scripts(sandbox, ZygoteKey(workspace="w", network="none")).result(script) == "127.0.0.1"
    named = network.relays([("localhost", 80), ("api.example", 443), ("192.0.2.7", 8000)])
    assert [(each.name, each.address, each.port) for each in named] == [
        ("localhost", "127.0.0.1", 80),
        ("api.example", "127.0.0.3", 443),
        ("192.0.2.7", "192.0.2.7", 8000),
    ]


async def test_a_job_can_not_listen_where_another_looks_for_the_api(host: Host) -> None:
    code = """
import errno, socket
def main(port):
    answers, bound = [], []
    for family, kind, _, _, address in socket.getaddrinfo('localhost', port, type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as sock:
            sock.settimeout(10)
            sock.connect(address)
            sock.sendall(b'?')
            answers.append(sock.recv(100).decode())
    for address in ('127.0.0.1', '0.0.0.0', '::1', '::'):
        with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if ':' in address: sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address, port))
                sock.listen()
            except OSError as error:
                assert error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL), error
            else:
                bound.append(address)
    return sorted(set(answers)), bound
"""
    async with Sandbox(SandboxSettings(relays=(("localhost", host.api),))) as sandbox:
        scripts = Scripts(sandbox, ZygoteKey(workspace="w", network="none"))
        assert await scripts.result(code, {"port": host.api}) == [[HELLO.decode()], []]


async def test_the_tool_goes_with_its_zygote_and_the_zygote_with_its_tool(connected: Sandbox) -> None:
    if connected.uplink is None:
        pytest.skip("no tool connects a network here")
    scripts = Scripts(connected, ZygoteKey(workspace="doomed"))
    before = processes_with(connected.uplink)
    run = scripts.start("import time\ndef main():\n    print('x'); time.sleep(1000)")
    await run.says("x")
    (tool,) = processes_with(connected.uplink) - before
    assert tool in children_of(os.getpid())
    os.kill(tool, signal.SIGKILL)
    assert (await run.ending()).reason == "killed"
    assert await scripts.result("def main(): return 'back'") == "back"
    (again,) = processes_with(connected.uplink) - before
    *_, launcher = (each for each in psutil.Process(again).parents() if each.pid in children_of(os.getpid()))
    launcher.kill()
    await until(lambda: again not in processes_with(connected.uplink or ""))


async def test_a_policy_that_cannot_be_had_is_refused(fallback: Scripts, public_interpreter: str) -> None:
    key = ZygoteKey(workspace="test", interpreter=public_interpreter, network="none")
    error = await fallback.error("def main(): return 1", key=key)
    assert (error["reason"], error["name"]) == ("refused", "NetworkPolicyUnavailable")
    with pytest.raises(SandboxUnavailable, match="network policy"):
        async with Sandbox(SandboxSettings(isolation="reduced", interpreter=public_interpreter, network="none")):
            pass
