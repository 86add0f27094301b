"""Whether a service still gets on, for those who restart it or send it work.

/livez    200 while every registered loop made progress within its bound, else 503 and the names of the stalled;
          neighbours do not count: restarting us does not bring a database back
/readyz   200 when every registered check (database, broker) says yes in time
/metrics  Prometheus text
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import msgspec
from aiohttp import web

from tidemill.chassis import telemetry

PATIENCE: Final = timedelta(seconds=60)
"""How long a loop may go without progress when it has not said otherwise."""
CHECK_TIMEOUT: Final = timedelta(seconds=2)
METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Check = Callable[[], Awaitable[bool]]


class Progress(msgspec.Struct):
    """When something last got on, in seconds of the clock, and how long it may take until it does so again."""

    at: float
    within: timedelta


class Finding(msgspec.Struct, frozen=True):
    """One line of an answer."""

    name: str
    well: bool
    says: str


class Health:
    """What the parts of one service report about themselves."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._progress: dict[str, Progress] = {}
        self._checks: dict[str, tuple[Check, timedelta]] = {}
        self._telemetry = telemetry.current()

    def expect(self, name: str, within: timedelta = PATIENCE) -> None:
        """From now on `name` has to beat at least this often."""
        self._progress[name] = Progress(self._clock(), within)

    def beat(self, name: str, within: timedelta | None = None) -> None:
        """Say that `name` got on; without `within` its bound stays."""
        known = self._progress.get(name)
        if known is None:
            self.expect(name, within or PATIENCE)
            return
        known.at = self._clock()
        if within is not None:
            known.within = within

    def forget(self, name: str) -> None:
        """No longer expect anything of `name`: it has ended as it should."""
        self._progress.pop(name, None)

    def check(self, name: str, check: Check, timeout: timedelta = CHECK_TIMEOUT) -> None:
        """Let readiness depend on `check`, which returns whether all is well."""
        self._checks[name] = (check, timeout)

    def liveness(self) -> Sequence[Finding]:
        """Return what is known about each loop."""
        now = self._clock()
        return [_progress_of(name, each, now) for name, each in sorted(self._progress.items())]

    async def readiness(self) -> Sequence[Finding]:
        """Ask every check at once and return what each says."""
        asked = (_ask(name, check, timeout) for name, (check, timeout) in sorted(self._checks.items()))
        return await asyncio.gather(*asked)

    def metrics_text(self) -> bytes:
        """Return the metrics of the service that this belongs to."""
        return self._telemetry.metrics_text()


def health_routes(health: Health) -> Sequence[web.AbstractRouteDef]:
    """Return the three routes, to be mounted in the api or served on a port of their own."""

    async def livez(_: web.Request) -> web.Response:
        return _answer(health.liveness())

    async def readyz(_: web.Request) -> web.Response:
        return _answer(await health.readiness())

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=health.metrics_text(), headers={"Content-Type": METRICS_TYPE})

    return [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)]


@asynccontextmanager
async def serve_health(health: Health, bind: str, port: int) -> AsyncIterator[int]:
    """Serve the routes for the block and give the port; 0 takes a free one."""
    app = web.Application()
    app.add_routes(health_routes(health))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, bind, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answer(findings: Sequence[Finding]) -> web.Response:
    lines = [f"{each.name}: {each.says}" for each in sorted(findings, key=lambda each: (each.well, each.name))]
    status = 200 if all(each.well for each in findings) else 503
    return web.Response(text="\n".join(lines or ["ok"]) + "\n", status=status, headers={"Cache-Control": "no-store"})


def _progress_of(name: str, progress: Progress, now: float) -> Finding:
    silent, bound = now - progress.at, progress.within.total_seconds()
    if silent <= bound:
        return Finding(name, True, "ok")
    return Finding(name, False, f"no progress for {silent:.0f} s, expected every {bound:g} s")


async def _ask(name: str, check: Check, timeout: timedelta) -> Finding:
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            well = await check()
    except TimeoutError:
        return Finding(name, False, f"no answer in {timeout.total_seconds():g} s")
    except Exception as error:
        # Its kind only: the text of a driver's error may hold an address, and anybody may ask.
        return Finding(name, False, f"failed with {type(error).__name__}")
    return Finding(name, well, "ok" if well else "not now")
