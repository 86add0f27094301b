"""Scripts with packages through a whole installation: deployed, served, kept, shown, and asked about as clients do."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.support.installation import Installation, installation
from tests.support.wheels import a_wheel, only_from

PATH = "u/admin/uses_tinyone"
V1 = "def main():\n    return 'without'\n"
V2 = "import tinyone\ndef main():\n    return tinyone.__version__\n"
V3 = "import tinyone, nosuch\ndef main():\n    return 'never'\n"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    a_wheel(folder, "tinyone")
    a_wheel(folder, "wmill", code="def whoami(): return 'the SDK'\n")
    return folder


@pytest_asyncio.fixture(scope="module")
async def tidemill(wheels: Path) -> AsyncIterator[Installation]:
    async with installation("all-in-one", only_from(wheels)) as running:
        yield running


async def settled(tidemill: Installation, version: str) -> Any:
    """Return how the deployment of a version has ended."""
    async with asyncio.timeout(60):
        while True:
            status = await tidemill.call("GET", f"/w/:w/scripts/deployment_status/h/{version}")
            if {"lock", "lock_error_logs"} & status.keys():
                return status
            await asyncio.sleep(0.05)


async def result_of(tidemill: Installation, path: str = PATH) -> Any:
    return await tidemill.call("POST", f"/w/:w/jobs/run_wait_result/p/{path}", {})


async def test_a_version_serves_when_its_lock_is_there_and_never_without(tidemill: Installation) -> None:
    first = await tidemill.save_script(PATH, V1)
    second = await tidemill.save_script(PATH, V2, parent_hash=first)
    status = await settled(tidemill, second)
    assert "tinyone==1.0" in status["lock"]
    assert await result_of(tidemill) == "1.0"
    third = await tidemill.save_script(PATH, V3, parent_hash=second)
    status = await settled(tidemill, third)
    assert "nosuch" in status["lock_error_logs"]
    assert await result_of(tidemill) == "1.0"
    shown = await tidemill.call("GET", f"/w/:w/scripts/get/p/{PATH}")
    assert (shown["hash"], shown["lock_error_logs"]) == (third, status["lock_error_logs"])
    log = await tidemill.call("GET", f"/w/:w/jobs_u/get_logs/{status['job_id']}")
    assert "nosuch was not found" in log
    fourth = await tidemill.save_script(PATH, V3.replace(", nosuch", ""), parent_hash=third)
    assert "tinyone==1.0" in (await settled(tidemill, fourth))["lock"]
    assert await result_of(tidemill) == "never"


async def test_a_preview_and_the_sdk_find_their_packages(tidemill: Installation) -> None:
    code = "import wmill\ndef main():\n    return wmill.whoami()\n"
    body = {"content": code, "language": "python3", "args": {}}
    assert await tidemill.call("POST", "/w/:w/jobs/run_wait_result/preview", body) == "the SDK"


async def test_a_client_asks_for_a_lock_with_nothing_but_its_cookie(tidemill: Installation) -> None:
    asked = {
        "raw_scripts": [{"raw_code": V2, "language": "python3", "script_path": "f/a/b"}],
        "raw_workspace_dependencies": None,
        "entrypoint": "f/a/b",
        "temp_script_refs": None,
    }
    base = f"{tidemill.url}/api/w/{tidemill.workspace}/jobs"
    async with aiohttp.ClientSession(cookies={"token": tidemill.token}) as session:
        async with session.post(f"{base}/run/dependencies_async", json=asked) as answer:
            assert answer.status == 201
            job = await answer.text()
        async with asyncio.timeout(60):
            done: dict[str, Any] = {}
            while not done.get("completed"):
                async with session.get(f"{base}_u/completed/get_result_maybe/{job}?get_started=false") as answer:
                    done = json.loads(await answer.text())
        assert done["success"]
        assert "tinyone==1.0" in done["result"]["lock"]
        async with session.post(f"{base}/run/dependencies", json=asked) as answer:
            assert answer.status == 201
            assert await answer.json() == done["result"]
