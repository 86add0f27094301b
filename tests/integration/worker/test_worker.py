"""The worker on real Postgres and in the real sandbox: tickets in, outcomes out."""

import asyncio
import itertools
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.database import DatabaseUrls
from tests.support.queue import Queue, a_job, queue_of
from tests.support.services import running
from tests.support.steps import a_flow, a_step, advance, end
from tests.support.waiting import eventually
from tidemill.chassis.broker import Broker, Outgoing
from tidemill.chassis.errors import StartRefused
from tidemill.chassis.outbox import hint_of
from tidemill.shared.catalog import replica_inbox
from tidemill.shared.messages import CancelJob, JobAnswered
from tidemill.worker.masking import MASK
from tidemill.worker.sandbox.settings import Network
from tidemill.worker.service import SERVICE

NUL = msgspec.Raw(b'"a\0b"')
SLOW = "import time\ndef main():\n    print('asleep', flush=True)\n    time.sleep(60)\n"


@pytest.fixture
async def queue(own_database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    async with queue_of(own_database_urls) as queue:
        yield queue


@pytest.fixture
async def broker(own_database_urls: DatabaseUrls, queue: Queue) -> AsyncIterator[Broker]:
    async with running(own_database_urls, SERVICE, settings={"TIDEMILL_WORKER_SLOTS": "1"}) as broker:
        yield broker


async def ask(queue: Queue, broker: Broker, code: str | None, args: Any = None, **changes: Any) -> uuid.UUID:
    """Request a preview, or what else the changes make of it, and send its ticket, as the api does."""
    job = a_job(**{"kind": "preview", "code": code, "hash": None, **changes})
    _, said = await queue.ask(job, args=args)
    await publish(broker, said)
    return uuid.UUID(str(job["id"]))


async def publish(broker: Broker, said: Sequence[Mapping[str, Any]]) -> None:
    """Send what the queue has said."""
    await broker.publish(
        [
            Outgoing(
                exchange=each["exchange"], key=each["key"], body=each["body"].encode(), message_id=each["message_id"]
            )
            for each in said
        ]
    )


async def step(queue: Queue, broker: Broker, flow: uuid.UUID, **changes: Any) -> uuid.UUID:
    """Start a job of a flow and send its ticket, as the scheduler does."""
    asked = a_step(**changes)
    await publish(broker, await advance(queue, flow, start=[asked]))
    return uuid.UUID(str(asked["id"]))


async def finished(queue: Queue, job: uuid.UUID) -> Any:
    """Return the finished job's row."""

    async def look() -> Any:
        row = await queue.job(job)
        return row if row["outcome"] else None

    return await eventually(look)


async def log_of(queue: Queue, job: uuid.UUID) -> str:
    rows = await queue.api.fetch("SELECT text FROM queue.job_log WHERE job_id = $1 ORDER BY claim_no, seq", job)
    return "".join(row["text"] for row in rows)


async def says(queue: Queue, job: uuid.UUID, text: str) -> None:
    async def look() -> bool:
        return text in await log_of(queue, job)

    await eventually(look)


async def test_a_job_gets_its_arguments_and_gives_its_result_and_log(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, "def main(x):\n    print('got', x)\n    return {'twice': x * 2}\n", {"x": 21})
    row = await finished(queue, job)
    assert row["outcome"] == "success"
    assert json.loads(row["result"]) == {"twice": 42}
    log = await log_of(queue, job)
    assert log.startswith(f"job={job} tag=python3 worker=")
    assert "isolation=full" in log
    assert log.endswith("got 21\n")


async def test_a_job_sees_the_variables_that_the_sdks_read_and_nothing_of_ours(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, "import os\ndef main():\n    return dict(os.environ)\n", envs=["GREETING=a=b"])
    env = json.loads((await finished(queue, job))["result"])
    assert env["WM_JOB_ID"] == str(job)
    assert env["WM_WORKSPACE"] == "w"
    assert env["WM_TOKEN"] == MASK
    assert env["GREETING"] == "a=b"
    assert "WM_FLOW_JOB_ID" not in env
    assert not [name for name in env if name.startswith("TIDEMILL_")]


async def test_a_step_knows_its_flow_and_the_highest_one(queue: Queue, broker: Broker) -> None:
    code = "import os\ndef main():\n    return {name: os.environ[name] for name in os.environ if 'FLOW' in name}\n"
    script = await queue.request(a_job(tag="nobody's"))
    flow = await a_flow(queue, parent_job=script, path="f/all/above")
    await advance(queue, flow, start=[inner := a_step(kind="flow", path="f/all/inner", tag="flow")])
    env = json.loads((await finished(queue, await step(queue, broker, inner["id"], code=code, step_id="b")))["result"])
    assert env == {
        "WM_FLOW_JOB_ID": str(inner["id"]),
        "WM_ROOT_FLOW_JOB_ID": str(flow),
        "WM_FLOW_STEP_ID": "b",
        "WM_FLOW_PATH": "f/all/inner",
    }


async def test_code_that_stands_in_a_flow_with_its_lock_is_not_resolved_again(queue: Queue, broker: Broker) -> None:
    flow = await a_flow(queue)
    code = "import no_such_package_anywhere\ndef main():\n    pass\n"
    row = await finished(queue, await step(queue, broker, flow, code=code, lock=""))
    assert json.loads(row["result"])["error"]["name"] == "ModuleNotFoundError"


async def test_steps_of_one_worker_share_a_folder_until_their_flow_ends(
    own_database_urls: DatabaseUrls, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.worker.sharing._LOOKED_EVERY", timedelta(milliseconds=50))
    write = """
import os
def main(name):
    open(f'shared/{name}', 'w').close()
    return sorted(os.listdir('shared'))
"""
    async with (
        running(own_database_urls, SERVICE) as broker,
        running(own_database_urls, SERVICE, broker=broker),
    ):
        flow, workers = await a_flow(queue), set()
        for number in range(4):
            asked = {"step_no": number, "args": {"name": str(number)}, "same_worker": True}
            row = await finished(queue, await step(queue, broker, flow, code=write, **asked))
            assert json.loads(row["result"]) == [str(each) for each in range(number + 1)]
            workers.add(row["worker"])
        assert len(workers) == 1
        assert shared_folders(flow)
        await end(queue, flow)

        async def gone() -> bool:
            return not shared_folders(flow)

        await eventually(gone)


def shared_folders(flow: uuid.UUID) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"tidemill-sandbox-*/shared-{flow}"))


async def test_a_step_that_puts_too_much_into_the_shared_folder_fails(
    own_database_urls: DatabaseUrls, queue: Queue
) -> None:
    fill = """
import time
def main(seconds):
    for number in range(3):
        open(f'shared/{number}', 'wb').write(b'x' * 600_000)
    time.sleep(seconds)
"""
    async with running(own_database_urls, SERVICE, settings={"TIDEMILL_JOB_DISK": "1"}) as broker:
        for seconds in (0, 3600):
            flow = await a_flow(queue)
            asked = {"code": fill, "args": {"seconds": seconds}, "same_worker": True}
            row = await finished(queue, await step(queue, broker, flow, **asked))
            assert row["outcome"] == "failure"
            assert "./shared may hold 1 MiB" in json.loads(row["result"])["error"]["message"]


async def test_no_worker_serves_the_tag_of_flows(own_database_urls: DatabaseUrls) -> None:
    with pytest.raises(StartRefused, match=r"TIDEMILL_WORKER_TAGS names the tag flow, .* the scheduler runs flows"):
        async with running(own_database_urls, SERVICE, settings={"TIDEMILL_WORKER_TAGS": "python3,flow"}):
            pass


@pytest.mark.parametrize(
    ("kind", "args", "result"),
    [
        ("identity", {"x": [1, {"y": None}]}, {"x": [1, {"y": None}]}),
        ("identity", {"previous_result": "p", "x": 1}, "p"),
        ("noop", {"x": 1}, None),
    ],
)
async def test_a_job_without_code_answers_by_its_kind(
    queue: Queue, broker: Broker, kind: str, args: Any, result: Any
) -> None:
    row = await finished(queue, await ask(queue, broker, "", args, kind=kind))
    assert row["outcome"] == "success"
    assert json.loads(row["result"]) == result


async def test_a_result_names_its_labels_and_may_call_itself_a_failure(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, "def main():\n    return {'wm_labels': ['a', 'b'], 'wm_failure': 'too few'}\n")
    row = await finished(queue, job)
    assert (row["outcome"], row["labels"]) == ("failure", ["a", "b"])
    assert json.loads(row["result"])["error"] == {"name": "ManualFailure", "message": "too few"}
    wrong = await ask(queue, broker, "def main():\n    return {'wm_labels': 7}\n")
    assert (await finished(queue, wrong))["outcome"] == "success"
    assert "wm_labels is no list" in await log_of(queue, wrong)


async def test_no_log_stream_or_result_holds_the_jobs_own_token(queue: Queue, broker: Broker) -> None:
    code = """
import os, sys

def main():
    token = os.environ["WM_TOKEN"]
    print("in one piece", token)
    sys.stdout.write("in two " + token[:9])
    sys.stdout.flush()
    print(token[9:] + " pieces")
    print("WM_STREAM: streamed " + token)
    return {"backwards": token[::-1], "wm_labels": [token], token: [f"Bearer {token}"]}
"""
    row = await finished(queue, job := await ask(queue, broker, code))
    result = json.loads(row["result"])
    token = result["backwards"][::-1]
    assert token.startswith("tmj_")
    assert result == {"backwards": token[::-1], "wm_labels": [MASK], MASK: [f"Bearer {MASK}"]}
    assert row["labels"] == [MASK]
    log = await log_of(queue, job)
    assert log.endswith(f"in one piece {MASK}\nin two {MASK} pieces\n")
    streamed = await queue.api.fetch("SELECT text FROM queue.job_stream WHERE job_id = $1", job)
    assert "".join(each["text"] for each in streamed) == f"streamed {MASK}"


async def test_the_error_of_a_failed_job_does_not_hold_its_token(queue: Queue, broker: Broker) -> None:
    code = "import os\ndef main():\n    raise ValueError('no entry for ' + os.environ['WM_TOKEN'])\n"
    row = await finished(queue, job := await ask(queue, broker, code))
    assert row["outcome"] == "failure"
    for text in (row["result"], await log_of(queue, job)):
        assert "tmj_" not in text
    assert json.loads(row["result"])["error"]["message"] == f"no entry for {MASK}"


async def test_a_streamed_result_is_kept_apart_from_the_log(queue: Queue, broker: Broker) -> None:
    job = await ask(
        queue, broker, "def main():\n    print('WM_STREAM: one\\\\n')\n    print('said')\n    print('WM_STREAM: two')\n"
    )
    assert (await finished(queue, job))["outcome"] == "success"
    chunks = await queue.api.fetch("SELECT text FROM queue.job_stream WHERE job_id = $1 ORDER BY claim_no, seq", job)
    assert "".join(each["text"] for each in chunks) == "one\ntwo"
    printed = await queue.api.fetch("SELECT text FROM queue.job_log WHERE job_id = $1 ORDER BY claim_no, seq", job)
    log = "".join(each["text"] for each in printed)
    assert log.endswith("said\n")
    assert "one" not in log


async def test_a_streamed_nul_is_replaced_and_the_job_runs_once(queue: Queue, broker: Broker) -> None:
    row = await finished(queue, job := await ask(queue, broker, "def main():\n    yield 'a\\0b'\n"))
    assert (row["outcome"], row["claims"]) == ("success", 1)
    streamed = await queue.api.fetch("SELECT text FROM queue.job_stream WHERE job_id = $1", job)
    assert "".join(each["text"] for each in streamed) == "a\ufffdb"


async def test_a_job_that_the_worker_can_not_run_fails_once(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Network:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("tidemill.worker.run.policy", broken)
    row = await finished(queue, await ask(queue, broker, "def main(): return 1"))
    assert (row["outcome"], row["claims"]) == ("failure", 1)
    assert json.loads(row["result"])["error"]["name"] == "WorkerError"
    assert "open files" not in row["result"]


async def test_a_report_that_is_refused_for_its_data_is_followed_by_one_without(
    queue: Queue, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidemill.worker.run.masked", lambda ending, _: msgspec.structs.replace(ending, result=NUL))
    row = await finished(queue, await ask(queue, broker, "def main(): return 1"))
    assert (row["outcome"], row["claims"]) == ("failure", 1)
    assert json.loads(row["result"])["error"]["name"] == "WorkerError"


async def test_a_log_is_there_while_the_job_runs(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, SLOW)
    await says(queue, job, "asleep")
    assert await queue.state_of(job) == "running"
    await queue.cancel(job)


async def test_a_message_cancels_a_running_job(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, SLOW)
    await says(queue, job, "asleep")
    canceled = await queue.cancel(job)
    assert canceled.answer == "requested"
    assert canceled.worker_run is not None
    broker.hint(hint_of(CancelJob(job_id=job, worker_run=canceled.worker_run), "/tidemill/api"))
    row = await finished(queue, job)
    assert row["outcome"] == "canceled"
    assert json.loads(row["result"])["error"]["name"] == "Canceled"


async def test_a_beat_cancels_a_running_job_whose_message_was_lost(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, SLOW)
    await says(queue, job, "asleep")
    await queue.cancel(job)
    assert (await finished(queue, job))["outcome"] == "canceled"


async def test_a_job_that_went_on_elsewhere_is_dropped_here(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, SLOW)
    await says(queue, job, "asleep")
    await queue.look.execute(
        "UPDATE queue.live_job SET state = 'queued', claim_key = NULL, worker_run = NULL WHERE id = $1", job
    )
    elsewhere = await queue.claim(run=uuid.uuid4())
    assert elsewhere is not None
    following = await ask(queue, broker, "def main():\n    return 'free again'\n")
    assert json.loads((await finished(queue, following))["result"]) == "free again"
    assert await queue.finish(elsewhere, result=1) == "done"


async def test_a_version_that_was_deleted_fails_its_job(queue: Queue, broker: Broker) -> None:
    job = a_job(hash="00000000deadbeef")
    _, said = await queue.ask(job)
    await broker.publish(
        [Outgoing(exchange=said[0]["exchange"], key="python3", body=said[0]["body"].encode(), message_id="1")]
    )
    row = await finished(queue, uuid.UUID(str(job["id"])))
    assert row["outcome"] == "failure"
    assert json.loads(row["result"])["error"]["name"] == "ScriptGone"


async def test_jobs_beyond_the_slots_wait_and_then_run(queue: Queue, broker: Broker) -> None:
    jobs = [await ask(queue, broker, "import time\ndef main():\n    time.sleep(0.1)\n") for _ in range(5)]
    rows = [await finished(queue, job) for job in jobs]
    assert [row["outcome"] for row in rows] == ["success"] * 5
    spans = sorted((row["started_at"], row["finished_at"]) for row in rows)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


async def test_the_waiting_replica_is_told(queue: Queue, broker: Broker) -> None:
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(delivery: Any) -> None:
        await told.put(delivery.body)
        await delivery.ack()

    async with broker.subscribe(replica_inbox("r1"), hear):
        job = await ask(queue, broker, "def main():\n    pass\n", reply_to="r1")
        body = json.loads(await asyncio.wait_for(told.get(), 20))
    assert body["type"] == JobAnswered.TYPE
    assert body["data"]["job_id"] == str(job)


async def test_a_worker_that_goes_hands_back_what_it_can_not_finish(
    own_database_urls: DatabaseUrls, queue: Queue
) -> None:
    settings = {"TIDEMILL_WORKER_DRAIN": "100ms"}
    async with running(own_database_urls, SERVICE, settings=settings) as broker:
        job = await ask(queue, broker, SLOW)
        await says(queue, job, "asleep")
    live = await queue.live(job)
    assert live["state"] == "queued"
    assert live["lost_claims"] == 0
    assert await queue.look.fetchval("SELECT count(*) FROM queue.worker") == 0


async def test_a_busy_worker_leaves_the_tickets_to_a_free_one(own_database_urls: DatabaseUrls, queue: Queue) -> None:
    one_slot = {"TIDEMILL_WORKER_SLOTS": "1", "TIDEMILL_WORKER_DRAIN": "100ms"}
    async with (
        running(own_database_urls, SERVICE, settings=one_slot) as broker,
        running(own_database_urls, SERVICE, settings=one_slot, broker=broker),
    ):
        slow = await ask(queue, broker, SLOW)
        await says(queue, slow, "asleep")
        for _ in range(6):
            quick = await ask(queue, broker, "def main():\n    return 1\n")
            assert (await finished(queue, quick))["outcome"] == "success"
        assert await queue.state_of(slow) == "running"


COUNT = "count = 0\ndef main():\n    global count\n    count += 1\n    return count\n"


async def deployed(queue: Queue, code: str, *, workspace: str = "w", dedicated_worker: bool = False) -> dict[str, Any]:
    """Store a version and return what a job of it has in its request."""
    version = uuid.uuid4().hex[:16]
    await queue.look.execute(
        "INSERT INTO platform.workspace (id, name, owner) VALUES ($1, $1, 'ann') ON CONFLICT DO NOTHING", workspace
    )
    await queue.look.execute(
        """INSERT INTO platform.script (workspace_id, hash, path, parent_hashes, summary, description, content,
               language, kind, is_template, visible_to_runner_only, dedicated_worker, serves, created_by)
           VALUES ($1, $2, 'u/ann/' || $2, '{}', '', '', $3, 'python3', 'script', false, false, $4, true, 'ann')""",
        workspace,
        version,
        code,
        dedicated_worker,
    )
    return {"kind": "script", "hash": version, "path": f"u/ann/{version}", "workspace_id": workspace}


async def results(queue: Queue, broker: Broker, *jobs: dict[str, Any]) -> list[Any]:
    """Run jobs one after the other and return what each gave."""
    return [json.loads((await finished(queue, await ask(queue, broker, None, **job)))["result"]) for job in jobs]


@pytest.mark.parametrize(("code", "dedicated_worker"), [(COUNT, True), (f"# counts\n# warm\n{COUNT}", False)])
async def test_a_version_that_is_to_be_warm_keeps_its_process(
    queue: Queue, broker: Broker, code: str, dedicated_worker: bool
) -> None:
    version = await deployed(queue, code, dedicated_worker=dedicated_worker)
    assert await results(queue, broker, version, version) == [1, 2]


async def test_another_version_has_a_process_for_each_job(queue: Queue, broker: Broker) -> None:
    version = await deployed(queue, f"{COUNT}\n# warm\n")
    assert await results(queue, broker, version, version) == [1, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"permissioned_as": "u/bob"},
        {"email": "bob@example.com"},
        {"permissions": {"is_admin": True}},
        {"envs": ["A=b"]},
    ],
)
async def test_whoever_may_something_else_never_gets_a_warm_process(
    queue: Queue, broker: Broker, other: dict[str, Any]
) -> None:
    version = await deployed(queue, COUNT, dedicated_worker=True)
    assert await results(queue, broker, version, version | other, version) == [1, 1, 2]


async def test_the_same_version_elsewhere_never_gets_a_warm_process(queue: Queue, broker: Broker) -> None:
    versions = [await deployed(queue, COUNT, workspace=each, dedicated_worker=True) for each in ("w", "elsewhere")]
    assert await results(queue, broker, *versions, *versions) == [1, 1, 2, 2]


async def test_a_preview_has_a_process_of_its_own_and_its_log_says_so(queue: Queue, broker: Broker) -> None:
    for _ in range(2):
        job = await ask(queue, broker, f"# warm\n{COUNT}")
        assert json.loads((await finished(queue, job))["result"]) == 1
        assert "[not warm: a process is kept for deployed versions only]\n" in await log_of(queue, job)
