"""The way to the api for jobs that have a network of their own: connections made in there, continued from here.

job ─▶ listening socket, made in the job's network, held by us ─▶ one address: the api's
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from datetime import timedelta

log = logging.getLogger(__name__)

MOST_CONNECTIONS = 64  # of one zygote's jobs to one address at the same time: two descriptors each
_IDLE = timedelta(hours=1)  # longer than anybody waits for an answer
_CONNECT = timedelta(seconds=10)
_CHUNK = 1 << 16


class Relay:
    """Forwards what is said on one listening socket to one address."""

    def __init__(self, listener: socket.socket, host: str, port: int) -> None:
        self._listener = listener
        self._host = host
        self._port = port
        self._free = asyncio.Semaphore(MOST_CONNECTIONS)
        self._connections: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Stop at once."""
        self._accepting.cancel()
        for task in tuple(self._connections):
            task.cancel()
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                inner, _ = await loop.sock_accept(self._listener)
            except OSError as error:
                # Out of descriptors, or the connection has gone again: neither may end the listening.
                self._free.release()
                log.warning("a job's connection to the api could not be taken", extra={"error": str(error)})
                await asyncio.sleep(0.1)
                continue
            task = asyncio.create_task(self._forward(inner))
            self._connections.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._free.release()

    async def _forward(self, inner: socket.socket) -> None:
        # OSError and TimeoutError are the connection's end, which the job sees for itself.
        with suppress(OSError):
            try:
                async with asyncio.timeout(_CONNECT.total_seconds()):
                    from_api, to_api = await asyncio.open_connection(self._host, self._port)
            except BaseException:
                inner.close()
                raise
            try:
                from_job, to_job = await asyncio.open_connection(sock=inner)  # whose it is from now on
                try:
                    async with asyncio.timeout(_IDLE.total_seconds()) as idle:
                        await asyncio.gather(_pump(from_job, to_api, idle), _pump(from_api, to_job, idle))
                finally:
                    to_job.close()
            finally:
                to_api.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(_CHUNK):
        idle.reschedule(loop.time() + _IDLE.total_seconds())
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
