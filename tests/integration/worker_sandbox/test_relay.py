"""The way to the api: what it costs, and when it is given up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.worker_sandbox.harness import DEADLINE
from tidemill.worker.sandbox import relay


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Give the port of a relay to a server that says what it hears."""
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        forwarding = relay.Relay(listener, *server.sockets[0].getsockname())
        yield listener.getsockname()[1]
        forwarding.close()


async def ask(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"?")
    async with asyncio.timeout(DEADLINE.total_seconds()):
        assert await reader.read(1) == b"?"
    return reader, writer


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_connection_takes_two_descriptors(port: int) -> None:
    before = descriptors()
    pairs = [await ask(port) for _ in range(5)]
    # Ours and the server's are in this process too.
    assert descriptors() - before == 5 * (2 + 2)
    for _, writer in pairs:
        writer.close()


async def test_a_connection_on_which_nobody_speaks_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_IDLE", timedelta(milliseconds=200))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(DEADLINE.total_seconds()):
        assert await reader.read() == b""
    writer.close()
