"""The unmodified `wmill` package from PyPI against both shapes."""

import asyncio
import datetime as dt
import time
from collections.abc import Callable
from typing import Any

import pytest
from wmill import Windmill

from tests.support.installation import Installation

GREET = """\
import os

def main(name: str, times: int = 1):
    print("greeting", name)
    return {"greeting": " ".join(["hello"] * times + [name]), "by": os.environ["WM_USERNAME"]}
"""
FAIL = """\
def main():
    raise ValueError("no such luck")
"""
SLOW = """\
import time

def main():
    print("going to sleep", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def client(tidemill: Installation) -> Windmill:
    return logged_in(tidemill, tidemill.token)


def logged_in(tidemill: Installation, token: str) -> Windmill:
    return Windmill(base_url=tidemill.url, token=token, workspace=tidemill.workspace)  # type: ignore[no-untyped-call]  # the package's constructor is untyped


async def in_thread(work: Callable[[], Any]) -> Any:
    """The SDK is synchronous; the servers' output is read by this loop."""
    return await asyncio.to_thread(work)


async def ensure(tidemill: Installation, path: str, content: str, language: str = "python3") -> str:
    if await tidemill.call("GET", f"/w/:w/scripts/exists/p/{path}"):
        script = await tidemill.call("GET", f"/w/:w/scripts/get/p/{path}")
        return str(script["hash"])
    return await tidemill.save_script(path, content, language)


async def test_it_knows_who_it_is(tidemill: Installation, client: Windmill) -> None:
    me = await in_thread(client.whoami)
    assert me["email"] == "admin@tidemill.local"
    assert me["super_admin"] is True


async def test_a_script_runs_by_its_path(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/greet", GREET)
    result = await in_thread(
        lambda: client.run_script_by_path("u/admin/greet", {"name": "you", "times": 2}, timeout=30)
    )
    assert result == {"greeting": "hello hello you", "by": "admin"}


async def test_a_script_runs_by_its_hash(tidemill: Installation, client: Windmill) -> None:
    script_hash = await ensure(tidemill, "u/admin/greet", GREET)
    result = await in_thread(lambda: client.run_script_by_hash(script_hash, {"name": "hash"}, timeout=30))
    assert result["greeting"] == "hello hash"


async def test_a_job_can_be_started_and_waited_for(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/greet", GREET)
    job = await in_thread(lambda: client.run_script_by_path_async("u/admin/greet", {"name": "later"}))
    assert (await in_thread(lambda: client.wait_job(job, timeout=30)))["greeting"] == "hello later"
    assert await in_thread(lambda: client.get_job_status(job)) == "COMPLETED"
    assert (await in_thread(lambda: client.get_result(job)))["greeting"] == "hello later"
    assert "greeting later" in await tidemill.call("GET", f"/w/:w/jobs_u/get_logs/{job}")


async def test_a_failing_script_tells_what_went_wrong(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/fail", FAIL)
    with pytest.raises(Exception, match="no such luck"):
        await in_thread(lambda: client.run_script_by_path("u/admin/fail", {}, timeout=30))
    (job,) = await tidemill.call("GET", "/w/:w/jobs/list", script_path_exact="u/admin/fail", per_page=1)
    result = await tidemill.call("GET", f"/w/:w/jobs_u/completed/get_result/{job['id']}")
    assert result["error"]["name"] == "ValueError"
    assert 'raise ValueError("no such luck")' in result["error"]["stack"]


async def test_a_running_job_can_be_cancelled(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/slow", SLOW)
    job = await in_thread(lambda: client.run_script_by_path_async("u/admin/slow", {}))
    await until_running(tidemill, job)
    began = time.monotonic()
    await in_thread(lambda: client.cancel_job(job, "enough"))
    done = await until_completed(tidemill, job)
    assert time.monotonic() - began < 10
    assert done["canceled"] is True
    assert done["canceled_reason"] == "enough"
    assert done["result"]["error"]["name"] == "Canceled"


async def test_cancelling_a_finished_job_is_no_error(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/greet", GREET)
    job = await in_thread(lambda: client.run_script_by_path_async("u/admin/greet", {"name": "x"}))
    await in_thread(lambda: client.wait_job(job, timeout=30))
    await in_thread(lambda: client.cancel_job(job))
    assert (await tidemill.call("GET", f"/w/:w/jobs_u/completed/get/{job}"))["canceled"] is False


async def test_a_scheduled_job_waits_for_its_time(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/greet", GREET)
    job = await in_thread(
        lambda: client.run_script_by_path_async("u/admin/greet", {"name": "soon"}, scheduled_in_secs=2)
    )
    waiting = await tidemill.call("GET", f"/w/:w/jobs_u/get/{job}")
    assert waiting["type"] == "QueuedJob"
    assert waiting["running"] is False
    done = await until_completed(tidemill, job)
    due = dt.datetime.fromisoformat(waiting["scheduled_for"])
    assert dt.datetime.fromisoformat(done["started_at"]) >= due


async def test_a_job_speaks_to_the_api_with_its_own_token(tidemill: Installation, client: Windmill) -> None:
    content = """\
import json, os, urllib.request

def main():
    request = urllib.request.Request(
        os.environ["BASE_INTERNAL_URL"] + "/api/w/" + os.environ["WM_WORKSPACE"] + "/users/whoami",
        headers={"Authorization": "Bearer " + os.environ["WM_TOKEN"]},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return {"who": json.load(answer)["username"], "backwards": os.environ["WM_TOKEN"][::-1]}
"""
    await ensure(tidemill, "u/admin/whoami", content)
    result = await in_thread(lambda: client.run_script_by_path("u/admin/whoami", {}, timeout=30))
    assert result["who"] == "admin"
    late = logged_in(tidemill, result["backwards"][::-1])
    with pytest.raises(Exception, match="401"):
        await in_thread(late.whoami)


async def test_bash_runs_as_well(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/shout", 'name="$1"\necho "working"\necho "HELLO ${name^^}"\n', "bash")
    result = await in_thread(lambda: client.run_script_by_path("u/admin/shout", {"name": "you"}, timeout=30))
    assert result == "HELLO YOU"


async def test_every_run_is_in_the_audit_log(tidemill: Installation, client: Windmill) -> None:
    await ensure(tidemill, "u/admin/greet", GREET)
    job = await in_thread(lambda: client.run_script_by_path_async("u/admin/greet", {"name": "audited"}))
    await in_thread(lambda: client.wait_job(job, timeout=30))
    for _ in range(100):
        entries = await tidemill.call("GET", "/w/:w/audit/list", operation="jobs.run.script", per_page=100)
        if mine := [
            each for each in entries if job in (each.get("span"), each["resource"], *each["parameters"].values())
        ]:
            break
        await asyncio.sleep(0.1)
    assert len(mine) == 1
    assert mine[0]["username"] == "admin"
    assert mine[0]["action_kind"] == "Execute"


async def until_running(tidemill: Installation, job: str) -> None:
    for _ in range(200):
        if (await tidemill.call("GET", f"/w/:w/jobs_u/get/{job}"))["running"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the job never ran")


async def until_completed(tidemill: Installation, job: str) -> Any:
    """Follow the job as the CLI does: tell what is known, hear what is new."""
    running = "false"
    async with asyncio.timeout(60):
        while True:
            update = await tidemill.call(
                "GET", f"/w/:w/jobs_u/getupdate/{job}", running=running, log_offset=0, no_logs="true"
            )
            if update.get("completed"):
                return await tidemill.call("GET", f"/w/:w/jobs_u/completed/get/{job}")
            running = str(update.get("running", False)).lower()
