"""Clients that ask for jobs, each request repeated under its own key until it is answered."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

_PATIENCE = 45
_PAUSE = 0.1


@dataclass
class Load:
    """What was asked for and what was acknowledged."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Key of the request, and the job that the api named for it."""
    repeated: int = 0

    @property
    def jobs(self) -> list[uuid.UUID]:
        """The jobs that were acknowledged."""
        return [uuid.UUID(job) for job in self.accepted.values()]


class Client:
    """A caller who does not give up: refused connections, resets and 503 are answered by asking again."""

    def __init__(self, http: aiohttp.ClientSession, address: Callable[[], tuple[str, str]]) -> None:
        self._http = http
        self._address = address

    async def ask(self, load: Load, path: str, args: Any, *, run: str = "p", **query: Any) -> str:
        """Ask for a job of a script, or of what `run` says, until it is acknowledged, and return its id."""
        key = str(uuid.uuid4())
        last: object = None
        async with asyncio.timeout(_PATIENCE) as patience:
            while True:
                try:
                    status, said = await self._post(f"/w/starter/jobs/run/{run}/{path}", args, key, query)
                except (aiohttp.ClientError, TimeoutError) as error:
                    if patience.expired():
                        raise
                    last = error
                else:
                    if status == 201:
                        load.accepted[key] = said
                        return said
                    last = f"{status} {said}"
                    if status != 503:
                        raise AssertionError(f"a request was refused: {last}")
                load.repeated += 1
                await asyncio.sleep(_PAUSE)

    async def _post(self, path: str, args: Any, key: str, query: dict[str, Any]) -> tuple[int, str]:
        url, token = self._address()
        async with self._http.post(
            f"{url}/api{path}",
            json=args,
            params={name: str(value) for name, value in query.items()},
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
        ) as answer:
            return answer.status, await answer.text()


@asynccontextmanager
async def client(address: Callable[[], tuple[str, str]]) -> AsyncIterator[Client]:
    """Open a client for the block; `address` is asked each time, because an installation may move."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as http:
        yield Client(http, address)


@asynccontextmanager
async def clients(
    address: Callable[[], tuple[str, str]], path: str, *, count: int, pause: float
) -> AsyncIterator[Load]:
    """Let clients ask for jobs all the time for the block; at its end all that was asked has been answered."""
    load, done = Load(), asyncio.Event()

    async def keep_asking(one: Client) -> None:
        while not done.is_set():
            await one.ask(load, path, {})
            await asyncio.sleep(pause)

    async with client(address) as one, asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(keep_asking(one))
        try:
            yield load
        finally:
            done.set()
