"""A28: whatever is done to the audit log or to the service that writes it, nothing is lost and nothing goes unseen."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from tests.integration.api.conftest import Api, Client, an_api
from tests.support.database import DatabaseUrls, connected
from tests.support.installation import free_port
from tests.support.services import running
from tests.support.waiting import eventually
from tidemill.api.service import SERVICE as API
from tidemill.api.tokens.rules import mint
from tidemill.audit.command import verified
from tidemill.scheduler.service import SERVICE as SCHEDULER
from tidemill.shared.catalog import Service

MANY = 300


async def label_many(boss: Client, count: int) -> None:
    """Change something so many times, all at once."""
    answers = await asyncio.gather(
        *(boss.post(f"/users/tokens/update_label/{boss.token[:10]}", {"label": f"n{each}"}) for each in range(count))
    )
    assert {each.status for each in answers} == {200}


async def entries(urls: DatabaseUrls) -> list[str]:
    """Return what was written down about labels."""
    async with connected(urls.admin) as look:
        rows = await look.fetch("SELECT parameters::text AS told FROM audit.entry WHERE operation = 'users.update'")
        return [row["told"] for row in rows]


async def is_whole(home: Path) -> bool:
    return await verified({"TIDEMILL_HOME": str(home)}, None)


@asynccontextmanager
async def an_api_alone(urls: DatabaseUrls, home: Path) -> AsyncIterator[Client]:
    """Run an api whose audit service is away, for the block."""
    port = free_port()
    settings = {"TIDEMILL_HOME": str(home), "TIDEMILL_PORT": str(port)}
    secret = mint()
    async with (
        running(urls, API, settings=settings),
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session,
        connected(urls.admin) as look,
    ):
        await look.execute(
            "INSERT INTO platform.token (hash, prefix, email) SELECT $1, $2, email FROM platform.person",
            secret.hash,
            secret.prefix,
        )
        yield Client(session, f"http://127.0.0.1:{port}", secret.text)


async def test_a28_what_happens_while_nobody_writes_it_down_is_written_down_later(
    own_database_urls: DatabaseUrls, tmp_path: Path
) -> None:
    """A28: the audit service is stopped; even when all else stops as well, nothing is lost and nothing is twice."""
    async with an_api_alone(own_database_urls, tmp_path) as boss:
        await label_many(boss, 20)
        assert await entries(own_database_urls) == []
    async with an_api(own_database_urls, tmp_path, also=(SCHEDULER,)):

        async def all_there() -> bool:
            return len(await entries(own_database_urls)) >= 20

        await eventually(all_there, 60)
        assert len(set(await entries(own_database_urls))) == len(await entries(own_database_urls)) == 20
        assert await is_whole(tmp_path)


async def test_a28_a_flood_is_written_down_to_the_last_drop(own_database_urls: DatabaseUrls, tmp_path: Path) -> None:
    """A28: many at once from one person: each is there once, and the chain is whole."""
    async with an_api(own_database_urls, tmp_path) as api:
        await label_many(await api.admin(), MANY)

        async def all_there() -> bool:
            return len(await entries(own_database_urls)) >= MANY

        await eventually(all_there, 90)
        assert len(set(await entries(own_database_urls))) == len(await entries(own_database_urls)) == MANY
        assert await is_whole(tmp_path)


DONE_TO_IT: Mapping[str, tuple[str, str]] = {
    "edited": ("UPDATE audit.entry SET username = 'bob' WHERE workspace_id = '' AND seq = 3", "row 3: altered"),
    "deleted": ("DELETE FROM audit.entry WHERE workspace_id = '' AND seq = 3", "row 3: "),
    "inserted": (
        "INSERT INTO audit.entry SELECT nextval('audit.entry_id'), workspace_id, 6, gen_random_uuid(), recorded_at, at,"
        " 'bob', email, operation, action_kind, resource, parameters, span, previous_hash, hash FROM audit.entry"
        " WHERE workspace_id = '' AND seq = 5",
        "row 6: ",
    ),
}


@pytest.mark.parametrize("how", DONE_TO_IT)
async def test_a28_the_command_names_the_row_that_somebody_touched(
    own_database_urls: DatabaseUrls, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """A28: by the owner of the database, whom no right and no trigger stops."""
    statement, named = DONE_TO_IT[how]
    async with an_api(own_database_urls, tmp_path) as api:
        await label_many(await api.admin(), 5)

        async def all_there() -> bool:
            return len(await entries(own_database_urls)) == 5

        await eventually(all_there)
        assert await is_whole(tmp_path)
        async with connected(own_database_urls.admin) as forger:
            await forger.execute("SET session_replication_role = replica")
            await forger.execute(statement)
        capsys.readouterr()
        assert not await is_whole(tmp_path)
    assert f"workspace '', {named}" in capsys.readouterr().out


@pytest.mark.parametrize("service", Service)
async def test_a28_no_service_may_change_what_is_written(api: Api, service: Service) -> None:
    """A28: whoever takes a service over appends at most."""
    async with connected(api.urls[service]) as login:
        for statement in (
            "UPDATE audit.entry SET username = 'bob'",
            "DELETE FROM audit.entry",
            "TRUNCATE audit.entry",
            "DROP TABLE audit.entry",
            "ALTER TABLE audit.entry DISABLE TRIGGER ALL",
            "UPDATE audit.chain SET hash = ''",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await login.execute(statement)
