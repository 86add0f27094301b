"""All routes of the api, assembled into one HTTP application and served."""

import errno
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from tidemill.api.approvals.routes import PAGES
from tidemill.api.approvals.routes import ROUTES as APPROVALS
from tidemill.api.audit.routes import ROUTES as AUDIT
from tidemill.api.context import ApiContext
from tidemill.api.flow_states.routes import ROUTES as FLOW_STATES
from tidemill.api.flows.routes import ROUTES as FLOWS
from tidemill.api.http.frame import HttpFrame, add_headers
from tidemill.api.http.openapi import DOCUMENT, Document
from tidemill.api.http.route import Route
from tidemill.api.instance.routes import ROUTES as INSTANCE
from tidemill.api.jobs.routes import ROUTES as JOBS
from tidemill.api.metrics.routes import ROUTES as METRICS
from tidemill.api.ports import ROUTES_GROUP
from tidemill.api.scripts.routes import ROUTES as SCRIPTS
from tidemill.api.tokens.routes import ROUTES as TOKENS
from tidemill.api.users.routes import ROUTES as USERS
from tidemill.api.workers.routes import ROUTES as WORKERS
from tidemill.api.workflows.routes import ROUTES as WORKFLOWS
from tidemill.api.workspaces.routes import ROUTES as WORKSPACES
from tidemill.chassis.errors import StartRefused
from tidemill.chassis.extensions import load
from tidemill.chassis.health import health_routes
from tidemill.chassis.settings import PREFIX

OWN_ROUTES: tuple[Route, ...] = (
    *INSTANCE,
    *USERS,
    *TOKENS,
    *WORKSPACES,
    *SCRIPTS,
    *FLOWS,
    *JOBS,
    *APPROVALS,
    *FLOW_STATES,
    *METRICS,
    *WORKFLOWS,
    *AUDIT,
    *WORKERS,
)

_FAREWELL = 5.0
"""Seconds that open requests have to end when the process does."""


def all_routes() -> tuple[Route, ...]:
    """Return our own routes and those of installed extensions; raises StartRefused for one that is no route."""
    added = [route for contribution in load(ROUTES_GROUP, tuple) for route in contribution]
    for each in added:
        if not isinstance(each, Route):
            raise StartRefused(f"an extension of {ROUTES_GROUP} holds something that is no Route: {each!r}")
    return (*OWN_ROUTES, *added)


def build_app(ctx: ApiContext, routes: Iterable[Route] | None = None) -> web.Application:
    """Return the application; raises ValueError when two routes are the same."""
    table = tuple(all_routes() if routes is None else routes)
    # The size of a body is bounded where it is read, so that the answer is ours.
    app = web.Application(client_max_size=2**62)
    app[DOCUMENT] = Document(table)
    app.add_routes(health_routes(ctx.health))
    app.router.add_route("*", "/{path:.*}", HttpFrame(ctx, table, PAGES).answer)
    app.on_response_prepare.append(add_headers)
    return app


@asynccontextmanager
async def serving(ctx: ApiContext, routes: Iterable[Route] | None = None) -> AsyncIterator[int]:
    """Serve the API for the block and give its port; raises StartRefused when the port is taken."""
    settings = ctx.settings
    runner = web.AppRunner(
        build_app(ctx, routes),
        access_log=None,
        auto_decompress=False,
        shutdown_timeout=_FAREWELL,
        handle_signals=False,
        # A client that goes away ends its handler, and with it the job that it waited for.
        handler_cancellation=True,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.bind, settings.port).start()
        except OSError as error:
            raise _cannot_listen(settings.bind, settings.port, error) from error
        yield int(runner.addresses[0][1])
    finally:
        ctx.closing.set()
        await runner.cleanup()


def _cannot_listen(bind: str, port: int, error: OSError) -> StartRefused:
    if error.errno == errno.EADDRINUSE:
        return StartRefused(f"{PREFIX}PORT={port} is taken: another program listens on {bind}:{port}")
    return StartRefused(f"{PREFIX}BIND={bind} and {PREFIX}PORT={port} can't be listened on: {error.strerror}")
