"""Flows as a user meets them, in both shapes: saved, run, watched, approved, stopped, and seen to their end."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from wmill import Windmill

from tests.support.cli import Cli
from tests.support.flows import branch_all, branch_one, expr, flow, loop, step, while_loop
from tests.support.installation import Installation
from tests.support.waiting import eventually

PATIENCE = 30


async def save(tidemill: Installation, path: str, value: Mapping[str, Any]) -> None:
    """Save a flow and wait until it can be run, its locks found."""
    await tidemill.call("POST", "/w/:w/flows/create", {"path": path, "summary": "", "value": value})
    await served(tidemill, path)


async def served(tidemill: Installation, path: str) -> None:
    status = await tidemill.call("GET", f"/w/:w/flows/deployment_status/p/{path}")
    if "job_id" in status:
        assert (await ended(tidemill, status["job_id"]))["success"]


async def answer_to(tidemill: Installation, value: Mapping[str, Any], args: Any = None) -> Any:
    """Run a flow that is not saved and return its result."""
    body = {"value": value, "args": args or {}}
    return await tidemill.call("POST", "/w/:w/jobs/run_wait_result/preview_flow", body)


async def start(tidemill: Installation, value: Mapping[str, Any], args: Any = None) -> str:
    body = {"value": value, "args": args or {}}
    return str(await tidemill.call("POST", "/w/:w/jobs/run/preview_flow", body))


async def ended(tidemill: Installation, job: str) -> Any:
    """Return a job as it is once it has ended."""

    async def look() -> Any:
        seen = await tidemill.call("GET", f"/w/:w/jobs_u/get/{job}")
        return seen if seen["type"] == "CompletedJob" else None

    return await eventually(look, PATIENCE)


async def run(tidemill: Installation, value: Mapping[str, Any], args: Any = None) -> Any:
    """Run a flow that is not saved and return its job once it has ended."""
    return await ended(tidemill, await start(tidemill, value, args))


async def waits_for_approval(tidemill: Installation, job: str) -> Any:
    """Return the first of a flow's modules, which has run, once the flow waits before the next."""

    async def look() -> Any:
        modules = (await tidemill.call("GET", f"/w/:w/jobs_u/get/{job}"))["flow_status"]["modules"]
        return modules[0] if modules[1]["type"] == "WaitingForEvents" else None

    return await eventually(look, PATIENCE)


async def test_steps_run_one_after_the_other_and_see_what_came_before(tidemill: Installation) -> None:
    value = flow(
        step("list", "def main(upto: int):\n    return list(range(upto))\n", upto=expr("flow_input.upto")),
        step("sum", "def main(ns: list):\n    return sum(ns)\n", ns=expr("results.list")),
        step("say", "def main(n, m):\n    return [n, m]\n", n=expr("previous_result"), m=expr("results.list.length")),
    )
    await save(tidemill, "u/admin/summing", value)
    assert await tidemill.call("POST", "/w/:w/jobs/run_wait_result/f/u/admin/summing", {"upto": 5}) == [10, 5]
    kept = await tidemill.call("GET", "/w/:w/flows/get/u/admin/summing")
    assert [module["id"] for module in kept["value"]["modules"]] == ["list", "sum", "say"]


async def test_a_flow_shows_all_its_steps_from_the_first_moment(tidemill: Installation) -> None:
    value = flow(step("a", "def main():\n    return 1\n"), step("b", "def main():\n    return 2\n"))
    job = await start(tidemill, value)
    first = await tidemill.call("GET", f"/w/:w/jobs_u/get/{job}")
    assert [module["id"] for module in first["flow_status"]["modules"]] == ["a", "b"]
    last = await ended(tidemill, job)
    assert [module["type"] for module in last["flow_status"]["modules"]] == ["Success", "Success"]
    assert last["flow_status"]["step"] == 2
    assert last["result"] == 2


@pytest.mark.parametrize("how", [{}, {"parallel": True}, {"parallel": True, "parallelism": 2}])
async def test_a_loop_keeps_the_order_of_its_list(tidemill: Installation, how: Any) -> None:
    named = "def main(name: str, at: int):\n    print('greeting', name)\n    return f'{at} {name}'\n"
    body = step("greet", named, name=expr("flow_input.iter.value"), at=expr("flow_input.iter.index"))
    done = await run(
        tidemill, flow(loop("each", expr("flow_input.names"), body, **how)), {"names": ["ann", "ben", "cy"]}
    )
    assert done["result"] == ["0 ann", "1 ben", "2 cy"]
    (each,) = done["flow_status"]["modules"]
    assert each["flow_jobs_success"] == [True, True, True]
    assert "greeting ben" in await tidemill.call("GET", f"/w/:w/jobs_u/get_logs/{each['flow_jobs'][1]}")


async def test_a_loop_over_nothing_has_no_results(tidemill: Installation) -> None:
    assert await answer_to(tidemill, flow(loop("each", expr("[]"), step("a", "def main():\n    return 1\n")))) == []


async def test_a_loop_can_go_on_after_a_bad_item(tidemill: Installation) -> None:
    inverse = step("invert", "def main(n):\n    return 1 / n\n", n=expr("flow_input.iter.value"))
    one, bad, half = await answer_to(tidemill, flow(loop("each", [1, 0, 2], inverse, skip_failures=True)))
    assert (one, half) == (1, 0.5)
    assert bad["error"]["name"] == "ZeroDivisionError"


async def test_a_loop_goes_on_until_it_is_told_to_stop(tidemill: Installation) -> None:
    count = step(
        "count",
        "def main(at: int):\n    return at * 10\n",
        at=expr("flow_input.iter.index"),
        options={"stop_after_if": {"expr": "result >= 20", "skip_if_stopped": False}},
    )
    value = flow(while_loop("again", count), step("last", "def main(ns):\n    return ns\n", ns=expr("results.again")))
    assert await answer_to(tidemill, value) == [0, 10, 20]


@pytest.mark.parametrize(("size", "said"), [(500, "ask the board"), (50, "ask the boss"), (5, "just do it")])
async def test_one_branch_is_taken(tidemill: Installation, size: int, said: str) -> None:
    def says(module_id: str, words: str) -> Any:
        return step(module_id, "def main(words: str):\n    return words\n", words=words)

    value = flow(
        branch_one(
            "how",
            ("flow_input.size > 100", [says("much", "ask the board")]),
            ("flow_input.size > 10", [says("some", "ask the boss")]),
            default=[says("little", "just do it")],
        )
    )
    assert await answer_to(tidemill, value, {"size": size}) == said


@pytest.mark.parametrize("parallel", [False, True])
async def test_every_branch_is_taken(tidemill: Installation, parallel: bool) -> None:
    shout = {"type": "rawscript", "language": "bash", "content": 'word="$1"\necho "${word^^}"\n'}
    shout["input_transforms"] = {"word": expr("flow_input.word")}  # type: ignore[assignment]  # the other values are text
    turn = step("turn", "def main(word: str):\n    return word[::-1]\n", word=expr("flow_input.word"))
    value = flow(branch_all("both", [{"id": "shout", "value": shout}], [turn], parallel=parallel))
    assert await answer_to(tidemill, value, {"word": "tide"}) == ["TIDE", "edit"]


async def test_a_step_is_tried_again_until_it_works(tidemill: Installation) -> None:
    flaky = """\
import wmill

def main():
    tries = (wmill.get_flow_user_state("tries") or 0) + 1
    wmill.set_flow_user_state("tries", tries)
    if tries < 3:
        raise RuntimeError(f"try {tries} failed")
    return f"try {tries} worked"
"""
    value = flow(step("flaky", flaky, options={"retry": {"constant": {"attempts": 5, "seconds": 0}}}))
    done = await run(tidemill, value)
    assert done["result"] == "try 3 worked"
    (flaky_one,) = done["flow_status"]["modules"]
    assert len(flaky_one["failed_retries"]) == 2


@pytest.mark.parametrize("recover", [False, True])
async def test_an_error_reaches_the_error_handler_and_may_be_forgiven(tidemill: Installation, recover: bool) -> None:
    code = "def main(at: str, why: str, recover: bool):\n    return {'recover': recover, 'at': at, 'why': why}\n"
    handler = step("failure", code, at=expr("error.step_id"), why=expr("error.message"), recover=recover)
    value = flow(
        step("bad", "def main():\n    raise ValueError('no such luck')\n"),
        step("never", "def main():\n    return 'never'\n"),
        failure_module=handler,
    )
    done = await run(tidemill, value)
    assert done["result"] == {"recover": recover, "at": "bad", "why": "no such luck"}
    assert done["success"] is recover
    modules = done["flow_status"]["modules"]
    assert [module["type"] for module in modules] == ["Failure", "WaitingForPriorSteps"]
    assert done["flow_status"]["failure_module"]["type"] == "Success"


async def test_a_flow_uses_another_flow_and_a_script(tidemill: Installation) -> None:
    await tidemill.save_script("u/admin/twice", "def main(n: int):\n    return n * 2\n")
    doubling = {"type": "script", "path": "u/admin/twice", "input_transforms": {"n": expr("flow_input.n")}}
    await save(tidemill, "u/admin/doubling", flow({"id": "a", "value": doubling}))
    inner = {"type": "flow", "path": "u/admin/doubling", "input_transforms": {"n": expr("flow_input.iter.value")}}
    assert await answer_to(tidemill, flow(loop("each", [1, 2, 3], {"id": "inner", "value": inner}))) == [2, 4, 6]


async def test_a_flow_stops_early(tidemill: Installation) -> None:
    value = flow(
        step(
            "look",
            "def main():\n    return []\n",
            options={"stop_after_if": {"expr": "result.length == 0", "skip_if_stopped": True}},
        ),
        step("work", "def main():\n    return 'never'\n"),
    )
    done = await run(tidemill, value)
    assert (done["result"], done["success"], done["is_skipped"]) == ([], True, True)
    assert [module["type"] for module in done["flow_status"]["modules"]] == ["Success", "WaitingForPriorSteps"]


ASK = "import wmill\ndef main():\n    return wmill.get_resume_urls('boss')\n"
ASKED = flow(
    step("ask", ASK, options={"suspend": {"required_events": 1, "timeout": 600}}),
    step("act", "def main(said, by):\n    return [said, by]\n", said=expr("resume"), by=expr("approvers")),
)


async def test_a_flow_waits_until_somebody_opens_its_url(tidemill: Installation) -> None:
    job = await start(tidemill, ASKED)
    ask = await waits_for_approval(tidemill, job)
    urls = await tidemill.call("GET", f"/w/:w/jobs_u/completed/get_result/{ask['job']}")
    assert "approvals" in (await tidemill.call("GET", f"/w/:w/jobs/explain/{job}"))["why"]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE)) as nobody:
        async with nobody.get(here(tidemill, urls["approvalPage"])) as page:
            assert (page.status, page.content_type) == (200, "text/html")
            assert "<form" in await page.text()
        async with nobody.post(here(tidemill, urls["resume"])[:-20] + "0" * 20, json={}) as forged:
            assert forged.status == 403
        async with nobody.post(here(tidemill, urls["resume"]), json={"budget": 7}) as approved:
            assert approved.status == 201
        done = await ended(tidemill, job)
        assert done["result"] == [{"budget": 7}, ["boss"]]
        async with nobody.post(here(tidemill, urls["resume"]), json={"budget": 9}) as again:
            assert again.status == 409


async def test_a_flow_that_is_refused_fails(tidemill: Installation) -> None:
    job = await start(tidemill, ASKED)
    ask = await waits_for_approval(tidemill, job)
    urls = await tidemill.call("GET", f"/w/:w/jobs_u/completed/get_result/{ask['job']}")
    async with aiohttp.ClientSession() as nobody, nobody.get(here(tidemill, urls["cancel"])) as refused:
        assert refused.status == 201
    done = await ended(tidemill, job)
    assert (done["success"], done["result"]["error"]["name"]) == (False, "SuspendedDisapproved")


def here(tidemill: Installation, url: str) -> str:
    """Return one of the installation's URLs by the address that the test uses for it."""
    return url.replace("http://localhost", "http://127.0.0.1")


async def test_a_flow_sleeps_between_steps(tidemill: Installation) -> None:
    first = step("first", "def main():\n    return 1\n", options={"sleep": {"type": "static", "value": 1}})
    done = await run(tidemill, flow(first, step("second", "def main():\n    return 2\n")))
    jobs = [await ended(tidemill, module["job"]) for module in done["flow_status"]["modules"]]
    assert done["result"] == 2
    assert jobs[1]["scheduled_for"] >= jobs[0]["completed_at"]


async def test_steps_on_one_worker_share_a_folder(tidemill: Installation) -> None:
    write = {"type": "rawscript", "language": "bash", "content": "echo washed ashore > ./shared/bottle\n"}
    read = step("read", "def main():\n    return open('./shared/bottle').read().strip()\n")
    value = flow({"id": "write", "value": {**write, "input_transforms": {}}}, read, same_worker=True)
    assert await answer_to(tidemill, value) == "washed ashore"


@pytest.mark.parametrize("inputs", [{}, {"event": expr("flow_input.event")}])
async def test_a_webhook_goes_through_the_preprocessor(tidemill: Installation, inputs: Any) -> None:
    code = "def preprocessor(event):\n    return {'cups': event['body']['order'], 'kind': event['kind']}\n"
    unpack = step("preprocessor", code, **inputs)
    brew = "def main(cups: int, kind: str):\n    return [cups, kind]\n"
    value = flow(step("brew", brew, cups=expr("flow_input.cups"), kind=expr("flow_input.kind")))
    path = f"u/admin/brewing{len(inputs)}"
    await save(tidemill, path, {**value, "preprocessor_module": unpack})
    where = f"/w/:w/jobs/run_wait_result/f/{path}"
    assert await tidemill.call("POST", where, {"order": 3}) == [3, "webhook"]
    assert await tidemill.call("POST", where, {"cups": 4, "kind": "own"}, skip_preprocessor="true") == [4, "own"]


async def test_an_old_version_still_runs(tidemill: Installation) -> None:
    def saying(words: str) -> dict[str, Any]:
        return flow(step("say", "def main(words: str):\n    return words\n", words=words))

    await save(tidemill, "u/admin/changing", saying("old"))
    update = {"path": "u/admin/changing", "summary": "", "value": saying("new")}
    await tidemill.call("POST", "/w/:w/flows/update/u/admin/changing", update)
    await served(tidemill, "u/admin/changing")
    assert await tidemill.call("POST", "/w/:w/jobs/run_wait_result/f/u/admin/changing", {}) == "new"
    new, old = await tidemill.call("GET", "/w/:w/flows/history/p/u/admin/changing")
    assert new["id"] > old["id"]
    assert await tidemill.call("POST", f"/w/:w/jobs/run_wait_result/fv/{old['id']}", {}) == "old"


async def test_a_flow_is_taken_up_at_one_of_its_steps(tidemill: Installation) -> None:
    path = "u/admin/resumable"
    now = "import time\ndef main():\n    return time.time()\n"
    last = "def main(first: float, now: float):\n    return [first, now]\n"
    value = flow(
        step("first", now), step("then", now), step("last", last, first=expr("results.first"), now=expr("results.then"))
    )
    await save(tidemill, path, value)
    job = await tidemill.call("POST", f"/w/:w/jobs/run/f/{path}", {})
    before = (await ended(tidemill, job))["result"]
    again = await tidemill.call("POST", f"/w/:w/jobs/restart/f/{job}", {"step_id": "then"})
    after = (await ended(tidemill, again))["result"]
    assert again != job
    assert after[0] == before[0]
    assert after[1] > before[1]


async def test_canceling_a_flow_stops_its_steps(tidemill: Installation) -> None:
    slow = step("slow", "import time\ndef main():\n    time.sleep(120)\n")
    job = await start(tidemill, flow(loop("each", [1, 2], slow, parallel=True)))

    async def steps() -> Any:
        (each,) = (await tidemill.call("GET", f"/w/:w/jobs_u/get/{job}"))["flow_status"]["modules"]
        return each["flow_jobs"] if len(each.get("flow_jobs", ())) == 2 else None

    running = await eventually(steps, PATIENCE)
    await tidemill.call("POST", f"/w/:w/jobs_u/queue/cancel/{job}", {"reason": "changed my mind"})
    done = await ended(tidemill, job)
    assert (done["canceled"], done["canceled_reason"]) == (True, "changed my mind")
    assert [(await ended(tidemill, each))["canceled"] for each in running] == [True, True]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (flow(step("a", "x"), step("a", "y")), "taken by another module"),
        (flow({"id": "a", "value": {"type": "script", "path": "u/admin/nowhere", "input_transforms": {}}}), "nowhere"),
        (flow(step("a", "x", n=expr("1 +"))), "is no JavaScript"),
        (flow({"id": "a", "value": {"type": "magic"}}), "magic"),
    ],
)
async def test_a_flow_that_can_not_run_is_refused_with_its_module(
    tidemill: Installation, value: Any, told: str
) -> None:
    with pytest.raises(AssertionError, match="422") as refused:
        await start(tidemill, value)
    assert told in str(refused.value)


async def in_thread(work: Any, *args: Any, **named: Any) -> Any:
    return await asyncio.to_thread(lambda: work(*args, **named))


async def test_the_sdk_runs_flows_and_steps_use_it(tidemill: Installation) -> None:
    inside = """\
import os, wmill

def main(n: int):
    wmill.set_flow_user_state("kept", {"n": n})
    wmill.set_progress(40)
    return {
        "root": wmill.get_root_job_id() == os.environ["WM_ROOT_FLOW_JOB_ID"],
        "progress": wmill.get_progress(),
        "kept": wmill.get_flow_user_state("kept"),
        "pages": sorted(wmill.get_resume_urls()),
    }
"""
    await save(tidemill, "u/admin/with_sdk", flow(step("a", inside, n=expr("flow_input.n"))))
    client = Windmill(base_url=tidemill.url, token=tidemill.token, workspace=tidemill.workspace)  # type: ignore[no-untyped-call]  # the package's constructor is untyped
    job = await in_thread(client.run_flow_async, "u/admin/with_sdk", {"n": 4})
    assert await in_thread(client.wait_job, job, timeout=PATIENCE) == {
        "root": True,
        "progress": 40,
        "kept": {"n": 4},
        "pages": ["approvalPage", "cancel", "resume"],
    }
    waiting = await in_thread(client.run_flow_async, "u/admin/with_sdk", {"n": 4}, scheduled_in_secs=3600)
    await in_thread(client.cancel_job, waiting, "not today")
    assert (await ended(tidemill, waiting))["canceled_reason"] == "not today"


WORKFLOW = """\
import asyncio
from wmill import sleep, step, task, workflow

@task()
async def square(n: int):
    print("squaring", n)
    return n * n

@workflow
async def main(upto: int):
    squares = await asyncio.gather(*[square(n) for n in range(upto)])
    await sleep(1)
    return await step("sum", lambda: sum(squares))
"""


async def test_a_workflow_is_written_as_code(tidemill: Installation) -> None:
    await tidemill.serve_script("u/admin/squares", WORKFLOW)
    job = await tidemill.call("POST", "/w/:w/jobs/run/p/u/admin/squares", {"upto": 4})
    assert (await ended(tidemill, job))["result"] == 14
    tasks = await tidemill.call("GET", "/w/:w/jobs/list", parent_job=job)
    assert len(tasks) == 4


COMMAND_FLOW = """\
summary: Counts
value:
  modules:
    - id: list
      summary: all numbers
      value:
        type: rawscript
        language: python3
        content: '!inline all_numbers.inline_script.py'
        input_transforms:
          upto: {type: javascript, expr: flow_input.upto}
    - id: each
      value:
        type: forloopflow
        iterator: {type: javascript, expr: results.list}
        skip_failures: false
        modules:
          - id: check
            value:
              type: rawscript
              language: bash
              content: '!inline check.inline_script.sh'
              input_transforms:
                n: {type: javascript, expr: flow_input.iter.value}
    - id: how
      value:
        type: branchone
        branches:
          - summary: many
            expr: results.each.length > 1
            modules:
              - {id: many, value: {type: identity}}
        default: [{id: few, value: {type: identity}}]
schema:
  $schema: 'https://json-schema.org/draft/2020-12/schema'
  type: object
  properties:
    upto: {type: integer, description: ''}
  required: [upto]
"""
COMMAND_FILES = {
    "flow.yaml": COMMAND_FLOW,
    "all_numbers.inline_script.py": "def main(upto: int):\n    return list(range(upto))\n",
    "check.inline_script.sh": 'n="$1"\n[ "$n" -lt 3 ] || { echo "$n is too much"; exit 1; }\necho "counted $n"\n',
}


async def test_the_command_pushes_and_runs_flows(tidemill: Installation, wmill: Sequence[str], tmp_path: Path) -> None:
    command = Cli(wmill, tmp_path, tidemill)
    command.write(".", {"wmill.yaml": 'defaultTs: bun\nincludes: ["**"]\nsyncBehavior: v1\n'})
    command.write("u/admin/counts.flow", COMMAND_FILES)
    pushed = await command("flow", "push", "u/admin/counts.flow", "u/admin/counts")
    assert "Flow pushed" in pushed.output
    ran, failed, shown, versions, again, tried, alone = await asyncio.gather(
        command("flow", "run", "u/admin/counts", "-d", '{"upto": 3}'),
        command("flow", "run", "u/admin/counts", "-s", "-d", '{"upto": 5}'),
        command("flow", "get", "u/admin/counts"),
        command("flow", "history", "u/admin/counts"),
        command("flow", "push", "u/admin/counts.flow", "u/admin/counts"),
        command("flow", "preview", "u/admin/counts.flow", "-s", "-d", '{"upto": 1}'),
        command("flow", "preview", "u/admin/counts.flow", "--step", "list", "-s", "-d", '{"upto": 2}'),
    )
    assert ran.code == 0, ran.output
    assert "list: all numbers" in ran.output
    for line in ("each (iteration 0)", "counted 0", "each (iteration 2)", "counted 2", "Flow ran to completion"):
        assert line in ran.output
    assert failed.code == 1
    assert "3 is too much" in failed.output
    assert "check: rawscript (bash)" in shown.output
    assert versions.code == 0, versions.output
    assert "is up to date" in again.output
    assert (tried.code, tried.output.strip()) == (0, '["counted 0"]')
    assert (alone.code, alone.output.strip()) == (0, "[0,1]")


async def test_the_command_finds_the_locks_of_a_flow(
    tidemill: Installation, wmill: Sequence[str], tmp_path: Path
) -> None:
    command = Cli(wmill, tmp_path, tidemill)
    command.write(".", {"wmill.yaml": 'defaultTs: bun\nincludes: ["**"]\nsyncBehavior: v1\n'})
    files = {**COMMAND_FILES, "all_numbers.inline_script.py": "import httpx\ndef main(upto: int):\n    return [upto]\n"}
    command.write("u/admin/locked.flow", files)
    locked = await command("generate-metadata", "--yes")
    assert locked.code == 0, locked.output
    assert "httpx==" in command.read("u/admin/locked.flow/*.lock")
