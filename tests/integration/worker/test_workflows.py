"""Workflows written as code, with the unmodified SDK: real worker, scheduler, sandbox and Postgres."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.worker.test_worker import ask, deployed, finished, log_of, says
from tests.support.database import DatabaseUrls
from tests.support.queue import Queue, queue_of
from tests.support.services import running
from tests.support.waiting import eventually
from tests.support.wheels import only_from, wheels_of
from tidemill.chassis.broker import Broker
from tidemill.scheduler.service import SERVICE as SCHEDULER
from tidemill.worker.service import SERVICE as WORKER

HEAD = "import os, time\nfrom wmill import workflow, task, step, sleep, parallel, TaskError\n"

ENDLESS = """
@workflow
async def main():
    while True:
        await step("on", lambda: time.sleep(0.05))
"""


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A worker that can install the SDK, once for all tests."""
    folder = tmp_path_factory.mktemp("workflows")
    wheels_of(folder / "wheels", "wmill")
    return {
        "TIDEMILL_WORKER_SLOTS": "4",
        "TIDEMILL_CACHE": str(folder / "cache"),
        **only_from(folder / "wheels"),
    }


@pytest.fixture
async def queue(own_database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    async with queue_of(own_database_urls) as queue:
        yield queue


@pytest.fixture
async def broker(own_database_urls: DatabaseUrls, queue: Queue, settings: dict[str, str]) -> AsyncIterator[Broker]:
    async with running(own_database_urls, WORKER, SCHEDULER, settings=settings) as broker:
        yield broker


async def result_of(queue: Queue, broker: Broker, code: str, args: Any = None, **changes: Any) -> Any:
    row = await finished(queue, await ask(queue, broker, HEAD + code, args, **changes))
    assert row["outcome"] == "success", row["result"]
    return json.loads(row["result"])


async def result_of_version(queue: Queue, broker: Broker, version: dict[str, Any]) -> Any:
    return json.loads((await finished(queue, await ask(queue, broker, None, **version)))["result"])


async def tasks_of(queue: Queue, job: uuid.UUID) -> list[Any]:
    return await queue.api.fetch("SELECT * FROM queue.any_job WHERE parent_job = $1 ORDER BY born", job)


async def test_tasks_run_one_after_the_other_as_jobs_of_their_own(queue: Queue, broker: Broker) -> None:
    code = """
@task
def double(x):
    print("doubling", x)
    return {"twice": x * 2, "job": os.environ["WM_JOB_ID"]}

@workflow
async def main(x: int):
    print("from the top")
    first = await double(x)
    second = await double(first["twice"])
    return [os.environ["WM_JOB_ID"], first, second]
"""
    job = await ask(queue, broker, HEAD + code, {"x": 3})
    row = await finished(queue, job)
    own, first, second = json.loads(row["result"])
    assert own == str(job)
    assert [first["twice"], second["twice"]] == [6, 12]
    tasks = await tasks_of(queue, job)
    assert [str(task["id"]) for task in tasks] == [first["job"], second["job"]]
    assert [(task["outcome"], json.loads(task["args"]), task["root_job"]) for task in tasks] == [
        ("success", {"x": 3}, job),
        ("success", {"x": 6}, job),
    ]
    assert "doubling 3" in await log_of(queue, tasks[0]["id"])
    assert (await log_of(queue, job)).count("from the top") == 3
    assert row["started_at"] < tasks[0]["started_at"]


async def test_tasks_asked_for_together_run_together_and_answer_in_order(queue: Queue, broker: Broker) -> None:
    code = """
@task
def square(x):
    return x * x

@workflow
async def main():
    return await parallel(list(range(7)), square, concurrency=4)
"""
    job = await ask(queue, broker, HEAD + code)
    assert json.loads((await finished(queue, job))["result"]) == [0, 1, 4, 9, 16, 25, 36]
    assert len(await tasks_of(queue, job)) == 7
    assert (await log_of(queue, job)).count("claim=") == 2


async def test_a_task_that_fails_is_an_error_that_the_workflow_can_catch(queue: Queue, broker: Broker) -> None:
    code = """
@task
def breaks():
    raise KeyError("no such luck")

@workflow
async def main():
    try:
        await breaks()
    except TaskError as wrong:
        return [str(wrong), wrong.step_key, wrong.child_job_id, wrong.result["error"]["name"]]
"""
    job = await ask(queue, broker, HEAD + code)
    message, key, child, name = json.loads((await finished(queue, job))["result"])
    (task,) = await tasks_of(queue, job)
    assert (message, key, child, name) == ("'no such luck'", "breaks", str(task["id"]), "KeyError")
    assert task["outcome"] == "failure"


async def test_a_task_that_nobody_catches_fails_the_workflow(queue: Queue, broker: Broker) -> None:
    code = "@task\ndef breaks():\n    raise ValueError('bad')\n@workflow\nasync def main():\n    await breaks()\n"
    row = await finished(queue, await ask(queue, broker, HEAD + code))
    assert row["outcome"] == "failure"
    error = json.loads(row["result"])["error"]
    assert (error["name"], error["message"]) == ("TaskError", "bad")


async def test_the_sdk_tries_a_task_again_after_a_pause_that_holds_no_worker(queue: Queue, broker: Broker) -> None:
    code = """
@task(retry={"attempts": 2, "delay": 1})
def flaky(marker):
    raise ValueError("not yet")

@workflow
async def main():
    try:
        return await flaky("x")
    except TaskError as wrong:
        return wrong.step_key
"""
    job = await ask(queue, broker, HEAD + code)
    waits = "SELECT state FROM queue.live_job WHERE id = $1 AND state = 'suspended' AND wake_at IS NOT NULL"
    await eventually(lambda: queue.look.fetchval(waits, job))
    assert "the sleep 'flaky#retry2' until" in (await queue.explain(job) or {})["why"]
    assert json.loads((await finished(queue, job))["result"]) == "flaky#3"
    assert len(await tasks_of(queue, job)) == 3


async def test_steps_inside_a_round_make_no_jobs_and_run_once_though_the_code_runs_again(
    queue: Queue, broker: Broker
) -> None:
    code = """
import random

@task
def echo(x):
    return x

@workflow
async def main():
    first = await step("draw", lambda: random.random())
    await echo(1)
    again = await step("draw", lambda: random.random())
    await echo(2)
    return [first, again, await step("when", lambda: (1, "tuple"))]
"""
    job = await ask(queue, broker, HEAD + code)
    first, again, last = json.loads((await finished(queue, job))["result"])
    assert first != again
    assert last == [1, "tuple"]
    assert len(await tasks_of(queue, job)) == 2
    kept = await queue.look.fetch("SELECT key, kind FROM queue.workflow_step WHERE workflow_id = $1", job)
    assert {row["key"]: row["kind"] for row in kept} == {
        "draw": "inline",
        "draw_2": "inline",
        "when": "inline",
        "echo": "task",
        "echo_2": "task",
    }


async def test_a_step_inside_a_round_that_fails_is_caught_the_same_way_in_each_round(
    queue: Queue, broker: Broker
) -> None:
    code = """
def bad():
    raise ValueError("no")

@task
def echo(x):
    return x

@workflow
async def main():
    try:
        await step("bad", bad)
    except TaskError as wrong:
        return await echo([str(wrong), wrong.result["error"]["name"]])
"""
    assert await result_of(queue, broker, code) == ["no", "ValueError"]


async def test_steps_inside_a_round_are_kept_while_it_goes_on(queue: Queue, broker: Broker) -> None:
    code = """
import asyncio
ran = []

def did(name):
    ran.append(name)
    return len(ran)

@workflow
async def main():
    print("from the top")
    one = await step("one", lambda: did("one"))
    rest = await asyncio.gather(*(step(name, lambda name=name: did(name)) for name in "abc"))
    return [one, *rest, ran]
"""
    job = await ask(queue, broker, HEAD + code)
    row = await finished(queue, job)
    assert json.loads(row["result"]) == [1, 2, 3, 4, ["one", "a", "b", "c"]]
    assert row["claims"] == 1
    assert (await log_of(queue, job)).count("from the top") == 1
    assert await tasks_of(queue, job) == []
    kept = "SELECT key, result FROM queue.workflow_step WHERE workflow_id = $1 AND state = 'done' ORDER BY asked_at"
    assert [tuple(each) for each in await queue.look.fetch(kept, job)] == [
        ("one", "1"),
        ("a", "2"),
        ("b", "3"),
        ("c", "4"),
    ]


async def test_a_step_whose_value_json_does_not_know_is_kept_by_another_round(queue: Queue, broker: Broker) -> None:
    code = """
@workflow
async def main():
    one = await step("one", lambda: 1)
    return [one, await step("none", lambda: float("nan")), await step("last", lambda: "a\\0b")]
"""
    job = await ask(queue, broker, HEAD + code)
    row = await finished(queue, job)
    assert (row["claims"], json.loads(row["result"])) == (3, [1, None, "a\ufffdb"])


async def test_a_round_whose_claim_is_over_keeps_no_more_steps_and_is_stopped(
    queue: Queue, own_database_urls: DatabaseUrls, settings: dict[str, str]
) -> None:
    one_slot = {**settings, "TIDEMILL_WORKER_SLOTS": "1"}
    count = "SELECT count(*) FROM queue.workflow_step WHERE workflow_id = $1"
    async with running(own_database_urls, WORKER, settings=one_slot) as one:
        job = await ask(queue, one, HEAD + ENDLESS)
        await eventually(lambda: queue.look.fetchval(count, job))
        await queue.look.execute(
            "UPDATE queue.live_job SET state = 'queued', claim_key = NULL, worker_run = NULL WHERE id = $1", job
        )
        elsewhere = await queue.claim(run=uuid.uuid4())
        assert elsewhere is not None
        kept = await queue.look.fetchval(count, job)
        following = await ask(queue, one, "def main():\n    return 'free again'\n")
        assert json.loads((await finished(queue, following))["result"]) == "free again"
        assert await queue.look.fetchval(count, job) == kept
        assert len((await queue.checkpoint(elsewhere))[0]["completed_steps"]) == kept


async def test_canceling_a_round_stops_it_between_two_steps(queue: Queue, broker: Broker) -> None:
    job = await ask(queue, broker, HEAD + ENDLESS)
    await eventually(lambda: queue.look.fetchval("SELECT count(*) FROM queue.workflow_step WHERE key = 'on_2'"))
    await queue.cancel(job)
    assert (await finished(queue, job))["outcome"] == "canceled"


async def test_a_warm_workflow_keeps_its_process(queue: Queue, broker: Broker) -> None:
    code = """
count = 0

@workflow
async def main():
    global count
    count += 1
    return [await step("one", lambda: count), await step("two", lambda: count)]
"""
    version = await deployed(queue, HEAD + code, dedicated_worker=True)
    assert [await result_of_version(queue, broker, version) for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]


async def test_a_workflow_that_waits_holds_no_slot(
    queue: Queue, own_database_urls: DatabaseUrls, settings: dict[str, str]
) -> None:
    code = """
@task
def work(x):
    return x + 1

@workflow
async def main():
    return await work(await work(1))
"""
    one_slot = {**settings, "TIDEMILL_WORKER_SLOTS": "1"}
    async with running(own_database_urls, WORKER, SCHEDULER, settings=one_slot) as one:
        assert await result_of(queue, one, code) == 3


async def test_a_task_has_the_options_that_it_was_given(queue: Queue, broker: Broker) -> None:
    code = """
@task(tag="python3", timeout=77, priority=5, concurrency_limit=1, concurrency_key="k-$workspace")
def work():
    return None

@workflow
async def main():
    return await work()
"""
    job = await ask(queue, broker, HEAD + code)
    await finished(queue, job)
    (task,) = await tasks_of(queue, job)
    assert (task["tag"], task["timeout_s"], task["priority"]) == ("python3", 77, 5)
    row = await queue.look.fetchrow("SELECT limit_key, limit_ceiling FROM queue.job WHERE id = $1", task["id"])
    assert row is not None
    assert tuple(row) == ("k-w", 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("cache_ttl=60", "The option cache_ttl of the task 'work' is not supported by this version."),
        ("tag='no tag'", "The tag of the task 'work' must be up to 100 letters"),
        ("tag='flow'", "The tag 'flow' of the task 'work' is only for flows."),
    ],
)
async def test_what_a_task_can_not_have_fails_the_workflow_and_says_so(
    queue: Queue, broker: Broker, options: str, message: str
) -> None:
    code = f"@task({options})\ndef work():\n    pass\n@workflow\nasync def main():\n    await work()\n"
    row = await finished(queue, await ask(queue, broker, HEAD + code))
    assert row["outcome"] == "failure"
    assert message in json.loads(row["result"])["error"]["message"]


async def test_a_task_may_be_what_is_deployed_at_a_path(queue: Queue, broker: Broker) -> None:
    version = await deployed(queue, "def main(x, y=1):\n    return [x, y]\n")
    code = f"""
from wmill import task_script
other = task_script("{version["path"]}")

@workflow
async def main():
    return await other(x=5)
"""
    who = {"username": "ann", "is_admin": False}
    job = await ask(queue, broker, HEAD + code, permissions=who)
    assert json.loads((await finished(queue, job))["result"]) == [5, 1]
    (task,) = await tasks_of(queue, job)
    assert (task["kind"], task["hash"], task["path"]) == ("script", version["hash"], version["path"])
    code = "from wmill import task_script\n@workflow\nasync def main():\n    await task_script('u/ann/nosuch')(x=5)\n"
    row = await finished(queue, await ask(queue, broker, HEAD + code, permissions=who))
    assert "There is no script at u/ann/nosuch" in json.loads(row["result"])["error"]["message"]


async def test_a_deployed_workflow_runs_its_own_version_in_its_tasks(queue: Queue, broker: Broker) -> None:
    code = "@task\ndef who():\n    return __file__ and 1\n@workflow\nasync def main():\n    return await who()\n"
    version = await deployed(queue, HEAD + code)
    job = await ask(queue, broker, None, **version)
    assert json.loads((await finished(queue, job))["result"]) == 1
    (task,) = await tasks_of(queue, job)
    assert (task["kind"], task["hash"]) == ("script", version["hash"])


async def test_canceling_a_workflow_that_waits_stops_its_tasks_as_well(queue: Queue, broker: Broker) -> None:
    code = """
@task
def slow():
    print("asleep", flush=True)
    time.sleep(60)

@workflow
async def main():
    await slow()
"""
    job = await ask(queue, broker, HEAD + code)
    (task,) = await eventually(lambda: tasks_of(queue, job))
    await says(queue, task["id"], "asleep")
    why = (await queue.explain(job) or {})["why"]
    assert why == f"It waits for the task 'slow' (job {task['id']}, running)."
    assert (await queue.cancel(job)).answer == "requested"
    assert (await finished(queue, job))["outcome"] == "canceled"
    assert (await finished(queue, task["id"]))["outcome"] == "canceled"
