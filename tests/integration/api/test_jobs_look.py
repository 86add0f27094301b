"""Looking at jobs, following, canceling and listing them over HTTP."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.queue import Claim
from tidemill.chassis.broker import Delivery
from tidemill.shared.catalog import worker_inbox
from tidemill.shared.message import open_envelope, read
from tidemill.shared.messages import CancelJob, JobProgressed
from tidemill.shared.messages.jobs import Progress

_ALWAYS = {
    "type", "id", "canceled", "created_by", "created_at", "email", "is_flow_step", "job_kind", "permissioned_as", "tag",
    "visible_to_owner",
}  # fmt: skip
COMPLETED_KEYS = _ALWAYS | {"started_at", "duration_ms", "success", "is_skipped"}
QUEUED_KEYS = _ALWAYS | {"running", "scheduled_for"}


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.script("u/ann/s")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.start_worker("python3", "bash")


async def started(api: House, **query: Any) -> Claim:
    job_id = await api.run("u/ann/s", {"a": 1}, **query)
    claim = await api.queue.claimed("python3")
    assert claim.job_id == job_id
    return claim


async def ended(api: House, outcome: str = "success", result: Any = 1, **ending: Any) -> uuid.UUID:
    claim = await started(api)
    await api.queue.finish(claim, outcome, result, **ending)
    return claim.job_id


async def test_a_job_that_waits(api: House) -> None:
    job_id = await api.run("u/ann/s", {"a": 1})
    job = (await api.get("ann", f"jobs_u/get/{job_id}")).json
    assert job.keys() >= QUEUED_KEYS
    assert None not in job.values()
    assert (job["type"], job["running"], job["canceled"], job["script_path"]) == ("QueuedJob", False, False, "u/ann/s")
    assert (job["args"], job["language"], job["workspace_id"], job["logs"]) == ({"a": 1}, "python3", "w", "")
    assert "started_at" not in job


async def test_a_job_that_runs(api: House) -> None:
    claim = await started(api)
    await api.queue.append_log(claim, 0, "hello\n")
    job = (await api.get("ann", f"jobs_u/get/{claim.job_id}")).json
    assert (job["type"], job["running"], job["worker"], job["logs"]) == ("QueuedJob", True, "worker", "hello\n")
    assert {"started_at", "last_ping"} <= job.keys()
    assert "logs" not in (await api.get("ann", f"jobs_u/get/{claim.job_id}", no_logs="true")).json


async def test_a_job_that_ended(api: House) -> None:
    job_id = await ended(
        api, result={"x": None}, log_seq=0, log_text="bye", log_units=3, memory_peak_kb=77, labels=["l"]
    )
    job = (await api.get("ann", f"jobs_u/get/{job_id}")).json
    assert job.keys() >= COMPLETED_KEYS
    assert None not in job.values()
    assert (job["type"], job["success"], job["is_skipped"], job["canceled"]) == ("CompletedJob", True, False, False)
    assert (job["result"], job["logs"], job["mem_peak"], job["labels"]) == ({"x": None}, "bye", 77, ["l"])
    assert job["duration_ms"] >= 0
    assert job == (await api.get("ann", f"jobs_u/completed/get/{job_id}")).json


async def test_a_preview_shows_its_code_unless_that_is_not_wanted(api: House) -> None:
    job_id = await api.preview("echo secret")
    assert (await api.get("ann", f"jobs_u/get/{job_id}")).json["raw_code"] == "echo secret"
    assert "raw_code" not in (await api.get("ann", f"jobs_u/get/{job_id}", no_code="true")).json


async def test_a_part_of_a_result_is_read_by_its_path(api: House) -> None:
    job_id = await ended(api, result={"a": [{"b": "c"}]})
    assert (await api.get("ann", f"jobs_u/completed/get_result/{job_id}?path=a.0.b")).json == "c"
    assert (await api.get("ann", f"jobs_u/completed/get_result/{job_id}?path=a.1")).json is None
    await api.get("ann", f"jobs_u/completed/get_result/{job_id}?path={'a' * 1001}", status=400)


async def test_results_come_when_there_is_one(api: House) -> None:
    claim = await started(api)
    for what in ("get", "get_result", "get_timing"):
        reply = await api.get("ann", f"jobs_u/completed/{what}/{claim.job_id}", status=404)
        assert reply.content_type == "text/plain"
    maybe = (await api.get("ann", f"jobs_u/completed/get_result_maybe/{claim.job_id}", get_started="false")).json
    assert maybe == {"completed": False, "result": None, "success": False, "started": True}
    error = {"error": {"name": "E", "message": "m"}}
    await api.queue.finish(claim, "failure", error)
    assert (await api.get("ann", f"jobs_u/completed/get_result/{claim.job_id}")).json == error
    maybe = (await api.get("ann", f"jobs_u/completed/get_result_maybe/{claim.job_id}")).json
    assert maybe == {"completed": True, "result": error, "success": False, "started": True}
    timing = (await api.get("ann", f"jobs_u/completed/get_timing/{claim.job_id}")).json
    assert timing.keys() == {"created_at", "started_at", "duration_ms"}


async def test_a_job_that_never_started_has_not(api: House) -> None:
    job_id = await api.run("u/ann/s")
    assert not (await api.get("ann", f"jobs_u/completed/get_result_maybe/{job_id}")).json["started"]


async def test_logs_come_out_in_order_whoever_asks_how(api: House) -> None:
    claim = await started(api)
    for seq, text in enumerate(("eins\n", "zwei\n", "drei\n")):
        await api.queue.append_log(claim, seq, text)
    await api.queue.release(claim)
    again = await api.queue.claimed("python3")
    await api.queue.append_log(again, 0, "again\n")
    reply = await api.get("ann", f"jobs_u/get_logs/{claim.job_id}")
    assert (reply.text, reply.content_type) == ("eins\nzwei\ndrei\nagain\n", "text/plain")
    assert (await api.get("ann", f"jobs_u/get/{claim.job_id}")).json["logs"] == reply.text


async def test_a_follower_hears_each_unit_once_and_then_the_end(api: House) -> None:
    claim = await started(api)
    chunks = ["plain\n", "grüße 😀\n", "x" * 3000 + "\n", "last\n"]

    async def work() -> None:
        for seq, text in enumerate(chunks):
            await api.queue.worker.fetchval(
                "SELECT queue.append_log($1, $2, $3, $4, $5)",
                claim.job_id, claim.key, seq, text, len(text.encode("utf-16-le")) // 2,
            )  # fmt: skip
            api.hint(JobProgressed(job_id=claim.job_id, what=Progress.LOGGED))
            await asyncio.sleep(0)
        await api.queue.finish(claim)
        api.hint(JobProgressed(job_id=claim.job_id, what=Progress.ENDED))

    working = asyncio.create_task(work())
    heard, offset, running, rounds = "", 0, False, 0
    while True:
        news = (
            await api.get("ann", f"jobs_u/getupdate/{claim.job_id}", running=str(running).lower(), log_offset=offset)
        ).json
        rounds += 1
        heard += news.get("new_logs", "")
        # As the CLI counts: by the length of what it printed, in UTF-16 units.
        offset += len(news.get("new_logs", "").encode("utf-16-le")) // 2
        assert offset == news["log_offset"]
        running = news["running"]
        if news["completed"]:
            break
    await working
    assert heard == "".join(chunks)
    assert heard == (await api.get("ann", f"jobs_u/completed/get/{claim.job_id}")).json["logs"]
    assert rounds <= 2 * len(chunks) + 3


async def test_a_follower_is_held_when_nothing_is_new_and_woken_when_something_is(api: House) -> None:
    claim = await started(api)
    path = f"jobs_u/getupdate/{claim.job_id}"
    began = time.monotonic()
    assert (await api.get("ann", path, running="true")).json == {"running": True, "completed": False, "log_offset": 0}
    assert 0.9 < time.monotonic() - began < 3
    began = time.monotonic()
    assert (await api.get("ann", path, running="false")).json["running"]
    assert time.monotonic() - began < 0.5
    waiting = asyncio.create_task(api.get("ann", path, running="true"))
    began = time.monotonic()
    await api.queue.append_log(claim, 0, "x")
    api.hint(JobProgressed(job_id=claim.job_id, what=Progress.LOGGED))
    assert (await waiting).json["new_logs"] == "x"
    assert time.monotonic() - began < 0.5
    assert "new_logs" not in (await api.get("ann", path, running="false", no_logs="true")).json


async def test_canceling_a_job_that_waits_ends_it(api: House) -> None:
    for secs in (0, 3600):
        job_id = await api.run("u/ann/s", scheduled_in_secs=secs)
        reply = await api.post("ann", f"jobs_u/queue/cancel/{job_id}", {"reason": "no need"})
        assert (reply.text, reply.content_type) == (str(job_id), "text/plain")
        job = (await api.get("ann", f"jobs_u/completed/get/{job_id}")).json
        assert (job["canceled"], job["success"], job["canceled_by"], job["canceled_reason"]) == (
            True,
            False,
            "ann",
            "no need",
        )
        assert job["result"]["error"]["name"] == "Canceled"
        assert {"started_at", "duration_ms"} <= job.keys()


async def test_canceling_a_running_job_tells_its_worker(api: House) -> None:
    claim = await started(api)
    told: asyncio.Queue[CancelJob] = asyncio.Queue()

    async def hear(delivery: Delivery) -> None:
        told.put_nowait(read(open_envelope(delivery.body), CancelJob))
        await delivery.ack()

    async with api.broker.subscribe(worker_inbox(str(claim.run)), hear):
        await api.post("ann", f"jobs_u/queue/cancel/{claim.job_id}", {})
        assert (await asyncio.wait_for(told.get(), 5)).job_id == claim.job_id
    job = (await api.get("ann", f"jobs_u/get/{claim.job_id}")).json
    assert (job["type"], job["running"], job["canceled"], job["canceled_by"]) == ("QueuedJob", True, True, "ann")


async def test_a_forced_cancel_does_not_wait_for_the_worker(api: House) -> None:
    claim = await started(api)
    await api.post("ann", f"jobs_u/queue/force_cancel/{claim.job_id}")
    assert (await api.get("ann", f"jobs_u/completed/get/{claim.job_id}")).json["canceled"]
    assert await api.queue.finish(claim) == "stale"


async def test_canceling_what_has_ended_is_no_error_and_changes_nothing(api: House) -> None:
    job_id = await ended(api)
    for what in ("cancel", "force_cancel"):
        await api.post("ann", f"jobs_u/queue/{what}/{job_id}", {"reason": "late"})
    assert (await api.get("ann", f"jobs_u/completed/get/{job_id}")).json["success"]
    await api.post("ann", f"jobs_u/queue/cancel/{uuid.uuid4()}", {}, status=404)


async def test_a_cancel_is_audited_once(api: House) -> None:
    job_id = await api.run("u/ann/s")
    for _ in range(2):
        await api.post("ann", f"jobs_u/queue/cancel/{job_id}", {"reason": "r"})
    said = [each for each in await api.audited() if each["operation"] == "jobs.cancel"]
    assert [(each["resource"], each["parameters"]) for each in said] == [(str(job_id), {"reason": "r"})]


LOOKS = (
    "jobs_u/get/{}",
    "jobs_u/completed/get/{}",
    "jobs_u/completed/get_result/{}",
    "jobs_u/completed/get_result_maybe/{}",
    "jobs_u/completed/get_timing/{}",
    "jobs_u/getupdate/{}",
    "jobs_u/get_logs/{}",
    "jobs_u/get_root_job_id/{}",
    "jobs_u/get_args/{}",
    "jobs/explain/{}",
    "jobs/worker_is_draining/{}",
)


@pytest.mark.parametrize("path", LOOKS)
async def test_what_one_may_not_see_is_not_there(api: House, path: str) -> None:
    job_id, absent = await ended(api), uuid.uuid4()
    await api.get("ann", path.format(job_id))
    await api.get("root", path.format(job_id))
    await api.get(None, path.format(job_id), status=401)
    hidden = await api.get("bob", path.format(job_id), status=404)
    missing = await api.get("bob", path.format(absent), status=404)
    assert hidden.text.replace(str(job_id), "") == missing.text.replace(str(absent), "")
    await api.get("ann", path.format("no-id"), status=404)


async def test_who_sees_and_cancels_a_job_of_somebody_else(api: House) -> None:
    await api.script("u/bob/s", who="root")
    shown = await api.run("u/bob/s", who="root")
    hidden = await api.run("u/bob/s", who="root", invisible_to_owner="true")
    await api.get("bob", f"jobs_u/get/{shown}")
    await api.get("bob", f"jobs_u/get/{hidden}", status=404)
    await api.post("bob", f"jobs_u/queue/cancel/{hidden}", {}, status=404)
    await api.get("ann", f"jobs_u/get/{shown}", status=404)
    assert [each["id"] for each in (await api.get("bob", "jobs/list")).json] == [str(shown)]
    assert len((await api.get("root", "jobs/queue/list")).json) == 2
    await api.post("bob", f"jobs_u/queue/cancel/{shown}", {})


async def test_why_a_job_does_not_run(api: House) -> None:
    job_id = await api.run("u/ann/s", tag="gpu")
    said = (await api.get("ann", f"jobs/explain/{job_id}")).json
    assert (said["state"], "gpu" in said["why"]) == ("queued", True)
    await api.get("ann", f"jobs/explain/{job_id}", status=400, unknown="1")


async def test_whether_the_worker_is_draining(api: House) -> None:
    claim = await started(api)
    assert (await api.get("ann", f"jobs/worker_is_draining/{claim.job_id}")).json is False
    await api.queue.renew(claim, draining=True)
    assert (await api.get("ann", f"jobs/worker_is_draining/{claim.job_id}")).json is True


async def test_the_place_in_line(api: House) -> None:
    for _ in range(3):
        await api.run("u/ann/s")
    soon = int((datetime.now(UTC) + timedelta(minutes=1)).timestamp() * 1000)
    assert (await api.get("ann", f"jobs/queue/position/{soon}")).json == {"position": 4}
    assert (await api.get("ann", "jobs/queue/position/0")).json == {"position": 1}
    await api.get("ann", "jobs/queue/position/soon", status=400)
    await api.get("ann", f"jobs/queue/position/{10**30}", status=400)


async def test_when_a_job_is_due_and_what_it_was_given(api: House) -> None:
    job_id = await api.run("u/ann/s", {"a": [1.50]}, scheduled_in_secs=60)
    due = (await api.get("ann", f"jobs/queue/scheduled_for/{job_id}")).json
    job = (await api.get("ann", f"jobs_u/get/{job_id}")).json
    assert due == int(datetime.fromisoformat(job["scheduled_for"]).timestamp() * 1000)
    assert (await api.get("ann", f"jobs/queue/position/{due}")).json == {"position": 1}
    assert (await api.get("ann", f"jobs_u/get_args/{job_id}")).text == '{"a": [1.5]}'
    await api.get("ann", f"jobs/queue/scheduled_for/{await ended(api)}", status=404)


async def test_the_unfinished_jobs_are_asked_for_all_at_once(api: House) -> None:
    await api.run("u/ann/s")
    assert len((await api.get("ann", "jobs/queue/list", per_page=100_000)).json) == 1
    await api.get("ann", "jobs/list", per_page=100_000, status=400)


async def test_the_databases_clock(api: House) -> None:
    now = (await api.get("ann", "/jobs/db_clock")).json
    assert abs(now - time.time() * 1000) < 60_000
    await api.get(None, "/jobs/db_clock", status=401)


async def listed(api: House, path: str = "jobs/list", who: str = "ann", **query: Any) -> list[str]:
    return [each["id"] for each in (await api.get(who, f"{path}?{urlencode(query)}")).json]


async def test_lists_show_the_newest_first_and_both_kinds(api: House) -> None:
    good, bad = await ended(api), await ended(api, "failure")
    running = (await started(api)).job_id
    later, waits = await api.run("u/ann/s", scheduled_in_secs=60), await api.run("u/ann/s")
    everything = [str(each) for each in (waits, later, running, bad, good)]
    jobs = (await api.get("ann", "jobs/list")).json
    assert [each["id"] for each in jobs] == everything
    assert [each["type"] for each in jobs] == ["QueuedJob"] * 3 + ["CompletedJob"] * 2
    for job in jobs:
        assert job.keys() >= (QUEUED_KEYS if job["type"] == "QueuedJob" else COMPLETED_KEYS)
        assert None not in job.values()
    assert await listed(api, "jobs/queue/list") == everything[:3]
    assert await listed(api, "jobs/completed/list") == everything[3:]
    assert await listed(api, per_page=2) == await listed(api, per_page=2, page=0) == everything[:2]
    assert await listed(api, per_page=2, page=3) == everything[4:]


async def test_lists_are_filtered(api: House) -> None:
    await api.script("u/ann/other", tag="bash", concurrent_limit=5)
    good, bad = await ended(api, labels=["l"]), await ended(api, "failure")
    running = (await started(api)).job_id
    child = await api.run("u/ann/other", parent_job=running)
    later = await api.run("u/ann/s", who="root", scheduled_in_secs=3600)
    code = await api.preview()
    now = datetime.now(UTC)
    version = (await api.get("ann", "scripts/get/p/u/ann/other")).json["hash"]
    expected: dict[Any, list[uuid.UUID]] = {
        ("running", "true"): [running],
        ("running", "false"): [code, later, child],
        ("scheduled_for_before_now", "true"): [code, child, running],
        ("success", "true"): [good],
        ("success", "false"): [bad],
        ("status", "failure,canceled"): [bad],
        ("label", "l"): [good],
        ("script_path_exact", "u/ann/other"): [child],
        ("script_path_start", "u/ann/o"): [child],
        ("script_hash", version): [child],
        ("created_by", "root"): [later],
        ("job_kinds", "preview,flow"): [code],
        ("tag", "bash"): [code, child],
        ("worker", "worker"): [running, bad, good],
        ("parent_job", str(running)): [child],
        ("has_null_parent", "false"): [child],
        ("is_flow_step", "true"): [],
        ("is_skipped", "true"): [],
        ("suspended", "true"): [],
        ("trigger_kind", "webhook"): [later, child, running, bad, good],
        ("created_after", (now + timedelta(hours=1)).isoformat()): [],
        ("created_before", (now - timedelta(hours=1)).isoformat()): [],
        ("started_after", (now - timedelta(hours=1)).isoformat()): [running, bad, good],
        ("completed_after", (now - timedelta(hours=1)).isoformat()): [bad, good],
        ("label", "x,l"): [good],
        ("label", "!l"): [bad],
        ("created_by", "!ann,bob"): [later],
        ("job_kinds", "!script"): [code],
        ("script_path_exact", "!u/ann/s"): [code, child],
        ("worker", "!worker"): [code, later, child],
        ("trigger_kind", "!webhook"): [code],
        ("status", "!success"): [bad],
        ("tag", "!bash,gpu"): [later, running, bad, good],
        ("args", '{"a": 1}'): [running, bad, good],
        ("args", '{"a": 2}'): [],
        ("args", '{"a": "\\\\u00e9\'; --"}'): [],
        ("result", "1"): [bad, good],
        ("result", '{"a": 1}'): [],
        ("is_not_schedule", "true"): [code, later, child, running, bad, good],
        ("broad_filter", "OTHER"): [child],
        ("broad_filter", str(bad)[9:]): [bad],
        ("broad_filter", "%"): [],
        ("schedule_path", "u/ann/tick"): [],
        ("schedule_path", "!u/ann/tick"): [code, later, child, running, bad, good],
        ("trigger_path", "u/ann/hook"): [],
        ("resolved", "true"): [],
        ("resolved", "false"): [code, later, child, running, bad, good],
        ("excludes_entrypoint_override", "true"): [code, later, child, running, bad, good],
        ("concurrency_key", "w/script/u/ann/other"): [child],
        ("concurrency_key", "!w/script/u/ann/other"): [code, later, running, bad, good],
        ("created_or_started_after", (now - timedelta(hours=1)).isoformat()): [code, later, child, running, bad, good],
        ("created_or_started_before", (now - timedelta(hours=1)).isoformat()): [],
        ("script_path_exact", "u/ann/*"): [],
    }
    for (name, value), ids in expected.items():
        assert await listed(api, **{name: value}) == [str(each) for each in ids], name
    wild: dict[Any, list[uuid.UUID]] = {
        ("script_path_exact", "u/*/oth*"): [child],
        ("script_path_exact", "!*other"): [code, later, running, bad, good],
        ("tag", "b*h"): [code, child],
        ("worker", "w*,nobody"): [running, bad, good],
        ("worker", "w_rker"): [],
        ("tag", "%"): [],
    }
    for (name, value), ids in wild.items():
        assert await listed(api, allow_wildcards="true", **{name: value}) == [str(each) for each in ids], (name, value)
    assert await listed(api, "jobs/queue/list", tag="bash", has_null_parent="true") == [str(code)]
    assert await listed(api, "jobs/queue/list", success="true") == []
    assert await listed(api, "jobs/completed/list", running="true") == []


async def test_filters_that_are_not_there_are_refused_and_not_ignored(api: House) -> None:
    unsupported = {"created_before_queue": "2026-01-01", "order_desc": "false"}
    for path in ("jobs/list", "jobs/queue/list", "jobs/completed/list"):
        for name, value in unsupported.items():
            assert name in (await api.get("ann", path, status=422, **{name: value})).text
        await api.get("ann", path, status=422, job_kinds="flow,!script")
        await api.get("ann", path, status=400, per_page=0)
        await api.get("ann", path, status=400, created_after="0001-01-01T00:00:00+10:00")
        await api.get("ann", path, status=400, broad_filter="x" * 201)
        await api.get("ann", path, status=403, all_workspaces="true")
        await api.get("root", path, status=403, all_workspaces="true")
        await api.get("ann", path, allow_wildcards="false", order_desc="true", all_workspaces="false")


async def test_attack_what_a_job_holds_breaks_no_search(api: House) -> None:
    await api.script("u/ann/poison")
    for written in (b'{"a": "\\u0000"}', b'{"a": 1e999999}'):
        await api.call(
            "ann", "POST", "jobs/run/p/u/ann/poison", data=written,
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
    fits = await api.run("u/ann/poison", {"a": 1, "b": 2})
    assert await listed(api, args='{"a": 1}') == [str(fits)]


@pytest.mark.parametrize("name", ["args", "result"])
@pytest.mark.parametrize("value", ["{", "1e999999", "[" * 5000, '"\\u0000"'])
async def test_attack_a_search_for_what_is_no_json_is_refused(api: House, name: str, value: str) -> None:
    for path in ("jobs/list", "jobs/queue/list"):
        if (name, path) != ("result", "jobs/queue/list"):
            await api.get("ann", f"{path}?{urlencode({name: value})}", status=400)


@pytest.mark.parametrize(
    "value", ["' OR '1'='1", "%", "_", "a'); DELETE FROM queue.job; --", "{l}", "\\", "$1", "!' OR true --"]
)
async def test_attack_filters_are_values_and_never_sql(api: House, value: str) -> None:
    job_id = str(await ended(api, labels=["l"]))
    for name in ("label", "created_by", "tag", "worker", "script_path_exact", "script_path_start", "script_hash"):
        if name == "script_path_start" and value.startswith("!"):
            continue
        assert await listed(api, **{name: value}) == ([job_id] if value.startswith("!") else []), name
    assert await listed(api) == [job_id]
