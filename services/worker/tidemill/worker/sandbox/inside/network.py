"""A network of the zygote's own: empty but for the way to the api, or with a way out that does not lead to the host.

    host's network │ zygote's network
                   │  lo      127.0.0.1, ::1, the api's addresses: listening sockets, handed to the worker to forward
      uplink tool ─┼─ eth0    only with policy `all`: pasta or slirp4netns, its own subnet and resolver
                   │  routes  unreachable: link-local and metadata addresses, every address of the host itself

A socket stays in the network in which it was made, whoever holds it: that is the whole relay. Children are born into
this network and have no capability in it, so they can change nothing of it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv4Network, ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from . import linux

METADATA = ("169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32")
SUBNETS = ("10.0.2.0/24", "10.87.219.0/24", "172.29.91.0/24", "192.168.219.0/24")
DEVICE = "eth0"
START_SECONDS = 10.0
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_NEW_ADDRESS, _NEW_ROUTE = 20, 24
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_MAIN_TABLE, _BY_ADMIN, _UNREACHABLE = 254, 4, 7
_LOOPBACK_INDEX = 1
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Relay(NamedTuple):
    """The api under one of its names, and the address that it has in here."""

    name: str
    address: str
    port: int


def relays(endpoints: Sequence[Sequence[Any]]) -> list[Relay]:
    """Give every endpoint an address in here: an address its own, localhost the usual, other names one each."""
    found = []
    for number, (name, port) in enumerate(endpoints):
        with suppress(ValueError):
            found.append(Relay(name, str(ip_address(name)), port))
            continue
        found.append(Relay(name, "127.0.0.1" if name == "localhost" else f"127.0.0.{2 + number}", port))
    return found


class Surroundings(NamedTuple):
    """What must be known of the host's network before it is left."""

    addresses: tuple[str, ...]
    subnet: IPv4Network


def look_around() -> Surroundings:
    """Return the host's own addresses and a subnet that it does not use."""
    tree = Path("/proc/net/fib_trie").read_text().splitlines()
    local = {above.split()[-1] for above, line in pairwise(tree) if "/32 host LOCAL" in line}
    routes = [_network(line) for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    free = [
        each
        for each in map(IPv4Network, SUBNETS)
        if not any(each.overlaps(route) for route in routes if route.prefixlen)
    ]
    return Surroundings(
        tuple(sorted(each for each in local if not each.startswith("127."))), (free or [IPv4Network(SUBNETS[0])])[0]
    )


def _network(line: str) -> IPv4Network:
    """Return the target of one line of /proc/net/route: its numbers are in the machine's byte order."""
    columns = line.split()
    address, mask = (socket.inet_ntoa(struct.pack("=L", int(columns[at], 16))) for at in (1, 7))
    return IPv4Network(f"{address}/{mask}")


def resolver(subnet: IPv4Network) -> str:
    return str(subnet[3])


def settle(surroundings: Surroundings, wanted: Sequence[Relay]) -> list[tuple[int, socket.socket]]:
    """Set up the network that this process has just been given; return the sockets on which the api is awaited.

    They are numbered as the relays are; of two names for one address (localhost, 127.0.0.1) the first has it. What is
    awaited on the loopback is awaited on ::1 as well: whoever may listen there is asked first when a name means both.
    """
    _raise_loopback()
    for network in (*METADATA, *(f"{address}/32" for address in surroundings.addresses)):
        _refuse_route(IPv4Network(network))
    listeners: dict[tuple[str, int], tuple[int, socket.socket]] = {}
    for number, relay in enumerate(wanted):
        if (relay.address, relay.port) not in listeners:
            listeners[relay.address, relay.port] = number, _listener(relay.address, relay.port)
    for number, relay in enumerate(wanted):
        if ip_address(relay.address).is_loopback and ("::1", relay.port) not in listeners:
            try:
                listeners["::1", relay.port] = number, _listener("::1", relay.port)
            except OSError as error:
                if error.errno not in _NO_IPV6:  # where there is none, nobody else can listen either
                    raise
    return list(listeners.values())


def _listener(host: str, port: int) -> socket.socket:
    address = ip_address(host)
    if not address.is_loopback and not address.is_unspecified:
        _add_address(host)
    listener = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    listener.setblocking(False)
    return listener


class Uplink:
    """The tool that connects our network with the host's, kept by a process which ends it when the launcher goes.

    Forked before the launcher leaves the host's file system, told whom to serve when its network exists.
    """

    def __init__(self, tool: str, subnet: IPv4Network, job_uid: int, *close: int) -> None:
        reader, self._wake = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(reader)
            return
        try:
            for fd in (self._wake, *close):
                os.close(fd)
            _keep(tool, subnet, job_uid, reader)
        finally:
            os._exit(1)

    def attach(self) -> None:
        """Have this process's network served; return when it is, or raise OSError."""
        os.write(self._wake, str(os.getpid()).encode())
        until = time.monotonic() + START_SECONDS
        while not any(line.startswith(DEVICE) for line in Path("/proc/net/route").read_text().splitlines()):
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                raise OSError("the tool has ended; its words are above")
            if time.monotonic() > until:
                raise OSError("the tool has brought up no network")
            time.sleep(0.005)

    def end(self) -> None:
        """End the tool and return when it has gone."""
        self.let_go()
        os.waitpid(self.pid, 0)

    def let_go(self) -> None:
        """Close the pipe whose end is the tool's end, once nobody holds it: the zygote must not."""
        os.close(self._wake)


def _keep(tool: str, subnet: IPv4Network, job_uid: int, reader: int) -> None:
    if os.geteuid() == 0:
        _own_tun()
        os.setgroups([])
        os.setresgid(job_uid, job_uid, job_uid)
        os.setresuid(job_uid, job_uid, job_uid)
    pid = os.read(reader, 32).decode()
    if not pid:
        return
    process = subprocess.Popen(
        command(tool, subnet, pid), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=sys.stderr, cwd="/"
    )
    ended = os.pidfd_open(process.pid)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(reader, select.POLLIN)
    poll.poll()
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(ended, signal.SIGKILL)
    process.wait()


def command(tool: str, subnet: IPv4Network, pid: str) -> list[str]:
    """Return how the tool is called: our addresses, nothing forwarded inwards, the host's loopback closed."""
    if Path(tool).name == "slirp4netns":
        return [tool, "--configure", "--mtu=65520", "--disable-host-loopback", f"--cidr={subnet}", pid, DEVICE]
    return [
        tool, "--foreground", "--quiet", "--ipv4-only", "--config-net", "--ns-ifname", DEVICE, "--no-map-gw",
        "--address", str(subnet[100]), "--netmask", str(subnet.prefixlen), "--gateway", str(subnet[2]),
        "--dns-forward", resolver(subnet), "-t", "none", "-u", "none", "-T", "none", "-U", "none", pid,
    ]  # fmt: skip


def _own_tun() -> None:
    """Make /dev/net/tun usable for whom we become, in sight of nobody else: some hosts leave it to root."""
    with suppress(OSError):
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
        Path("/dev/net").mkdir(exist_ok=True)
        linux.mount("tmpfs", "/dev/net", "tmpfs", linux.MS_NOSUID | linux.MS_NOEXEC, "mode=755,size=64k")
        os.mknod("/dev/net/tun", 0o20666, os.makedev(10, 200))
        Path("/dev/net/tun").chmod(0o666)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = b"lo".ljust(16, b"\0")
        (flags,) = struct.unpack_from("=H", fcntl.ioctl(sock, _SIOCGIFFLAGS, name + bytes(16)), 16)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, name + struct.pack("=H14x", flags | _IFF_UP))


def _refuse_route(network: IPv4Network) -> None:
    head = struct.pack(
        "=BBBBBBBBI", socket.AF_INET, network.prefixlen, 0, 0, _MAIN_TABLE, _BY_ADMIN, 0, _UNREACHABLE, 0
    )
    _ask(_NEW_ROUTE, head + _attribute(1, network.network_address.packed))


def _add_address(address: str) -> None:
    parsed = ip_address(address)
    family = socket.AF_INET6 if parsed.version == 6 else socket.AF_INET
    head = struct.pack("=BBBBI", family, parsed.max_prefixlen, 0, 0, _LOOPBACK_INDEX)
    _ask(_NEW_ADDRESS, head + _attribute(1, parsed.packed) + _attribute(2, parsed.packed))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value.ljust(-(-len(value) // 4) * 4, b"\0")


def _ask(kind: int, body: bytes) -> None:
    """Say one sentence of rtnetlink and raise OSError when it is refused."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(5)
        sock.send(struct.pack("=LHHLL", 16 + len(body), kind, _REQUEST | _ACK | _CREATE, 1, 0) + body)
        (error,) = struct.unpack_from("=i", sock.recv(4096), 16)
        if error:
            raise OSError(-error, f"netlink: {os.strerror(-error)}")
