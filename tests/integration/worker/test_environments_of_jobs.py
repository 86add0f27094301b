"""Jobs of a real worker with packages: in the real sandbox, from the queue to the outcome."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.integration.worker.test_worker import ask, finished, log_of, says
from tests.support.database import DatabaseUrls
from tests.support.package_index import package_index
from tests.support.queue import Queue, queue_of
from tests.support.services import running
from tests.support.wheels import a_wheel, only_from
from tidemill.chassis.broker import Broker
from tidemill.worker import run
from tidemill.worker.environments import build
from tidemill.worker.environments.interpreters import Interpreter, Interpreters
from tidemill.worker.service import SERVICE

USES = "import tinyone\ndef main():\n    return tinyone.__version__\n"
PARALLEL = 500


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    a_wheel(folder, "tinyone")
    return folder


@pytest.fixture
async def queue(own_database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    async with queue_of(own_database_urls) as queue:
        yield queue


@pytest.fixture
async def broker(own_database_urls: DatabaseUrls, queue: Queue, tmp_path: Path, wheels: Path) -> AsyncIterator[Broker]:
    settings = {"TIDEMILL_WORKER_SLOTS": "16", "TIDEMILL_CACHE": str(tmp_path / "cache"), **only_from(wheels)}
    async with running(own_database_urls, SERVICE, settings=settings) as broker:
        yield broker


@pytest.mark.slow
async def test_five_hundred_jobs_with_one_cold_dependency_cost_one_installation_and_none_fails(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed: list[Path] = []
    install = build._install

    async def counted(*values: object) -> None:
        installed.append(values[3])  # type: ignore[arg-type]
        await install(*values)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "_install", counted)
    jobs = await asyncio.gather(*(ask(queue, broker, USES) for _ in range(PARALLEL)))
    rows = [await finished(queue, job) for job in jobs]
    assert [row["result"] for row in rows if row["outcome"] != "success"] == []
    assert {row["result"] for row in rows} == {'"1.0"'}
    assert len(installed) == 1


async def test_a_job_tells_in_its_log_what_was_installed_for_it(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, USES)
    assert json.loads((await finished(queue, job))["result"]) == "1.0"
    log = await log_of(queue, job)
    assert [word in log for word in ("resolving 1 requirement", "installing 1 package ...", "took")] == [True] * 3
    again = await ask(queue, broker, USES)
    await finished(queue, again)
    assert "install" not in await log_of(queue, again)


async def test_a_job_can_not_change_what_the_next_one_imports(queue: Queue, broker: Broker) -> None:
    attack = """
import os, pathlib, tinyone
def main():
    folder = pathlib.Path(tinyone.__file__).parent
    refused = []
    for attempt in (
        lambda: (folder / "__init__.py").write_text("__version__ = 'evil'"),
        lambda: (folder / "more.py").write_text("evil"),
        lambda: (folder / "__init__.py").chmod(0o777),
        lambda: (folder / "__init__.py").unlink(),
        lambda: folder.parent.rename("/job/away"),
    ):
        try:
            attempt()
        except OSError as error:
            refused.append(type(error).__name__)
    return [len(refused), str(folder)]
"""
    refused, folder = json.loads((await finished(queue, await ask(queue, broker, attack)))["result"])
    assert refused == 5
    assert folder == "/env/0/tinyone", "the worker's own folders are not for jobs to know"
    assert json.loads((await finished(queue, await ask(queue, broker, USES)))["result"]) == "1.0"


async def test_a_job_whose_packages_can_not_be_had_fails_and_says_why(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, "import nosuch\ndef main(): pass\n")
    row = await finished(queue, job)
    error = json.loads(row["result"])["error"]
    assert (row["outcome"], error["name"]) == ("failure", "ResolutionFailed")
    assert "nosuch was not found" in error["message"]
    assert "nosuch was not found" in await log_of(queue, job)


@pytest.mark.parametrize(("is_our_own", "claims"), [(False, 1), (True, 2)])
async def test_a_job_for_which_no_sandbox_can_be_had_fails_in_the_end_and_says_why(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch, *, is_our_own: bool, claims: int
) -> None:
    broken = Interpreter("/nowhere/python", "3.11.9")

    async def find(*_: object) -> Interpreter:
        return broken

    monkeypatch.setattr(Interpreters, "find", find)
    monkeypatch.setattr(run, "_LONGEST_PAUSE", timedelta(milliseconds=300))
    monkeypatch.setattr(run, "_MOST_CLAIMS", 2)
    if is_our_own:
        monkeypatch.setattr(run, "own_interpreter", lambda: broken.path)
    job = await ask(queue, broker, "def main(): pass\n")
    row = await finished(queue, job)
    error = json.loads(row["result"])["error"]
    assert (row["outcome"], row["claims"], error["name"]) == ("failure", claims, "SandboxUnavailable")
    assert broken.path in error["message"]
    assert "[no sandbox: " in await log_of(queue, job)


async def test_a_job_for_a_lock_answers_it_and_runs_nothing(queue: Queue, broker: Broker) -> None:
    asked = {"kind": "dependencies", "tag": "dependency"}
    code = "import tinyone\nprint('it ran')\n"
    job = await ask(queue, broker, code, **asked)
    lock = json.loads((await finished(queue, job))["result"])["lock"]
    assert lock.startswith("# py: 3.")
    assert "tinyone==1.0" in lock
    assert "it ran" not in await log_of(queue, job)
    for language, code in (("python3", "import os"), ("bash", "echo it ran")):
        nothing = await ask(queue, broker, code, language=language, **asked)
        assert json.loads((await finished(queue, nothing))["result"]) == {"lock": ""}


def a_flow(*contents: str, **first: str) -> str:
    """Return the value of a flow of Python steps called a, b, ..., the first one with these fields."""
    values = [{"type": "rawscript", "language": "python3", "content": content} for content in contents]
    values[0] |= first
    return json.dumps({"modules": [{"id": chr(97 + no), "value": value} for no, value in enumerate(values)]})


async def test_a_job_for_the_locks_of_a_flow_finds_those_that_are_missing(queue: Queue, broker: Broker) -> None:
    asked = {"kind": "flowdependencies", "tag": "dependency", "language": ""}
    job = await ask(queue, broker, a_flow(USES, "import os", USES, lock="mine"), **asked)
    result = json.loads((await finished(queue, job))["result"])
    assert result["locks"].keys() == {"b", "c"}
    locks = [each["value"]["lock"] for each in result["updated_flow_value"]["modules"]]
    assert locks[:2] == ["mine", ""]
    assert locks[2] == result["locks"]["c"]
    assert "tinyone==1.0" in locks[2]
    log = await log_of(queue, job)
    assert [line in log for line in ("b: 0 packages", "c: looking for", "c: 1 package")] == [True] * 3
    failing = await ask(queue, broker, a_flow("import os", "import nosuch"), **asked)
    error = json.loads((await finished(queue, failing))["result"])["error"]
    assert error["name"] == "ResolutionFailed"
    assert error["message"].startswith("b: ")


async def test_the_locks_of_a_deployed_flow_are_kept_with_the_end_of_their_job(queue: Queue, broker: Broker) -> None:
    await queue.look.execute("INSERT INTO platform.workspace (id, name, owner) VALUES ('w', 'w', 'o')")
    job = uuid.uuid4()
    version = await queue.look.fetchval(
        "WITH f AS (INSERT INTO platform.flow (workspace_id, path) VALUES ('w', 'u/ann/f') RETURNING id)"
        " INSERT INTO platform.flow_version (flow_id, summary, description, value, visible_to_runner_only, created_by,"
        " lock_job) SELECT f.id, '', '', $1, false, 'ann', $2 FROM f RETURNING id",
        a_flow(USES),
        job,
    )
    asked = {"kind": "flowdependencies", "tag": "dependency", "language": "", "hash": str(version), "id": job}
    await ask(queue, broker, None, chosen_id=True, **asked)
    result = json.loads((await finished(queue, job))["result"])
    kept = await queue.look.fetchval("SELECT locks FROM platform.flow_version WHERE id = $1", version)
    assert json.loads(kept) == result["locks"]
    assert "tinyone==1.0" in result["locks"]["a"]
    gone = await ask(queue, broker, None, **{**asked, "hash": "0", "id": uuid.uuid4()}, chosen_id=True)
    assert json.loads((await finished(queue, gone))["result"])["error"]["name"] == "FlowGone"


async def test_a_job_that_waits_for_its_packages_can_be_canceled(
    own_database_urls: DatabaseUrls, queue: Queue, tmp_path: Path, wheels: Path
) -> None:
    async with package_index(wheels) as index:
        index.hangs = True
        settings = {"TIDEMILL_CACHE": str(tmp_path / "cache"), "UV_DEFAULT_INDEX": index.url}
        async with running(own_database_urls, SERVICE, settings=settings) as broker:
            job = await ask(queue, broker, USES)
            await asyncio.wait_for(index.somebody_waits.wait(), 30)
            await says(queue, job, "resolving")
            await queue.cancel(job)
            assert (await finished(queue, job))["outcome"] == "canceled"


async def test_a_job_has_no_more_time_for_its_packages_than_for_itself(
    own_database_urls: DatabaseUrls, queue: Queue, tmp_path: Path, wheels: Path
) -> None:
    async with package_index(wheels) as index:
        index.hangs = True
        settings = {"TIDEMILL_CACHE": str(tmp_path / "cache"), "UV_DEFAULT_INDEX": index.url}
        async with running(own_database_urls, SERVICE, settings=settings) as broker:
            for kind, tag in (("preview", "python3"), ("dependencies", "dependency")):
                row = await finished(queue, await ask(queue, broker, USES, kind=kind, tag=tag, timeout_s=1))
                assert row["outcome"] == "failure"
                assert "not there within 1 s" in json.loads(row["result"])["error"]["message"]
