"""A package index on the loopback, over HTTP as indexes are; it can be slow, out of order or ask for a password."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web


@dataclass
class PackageIndex:
    """What is served, and what happened."""

    folder: Path
    port: int = 0
    credentials: str | None = None
    failures: int = 0
    """How many requests from now on are answered 503."""
    hangs: bool = False
    asked: list[str] = field(default_factory=list)
    somebody_waits: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """The address of the index, with the credentials."""
        who = "" if self.credentials is None else f"{self.credentials}@"
        return f"http://{who}127.0.0.1:{self.port}/simple"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.asked.append(request.path)
        if self.hangs:
            self.somebody_waits.set()
            await asyncio.sleep(120)
        if self.failures > 0:
            self.failures -= 1
            return web.Response(status=503)
        if self.credentials is not None:
            expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
            if request.headers.get("Authorization") != expected:
                return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        parts = request.path.strip("/").split("/")
        if parts[0] == "files":
            return web.FileResponse(self.folder / parts[1])
        name = parts[1] if len(parts) > 1 else ""
        files = sorted(each.name for each in self.folder.glob(f"{name.replace('-', '_')}-*"))
        if not files:
            return web.Response(status=404)
        links = "".join(f'<a href="/files/{each}">{each}</a>' for each in files)
        return web.Response(text=f"<html><body>{links}</body></html>", content_type="text/html")


@asynccontextmanager
async def package_index(folder: Path, credentials: str | None = None) -> AsyncIterator[PackageIndex]:
    """Serve a folder of packages for the block."""
    index = PackageIndex(folder, credentials=credentials)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", index.answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        index.port = runner.addresses[0][1]
        yield index
    finally:
        await runner.cleanup()
