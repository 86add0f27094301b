"""The api over real HTTP, on a real Postgres and a memory broker, with the audit service beside it.

ann = await api.person("ann", workspace="starter")           a member with a token of their own
answer = await ann.get("/users/whoami")
assert answer.status == 200
assert answer.json["email"] == ann.email
"""

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from yarl import URL

from tests.support.database import DatabaseUrls
from tests.support.installation import free_port
from tests.support.queue import Queue, queue_of
from tests.support.services import running
from tests.support.waiting import eventually
from tidemill.api.service import SERVICE as API
from tidemill.api.tokens.rules import mint
from tidemill.audit.service import SERVICE as AUDIT
from tidemill.chassis.broker import Broker
from tidemill.chassis.service import ServiceSpec
from tidemill.chassis.telemetry import telemetry

ADMIN_EMAIL = "admin@tidemill.local"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """The body decoded; fails when it does not say that it is JSON."""
        assert self.content_type == "application/json", self.text
        return json.loads(self.text)

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0]


@dataclass(frozen=True)
class Client:
    """Somebody who calls the api with a token."""

    session: aiohttp.ClientSession
    url: str
    token: str = field(default="", repr=False)
    email: str = ""
    username: str = ""

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        query: Any = None,
    ) -> Answer:
        """Call a path below /api, written as it goes over the wire."""
        sent = dict(headers or {})
        if self.token and not {"Authorization", "Cookie"} & sent.keys() and "token=" not in path:
            sent["Authorization"] = f"Bearer {self.token}"
        if body is not None:
            data = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        # Encoded already: what a test writes is what is sent.
        url = URL(f"{self.url}/api{path}", encoded=True)
        async with self.session.request(
            method,
            url,
            data=data,
            headers=sent,
            params=query,
            skip_auto_headers=["Content-Type"],
            allow_redirects=False,
        ) as answer:
            return Answer(answer.status, await answer.text(), answer.headers)

    async def get(self, path: str, **how: Any) -> Answer:
        return await self.call("GET", path, **how)

    async def post(self, path: str, body: Any = None, **how: Any) -> Answer:
        return await self.call("POST", path, body, **how)

    async def delete(self, path: str, **how: Any) -> Answer:
        return await self.call("DELETE", path, **how)

    def with_token(self, token: str) -> "Client":
        """Return somebody with another token."""
        return replace(self, token=token)


@dataclass(frozen=True)
class Api:
    """A running api and its database."""

    url: str
    home: Path
    urls: DatabaseUrls
    broker: Broker
    session: aiohttp.ClientSession
    look: "asyncpg.Pool[asyncpg.Record]"
    """Asks as the superuser, for what no client may see."""
    queue: Queue

    @property
    def nobody(self) -> Client:
        """Somebody without a token."""
        return Client(self.session, self.url)

    @property
    def password(self) -> str:
        """The first admin's password."""
        return (self.home / "admin-password").read_text().strip()

    async def person(
        self,
        name: str,
        *,
        workspace: str | None = None,
        is_admin: bool = False,
        operator: bool = False,
        super_admin: bool = False,
        password_hash: str | None = None,
    ) -> Client:
        """Return a new person with a token, and as what they are a member of a workspace."""
        email = f"{name}-{secrets.token_hex(4)}@example.com"
        await self.look.execute(
            "INSERT INTO platform.person (email, super_admin, password_hash) VALUES ($1, $2, $3)",
            email,
            super_admin,
            password_hash,
        )
        username = email.partition("@")[0]
        if workspace is not None:
            await self.look.execute(
                "INSERT INTO platform.member (workspace_id, username, email, is_admin, operator)"
                " VALUES ($1, $2, $3, $4, $5)",
                workspace,
                username,
                email,
                is_admin,
                operator,
            )
        return Client(self.session, self.url, await self.token_for(email), email, username)

    async def admin(self) -> Client:
        """Return the first admin with a new token."""
        return Client(self.session, self.url, await self.token_for(ADMIN_EMAIL), ADMIN_EMAIL, "admin")

    async def token_for(
        self,
        email: str,
        *,
        read_only: bool = False,
        workspace: str | None = None,
        expires_in: str | None = None,
        scopes: Sequence[str] | None = None,
    ) -> str:
        """Return a new token of a person; `expires_in` is an interval."""
        secret = mint()
        await self.look.execute(
            "INSERT INTO platform.token (hash, prefix, email, read_only, workspace_id, expires_at, scopes)"
            " VALUES ($1, $2, $3, $4, $5, clock_timestamp() + $6::text::interval, $7)",
            secret.hash,
            secret.prefix,
            email,
            read_only,
            workspace,
            expires_in,
            scopes,
        )
        return secret.text

    async def workspace(self) -> str:
        """Return a new workspace."""
        name = f"w{secrets.token_hex(4)}"
        await self.look.execute(
            "INSERT INTO platform.workspace (id, name, owner) VALUES ($1, $1, $2)", name, ADMIN_EMAIL
        )
        return name

    async def audited(self, **matching: str) -> list[asyncpg.Record]:
        """Return the audit entries with these values, once there is one."""
        where = " AND ".join(f"{name} = ${at}" for at, name in enumerate(matching, 1))

        async def look() -> list[asyncpg.Record]:
            return await self.look.fetch(f"SELECT * FROM audit.entry WHERE {where} ORDER BY id", *matching.values())

        return await eventually(look)


@asynccontextmanager
async def an_api(
    urls: DatabaseUrls, home: Path, settings: Mapping[str, str] | None = None, also: Sequence[ServiceSpec] = ()
) -> AsyncIterator[Api]:
    """Run an api for the block, with further services beside it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = {
        "TIDEMILL_HOME": str(home),
        "TIDEMILL_PORT": str(port),
        "TIDEMILL_API_URL": url,
        **(settings or {}),
    }
    async with AsyncExitStack() as stack:
        stack.enter_context(telemetry("api"))
        queue = await stack.enter_async_context(queue_of(urls))
        broker = await stack.enter_async_context(running(urls, AUDIT, API, *also, settings=environ))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(30))
        )
        yield Api(url, home, urls, broker, session, queue.look, queue)


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    """An api that this test's module shares."""
    async with an_api(database_urls, tmp_path_factory.mktemp("home")) as running_api:
        yield running_api
