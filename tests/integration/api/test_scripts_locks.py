"""What a deployed script needs installed: which version serves, and what is said of its lock. The worker is played."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.queue import Claim

WITH_PACKAGE = "import tinyone\ndef main():\n    return 'new'\n"
LOCK = "# py: 3.11\ntinyone==1.0\n"


@pytest.fixture(scope="module")
async def open_house(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("ann")
        await it.person("op", operator=True)
        yield it


@pytest.fixture
async def api(open_house: House) -> House:
    await open_house.queue.empty()
    await open_house.queue.look.execute("DELETE FROM platform.script")
    return open_house


async def lock_job(api: House) -> Claim:
    return await api.queue.claimed("dependency")


async def keep(api: House, claim: Claim, lock: str = LOCK) -> bool:
    """End the job as a worker does that has found the lock; return whether the version serves now."""
    assert await api.queue.finish(claim, result={"lock": lock}) == "done"
    kept: bool = await api.queue.worker.fetchval(
        "SELECT platform.keep_lock('w', $1, $2, $3)", claim.row["hash"], claim.job_id, lock
    )
    return kept


async def fail(api: House, claim: Claim, message: str = "nosuch was not found") -> None:
    error = {"error": {"name": "ResolutionFailed", "message": message}}
    assert await api.queue.finish(claim, outcome="failure", result=error) == "done"


async def served(api: House, path: str = "u/ann/s") -> str:
    """Return the version that a run by path takes."""
    await api.run(path)
    claim = await api.queue.claimed()
    await api.queue.finish(claim)
    version: str = claim.row["hash"]
    return version


async def status_of(api: House, version: str) -> Any:
    """Return what is said of the lock of a version."""
    status = (await api.get("ann", f"scripts/deployment_status/h/{version}")).json
    status.pop("serving_hash", None)
    return status


async def said_to_serve(api: House, version: str) -> str | None:
    status = (await api.get("ann", f"scripts/deployment_status/h/{version}")).json
    serving: str | None = status.get("serving_hash")
    return serving


async def test_a_version_that_needs_nothing_serves_at_once_and_asks_for_no_job(api: House) -> None:
    first = await api.script("u/ann/s")
    second = await api.script("u/ann/s", content="import os\ndef main(): pass", parent_hash=first)
    bash = await api.script("u/ann/b", content="echo", language="bash")
    assert await served(api) == second
    for version in (first, second, bash):
        assert await status_of(api, version) == {"lock": ""}
    assert await api.queue.claim("dependency") is None


async def test_what_long_content_needs_is_looked_for_by_a_job(api: House) -> None:
    old = await api.script("u/ann/s")
    new = await api.script("u/ann/s", content="x = 1\n" * 30_000 + "def main(): pass\n", parent_hash=old)
    claim = await lock_job(api)
    assert claim.row["hash"] == new
    assert await served(api) == old
    assert await keep(api, claim, "")
    assert await served(api) == new


async def test_a_lock_that_was_sent_is_final(api: House) -> None:
    first = await api.script("u/ann/s")
    second = await api.script("u/ann/s", content=WITH_PACKAGE, parent_hash=first, lock=LOCK)
    assert await served(api) == second
    assert (await api.get("ann", "scripts/get/p/u/ann/s")).json["lock"] == LOCK
    assert await api.queue.claim("dependency") is None
    third = await api.script("u/ann/s", content=WITH_PACKAGE, parent_hash=second, lock="")
    assert await served(api) == third


async def test_the_old_version_serves_until_the_lock_of_the_new_one_is_there(api: House) -> None:
    old = await api.script("u/ann/s")
    new = await api.script("u/ann/s", content=WITH_PACKAGE, parent_hash=old)
    claim = await lock_job(api)
    assert (claim.row["kind"], claim.row["hash"], claim.row["path"]) == ("dependencies", new, "u/ann/s")
    assert await served(api) == old
    shown = (await api.get("ann", "scripts/get/p/u/ann/s")).json
    assert shown["hash"] == new
    assert not {"lock", "lock_error_logs"} & shown.keys()
    assert await status_of(api, new) == {"job_id": str(claim.job_id)}
    assert await keep(api, claim)
    assert await served(api) == new
    assert (await api.get("ann", "scripts/get/p/u/ann/s")).json["lock"] == LOCK
    assert await status_of(api, new) == {"lock": LOCK, "job_id": str(claim.job_id)}


async def test_what_serves_meanwhile_is_named_and_can_be_taken_down_by_its_hash(api: House) -> None:
    old = await api.script("u/ann/s")
    new = await api.script("u/ann/s", content=WITH_PACKAGE, parent_hash=old)
    claim = await lock_job(api)
    assert (await said_to_serve(api, new), await said_to_serve(api, old)) == (old, old)
    await api.post("op", f"scripts/archive/h/{old}", status=403)
    await api.queue.look.execute("DELETE FROM bus.outbox")
    await api.post("ann", f"scripts/archive/h/{old}")
    assert [each["resource"] for each in await api.audited()] == ["u/ann/s"]
    assert await said_to_serve(api, new) is None
    await api.post("ann", "jobs/run/p/u/ann/s", {}, status=404)
    # The head stands as before, and serves once its lock is there.
    assert (await api.get("ann", "scripts/get/p/u/ann/s")).json["hash"] == new
    assert await keep(api, claim)
    assert await served(api) == await said_to_serve(api, new) == new


async def test_the_first_version_of_a_path_serves_before_its_lock_is_there(api: House) -> None:
    first = await api.script("u/ann/s", content=WITH_PACKAGE)
    assert await served(api) == first


async def test_a_lock_that_is_not_found_keeps_the_old_version_and_shows_the_message(api: House) -> None:
    old = await api.script("u/ann/s")
    new = await api.script("u/ann/s", content=WITH_PACKAGE, parent_hash=old)
    claim = await lock_job(api)
    await fail(api, claim)
    assert await served(api) == old
    assert await status_of(api, new) == {"lock_error_logs": "nosuch was not found", "job_id": str(claim.job_id)}
    for shown in (
        (await api.get("ann", "scripts/get/p/u/ann/s")).json,
        (await api.get("ann", f"scripts/get/h/{new}")).json,
        (await api.get("ann", "scripts/list")).json[0],
    ):
        assert (shown["hash"], shown["lock_error_logs"]) == (new, "nosuch was not found")


@pytest.mark.parametrize("how", ["canceled", "lost"])
async def test_a_job_that_ends_otherwise_leaves_nobody_waiting(api: House, how: str) -> None:
    await api.script("u/ann/s")
    new = await api.script("u/ann/s", content=WITH_PACKAGE, auto_parent=True)
    claim = await lock_job(api)
    if how == "canceled":
        await api.queue.cancel(claim.job_id, force=True)
        assert "canceled by bob" in (await status_of(api, new))["lock_error_logs"]
    else:
        await api.queue.look.execute("DELETE FROM queue.live_job WHERE id = $1", claim.job_id)
        await api.queue.look.execute("DELETE FROM queue.job WHERE id = $1", claim.job_id)
        assert "deploy it again" in (await status_of(api, new))["lock_error_logs"]
    again = await api.script("u/ann/s", content=WITH_PACKAGE, auto_parent=True)
    assert again != new
    assert await keep(api, await lock_job(api))
    assert await served(api) == again


async def test_the_same_content_is_nothing_new_while_its_lock_is_looked_for_and_when_it_is_there(api: House) -> None:
    body = {"path": "u/ann/s", "content": WITH_PACKAGE, "language": "python3", "summary": "", "auto_parent": True}
    first = (await api.post("ann", "scripts/create", body, status=201)).text
    assert (await api.post("ann", "scripts/create", body, status=201, skip_if_noop="true")).text == first
    await keep(api, await lock_job(api))
    for again in (body, {**body, "lock": LOCK}):
        assert (await api.post("ann", "scripts/create", again, status=201, skip_if_noop="true")).text == first
    assert await api.queue.claim("dependency") is None


async def test_a_lock_that_comes_too_late_changes_nothing_for_the_path(api: House) -> None:
    await api.script("u/ann/s")
    overtaken = await api.script("u/ann/s", content=WITH_PACKAGE, auto_parent=True)
    newest = await api.script("u/ann/s", content="def main(): return 'newest'", auto_parent=True)
    assert not await keep(api, await lock_job(api))
    assert await served(api) == newest
    assert (await status_of(api, overtaken))["lock"] == LOCK


async def test_a_lock_that_comes_while_a_deployment_goes_on_waits_for_it(api: House) -> None:
    await api.script("u/ann/s")
    overtaken = await api.script("u/ann/s", content=WITH_PACKAGE, auto_parent=True)
    claim = await lock_job(api)
    async with api.queue.look.acquire() as deployment, deployment.transaction():
        await deployment.execute("UPDATE platform.script SET archived = true WHERE hash = $1", overtaken)
        keeping = asyncio.create_task(keep(api, claim))
        await api.queue.until_somebody_waits()
    assert not await asyncio.wait_for(keeping, 20)
    assert (await status_of(api, overtaken))["lock"] == LOCK
    assert not await api.queue.look.fetchval("SELECT serves FROM platform.script WHERE hash = $1", overtaken)


async def test_only_its_own_job_gives_a_version_its_lock_and_only_once(api: House) -> None:
    await api.script("u/ann/s")
    new = await api.script("u/ann/s", content=WITH_PACKAGE, auto_parent=True)
    other = await api.queue.a_claim()
    call = "SELECT platform.keep_lock($1, $2, $3, $4)"
    assert not await api.queue.worker.fetchval(call, "w", new, other.job_id, "forged==1")
    claim = await lock_job(api)
    assert not await api.queue.worker.fetchval(call, "elsewhere", new, claim.job_id, "forged==1")
    assert await keep(api, claim)
    assert not await api.queue.worker.fetchval(call, "w", new, claim.job_id, "forged==1")
    assert (await status_of(api, new))["lock"] == LOCK


async def test_nothing_runs_at_a_path_whose_head_was_archived_or_moved(api: House) -> None:
    for by_path in (True, False):
        path = f"u/ann/archived_{by_path}"
        await api.script(path)
        new = await api.script(path, content=WITH_PACKAGE, auto_parent=True)
        await api.post("ann", f"scripts/archive/p/{path}" if by_path else f"scripts/archive/h/{new}")
        await api.post("ann", f"jobs/run/p/{path}", {}, status=404)
        assert not await keep(api, await lock_job(api))
        await api.post("ann", f"jobs/run/p/{path}", {}, status=404)
    head = await api.script("u/ann/before")
    moved = await api.script("u/ann/after", content=WITH_PACKAGE, parent_hash=head)
    await api.post("ann", "jobs/run/p/u/ann/before", {}, status=404)
    assert await served(api, "u/ann/after") == moved


async def test_what_a_content_may_not_want_is_refused_before_anything_is_kept(api: House) -> None:
    body = {"path": "u/ann/s", "content": "# requirements:\n# -r /etc/passwd\n", "language": "python3", "summary": ""}
    assert "-r /etc/passwd" in (await api.post("ann", "scripts/create", body, status=400)).text
    await api.get("ann", "scripts/get/p/u/ann/s", status=404)


async def test_a_deployment_with_a_lock_job_is_one_audited_event(api: House) -> None:
    await api.script("u/ann/s", content=WITH_PACKAGE)
    assert [each["operation"] for each in await api.audited()] == ["scripts.create"]
    assert [row["key"] for row in await api.queue.outbox() if row["key"] == "dependency"] == ["dependency"]


ASKED = {
    "raw_scripts": [{"raw_code": WITH_PACKAGE, "language": "python3", "script_path": "u/ann/b"}],
    "raw_workspace_dependencies": None,
    "temp_script_refs": None,
    "entrypoint": "u/ann/b",
}


async def test_the_lock_of_code_is_found_by_a_job(api: House) -> None:
    job = (await api.post("ann", "jobs/run/dependencies_async", ASKED, status=201)).text
    claim = await lock_job(api)
    assert str(claim.job_id) == job
    assert (claim.row["kind"], claim.row["code"], claim.row["hash"]) == ("dependencies", WITH_PACKAGE, None)
    await api.queue.finish(claim, result={"lock": LOCK})
    found = (await api.get("ann", f"jobs_u/completed/get_result_maybe/{job}", get_started="false")).json
    assert (found["completed"], found["success"], found["result"]) == (True, True, {"lock": LOCK})
    listed = (await api.get("ann", "jobs/completed/list", job_kinds="dependencies")).json
    assert [(each["id"], each["script_path"]) for each in listed] == [(job, "u/ann/b")]
    assert [each["operation"] for each in await api.audited()] == ["jobs.run.dependencies"]


@pytest.mark.parametrize(
    ("changes", "status", "names"),
    [
        ({"raw_workspace_dependencies": {"dependencies/requirements.in": "x"}}, 422, "raw_workspace_dependencies"),
        ({"temp_script_refs": {"f/x/y": "00"}}, 422, "temp_script_refs"),
        ({"raw_deps": "requests"}, 422, "raw_deps"),
        ({"raw_scripts": [{"raw_code": "x", "language": "bun", "script_path": "u/ann/b"}]}, 422, "bun"),
        ({"raw_scripts": ASKED["raw_scripts"] * 2}, 422, "raw_scripts"),  # type: ignore[operator]
        ({"raw_scripts": []}, 422, "raw_scripts"),
        ({"entrypoint": "u/ann/other"}, 400, "entrypoint"),
    ],
)
async def test_what_can_not_be_looked_for_is_refused(
    api: House, changes: dict[str, Any], status: int, names: str
) -> None:
    for route in ("dependencies_async", "dependencies"):
        assert names in (await api.post("ann", f"jobs/run/{route}", {**ASKED, **changes}, status=status)).text
    await api.post("op", "jobs/run/dependencies_async", ASKED, status=403)
    assert await api.audited() == []
