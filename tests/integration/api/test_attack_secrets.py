"""A25: what is secret is in no row, no log line and no answer, after a run through everything that touches it."""

import base64
import io
import json
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.api.conftest import ADMIN_EMAIL, Client
from tests.integration.api.ground import Ground, Plot, a_ground, good_request
from tests.support.database import DatabaseUrls
from tidemill.api.app import OWN_ROUTES
from tidemill.api.tokens.rules import is_job_token
from tidemill.audit.key import kept
from tidemill.chassis.telemetry import configure_logging

# What a job says of its token here is turned around, so that the token itself stands nowhere.
TELL = "import os\ndef main():\n    print(os.environ['WM_TOKEN'][::-1])\n    return os.environ['WM_TOKEN'][::-1]"
FAIL = "import os\ndef main(x):\n    token = os.environ['WM_TOKEN']\n    raise RuntimeError(f'{len(token)} letters')"


@contextmanager
def everything_logged() -> Iterator[io.StringIO]:
    """Write down all that is logged in the block, with every detail, as a service writes it."""
    root, lines = logging.getLogger(), io.StringIO()
    before = root.handlers[:], root.level
    configure_logging("test", "debug", "json", lines)
    try:
        yield lines
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])


@dataclass(frozen=True)
class Aftermath:
    """What is left after the run: who still looks, the lines of the log, and what must be in none of it."""

    ground: Ground
    lines: str
    planted: Mapping[str, str]


@pytest.fixture(scope="module")
async def aftermath(database_urls: DatabaseUrls, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    home = tmp_path_factory.mktemp("home")
    settings = {"TIDEMILL_ADMIN_PASSWORD": f"first-{secrets.token_hex(8)}", "TIDEMILL_WAIT_RESULT_TIMEOUT": "60s"}
    with everything_logged() as log:
        async with a_ground(database_urls, home, settings) as ground:
            planted = {
                "the admin's password": settings["TIDEMILL_ADMIN_PASSWORD"],
                **kept_settings(database_urls, home),
            }
            planted |= await use_passwords(ground, settings["TIDEMILL_ADMIN_PASSWORD"])
            planted |= await use_tokens(ground, ground.shared)
            planted |= await use_a_job(ground.shared)
            yield Aftermath(ground, log.getvalue(), planted)


def kept_settings(urls: DatabaseUrls, home: Path) -> Mapping[str, str]:
    """Return what the services were told or made that nobody else may know."""
    password = urlsplit(next(iter(urls.values()))).password
    assert password
    return {"the database's password": password, "the audit key": kept(home / "secrets" / "audit-key").hex()}


async def use_passwords(ground: Ground, first: str) -> Mapping[str, str]:
    """Log in, rightly and wrongly, make somebody and change their password."""
    boss, nobody = ground.shared.who, ground.api.nobody
    made, own, others, wrong = (f"{name}-{secrets.token_hex(8)}" for name in ("made", "own", "others", "wrong"))
    email = f"somebody-{secrets.token_hex(4)}@example.com"
    sessions = {}
    sessions["the admin's session"] = (await nobody.post("/auth/login", {"email": ADMIN_EMAIL, "password": first})).text
    assert (await nobody.post("/auth/login", {"email": email, "password": wrong})).status == 401
    assert (await boss.post("/users/create", {"email": email, "password": made, "super_admin": False})).status == 201
    assert (await nobody.post("/auth/login", {"email": email, "password": wrong})).status == 401
    session = await nobody.post("/auth/login", {"email": email, "password": made})
    sessions["a session"] = session.text
    somebody = Client(ground.api.session, ground.api.url, session.text)
    assert (await somebody.post("/users/setpassword", {"password": own})).status == 200
    assert (await boss.post(f"/users/set_password_of/{email}", {"password": others})).status == 200
    assert (await boss.post(f"/users/set_password_of/{email}", {"password": ["x", others]})).status == 422
    passwords = {"a password": made, "a changed one": own, "one that was set": others, "a wrong one": wrong}
    return {**passwords, **sessions}


async def use_tokens(ground: Ground, plot: Plot) -> Mapping[str, str]:
    """Make a token and send it in every way, to what is there and to what is not."""
    token = (await plot.who.post("/users/tokens/create", {"label": "planted"})).text
    nobody, here = ground.api.nobody, f"/w/{plot.workspace}"
    run = f"{here}/jobs/run/p/u/boss/greet"
    for path in (f"{here}/users/whoami", "/nothing", run, f"{here}/jobs_u/getupdate_sse/{plot.job}"):
        method = "POST" if path == run else "GET"
        for how in ({"Authorization": f"Bearer {token}"}, {"Cookie": f"token={token}"}):
            await nobody.call(method, path, headers=how)
        await nobody.call(method, f"{path}?token={token}&include_query=name")
    refused = await nobody.post(f"{run}?token={token}&include_query=token")
    assert refused.status == 400, refused.text
    unknown = f"unknown{secrets.token_hex(16)}"
    assert (await nobody.with_token(unknown).get("/users/whoami")).status == 401
    return {"a token": token, "the boss's token": plot.who.token, "an unknown token": unknown}


async def use_a_job(plot: Plot) -> Mapping[str, str]:
    """Let a job look at its token, fail, and wait."""
    here = f"/w/{plot.workspace}"

    async def run(content: str) -> str:
        code = {"content": content, "language": "python3", "args": {"x": 1} if content == FAIL else {}}
        answer = await plot.who.post(f"{here}/jobs/run_wait_result/preview", code)
        assert answer.status == 200, answer.text
        return answer.text

    token = json.loads(await run(TELL))[::-1]
    assert is_job_token(token)
    assert "RuntimeError" in await run(FAIL)
    return {"a job's token": token}


def written(secret: str) -> set[str]:
    """Return how a secret may stand in a text."""
    raw = secret.encode()
    return {secret, raw.hex(), base64.b64encode(raw).decode().rstrip("="), json.dumps(secret)[1:-1]}


def found(text: str, planted: Mapping[str, str]) -> list[str]:
    return [name for name, secret in planted.items() if any(each in text for each in written(secret))]


async def test_a25_no_secret_is_in_a_row(aftermath: Aftermath) -> None:
    """A25: passwords, tokens, job tokens and settings, in all columns of all tables of all schemas."""
    look = aftermath.ground.api.look
    tables = await look.fetch(
        "SELECT format('%I.%I', n.nspname, c.relname) AS name"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1"
    )
    assert {row["name"].partition(".")[0] for row in tables} >= {"platform", "queue", "audit", "bus"}
    rows = 0
    for table in tables:
        for row in await look.fetch(f"SELECT each::text AS text FROM {table['name']} each"):
            rows += 1
            assert found(row["text"], aftermath.planted) == [], f"{table['name']}: {row['text']}"
    assert rows > 50


async def test_a25_no_secret_is_in_a_line_of_the_log(aftermath: Aftermath) -> None:
    """A25: at the level where most is said."""
    lines = aftermath.lines.splitlines()
    assert {json.loads(line)["service"] for line in lines} >= {"api", "worker", "audit"}
    for line in lines:
        assert found(line, aftermath.planted) == [], line


async def test_a25_no_answer_shows_a_secret(aftermath: Aftermath) -> None:
    """A25: whatever can be read: jobs with their arguments and results, lists, the audit log, the document."""
    plot, asked = aftermath.ground.shared, 0
    for route in OWN_ROUTES:
        if route.method == "GET":
            _, good = await good_request(aftermath.ground, route)
            answer = await plot.who.get(route.path.replace("...}", "}").format(**good.named))
            asked += 1
            assert found(answer.text, aftermath.planted) == [], f"{route.name}: {answer.text}"
    for workspace in (plot.workspace, "admins"):
        log = await plot.who.get(f"/w/{workspace}/audit/list?per_page=1000")
        assert len(log.json) > 1
        assert found(log.text, aftermath.planted) == []
    assert asked > 40


async def test_a25_what_looks_for_secrets_finds_them(aftermath: Aftermath) -> None:
    """The tests above can fail: what the job said turned around is found in its row."""
    turned = {"turned": aftermath.planted["a job's token"][::-1]}
    look = aftermath.ground.api.look
    rows = await look.fetch("SELECT each::text AS text FROM queue.finished_job each")
    assert any(found(row["text"], turned) for row in rows)
