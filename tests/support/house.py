"""One api of its own for tests of its domains: real HTTP, real Postgres, a memory broker, and a worker to play.

    async with house(urls) as api:
        await api.person("ann")
        hash = await api.post("ann", "scripts/create", {...}, status=201)
        claim = await api.queue.claimed()

The job's worker is the test itself, through `api.queue`.
"""

import json
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.database import DatabaseUrls
from tests.support.queue import Queue, queue_of
from tidemill.api.approvals.routes import PAGES
from tidemill.api.approvals.routes import ROUTES as APPROVALS
from tidemill.api.context import ApiContext, open_context
from tidemill.api.flow_states.routes import ROUTES as FLOW_STATES
from tidemill.api.flows.routes import ROUTES as FLOWS
from tidemill.api.http.frame import HttpFrame, add_headers
from tidemill.api.jobs.routes import ROUTES as JOBS
from tidemill.api.jobs.waiting import WaitingRoom, waiting_room
from tidemill.api.metrics.routes import ROUTES as METRICS
from tidemill.api.scripts.routes import ROUTES as SCRIPTS
from tidemill.api.settings import ApiSettings
from tidemill.api.tokens.rules import digest
from tidemill.chassis.broker import Broker
from tidemill.chassis.clock import SystemClock
from tidemill.chassis.database import Database
from tidemill.chassis.health import Health
from tidemill.chassis.memory import MemoryBroker
from tidemill.chassis.outbox import Outbox, hint_of
from tidemill.chassis.service import Frame, background
from tidemill.chassis.settings import ChassisSettings
from tidemill.shared.catalog import Service
from tidemill.shared.ids import ReplicaId
from tidemill.shared.message import Message


@dataclass(frozen=True)
class Reply:
    """What the api answered."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass
class House:
    """An api that serves, and what a test wants to look at behind it."""

    url: str
    session: aiohttp.ClientSession
    queue: Queue
    broker: Broker
    waiters: WaitingRoom
    context: ApiContext
    workspace: str = "w"
    tokens: dict[str, str] = field(default_factory=dict)

    async def person(self, name: str, *, is_admin: bool = False, operator: bool = False) -> None:
        """Let somebody be a member of the workspace, with a token."""
        token, email = secrets.token_hex(16), f"{name}@example.com"
        await self.queue.look.execute("INSERT INTO platform.person (email) VALUES ($1) ON CONFLICT DO NOTHING", email)
        await self.queue.look.execute(
            "INSERT INTO platform.workspace (id, name, owner) VALUES ($1, $1, $2) ON CONFLICT DO NOTHING",
            self.workspace,
            email,
        )
        await self.queue.look.execute(
            "INSERT INTO platform.member (workspace_id, username, email, is_admin, operator)"
            " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            self.workspace,
            name,
            email,
            is_admin,
            operator,
        )
        await self.queue.look.execute(
            "INSERT INTO platform.token (hash, prefix, email) VALUES ($1, 'x', $2)", digest(token), email
        )
        self.tokens[name] = token

    async def call(
        self,
        who: str | None,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
        **query: Any,
    ) -> Reply:
        """Call the api; `path` is below the workspace unless it begins with a slash. `status` is what must come."""
        where = f"/api{path}" if path.startswith("/") else f"/api/w/{self.workspace}/{path}"
        sent = dict(headers or {})
        if who is not None:
            sent["Authorization"] = f"Bearer {self.tokens[who]}"
        if body is not None:
            data = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        async with self.session.request(
            method,
            self.url + where,
            data=data,
            headers=sent,
            params={name: str(value) for name, value in query.items()},
            skip_auto_headers=["Content-Type"],
        ) as answer:
            reply = Reply(answer.status, answer.content_type, await answer.read(), answer.headers)
        if status is not None and reply.status != status:
            raise AssertionError(f"{method} {where}: {reply.status} {reply.text}")
        return reply

    async def get(self, who: str | None, path: str, *, status: int | None = 200, **query: Any) -> Reply:
        """GET something."""
        return await self.call(who, "GET", path, status=status, **query)

    async def post(
        self, who: str | None, path: str, body: Any = None, *, status: int | None = 200, **query: Any
    ) -> Reply:
        """POST something."""
        return await self.call(who, "POST", path, body, status=status, **query)

    async def script(self, path: str, *, who: str = "ann", **fields: Any) -> str:
        """Deploy a script and return its hash."""
        body = {"path": path, "content": f"def main(): return {path!r}", "language": "python3", "summary": "", **fields}
        return (await self.post(who, "scripts/create", body, status=201)).text

    async def flow(self, path: str, modules: Any = (), *, who: str = "ann", **fields: Any) -> int:
        """Deploy a flow and return the number of its version."""
        body = {"path": path, "summary": "", "value": {"modules": list(modules)}, **fields}
        await self.post(who, "flows/create", body, status=201)
        version: int = (await self.get(who, f"flows/get/{path}")).json["version_id"]
        return version

    async def run(self, path: str, args: Any = None, *, who: str = "ann", **query: Any) -> uuid.UUID:
        """Request a job of a script and return its id."""
        return uuid.UUID((await self.post(who, f"jobs/run/p/{path}", args or {}, status=201, **query)).text)

    async def preview(self, content: str = "x", *, who: str = "ann", **query: Any) -> uuid.UUID:
        """Request a job of some code and return its id."""
        body = {"content": content, "language": "bash", "args": {}}
        return uuid.UUID((await self.post(who, "jobs/run/preview", body, status=201, **query)).text)

    def hint(self, message: Message, **also: str) -> None:
        """Say something as a worker does."""
        self.broker.hint(hint_of(message, "/tidemill/worker", **also))

    async def audited(self) -> list[Mapping[str, Any]]:
        """Return what was said to the audit service and not yet heard, oldest first."""
        rows = await self.queue.look.fetch("SELECT body FROM bus.outbox WHERE key LIKE 'audit.%' ORDER BY id")
        return [json.loads(row["body"])["data"] for row in rows]


@asynccontextmanager
async def house(
    urls: DatabaseUrls, *, broker: Broker | None = None, poll: timedelta = timedelta(seconds=30), **settings: Any
) -> AsyncIterator[House]:
    """Open an api for the block; its poll is so slow by default that only messages can be what wakes a waiter."""
    between = broker or MemoryBroker()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(urls[Service.API], name="api"))
        outbox = Outbox(database, between)
        await stack.enter_async_context(background(outbox.run()))
        frame = Frame(
            settings=ChassisSettings(),
            environ={},
            database=database,
            broker=between,
            outbox=outbox,
            health=Health(),
            clock=SystemClock(),
        )
        room = await stack.enter_async_context(
            waiting_room(
                database, between, ReplicaId(secrets.token_hex(8)), poll=poll, linger=timedelta(milliseconds=50)
            )
        )
        context = await stack.enter_async_context(open_context(frame, ApiSettings(**settings), room))
        app = web.Application(client_max_size=2**62)
        routes = (*SCRIPTS, *FLOWS, *JOBS, *APPROVALS, *FLOW_STATES, *METRICS)
        app.router.add_route("*", "/{path:.*}", HttpFrame(context, routes, PAGES).answer)
        app.on_response_prepare.append(add_headers)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)))
        queue = await stack.enter_async_context(queue_of(urls))
        yield House(f"http://127.0.0.1:{runner.addresses[0][1]}", session, queue, between, room, context)
