"""Steps that a job's process has kept while it runs, and those that it only says it has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.integration.worker_sandbox.harness import DEADLINE, Run
from tidemill.worker.sandbox.answers import failed
from tidemill.worker.sandbox.execution import Ending, Execution
from tidemill.worker.sandbox.pool import Sandbox, ZygoteKey

SAY = """\
import os, signal, socket, sys
worker = socket.socket(fileno=3)

def say(step):
    worker.sendall(len(step).to_bytes(4, "big") + step)

def hear():
    return worker.recv(int.from_bytes(worker.recv(4), "big")).decode()

def main():
    print("begun", flush=True)
    say(b'{"step":1}')
"""


async def ran(
    sandbox: Sandbox,
    code: str,
    on_step: Callable[[bytes], Awaitable[Ending | None]],
    cancel: asyncio.Event | None = None,
) -> tuple[Ending, str]:
    run = Run(cancel=cancel or asyncio.Event())
    async with asyncio.timeout(DEADLINE.total_seconds()):
        ending = await sandbox.run(
            ZygoteKey(workspace="test"),
            Execution(job_id="test", language="python3", code=SAY + code),
            on_log=run.chunks.append,
            on_stream=run.stream.append,
            cancel=run.cancel,
            on_step=on_step,
        )
    return ending, run.log


def value_of(ending: Ending) -> Any:
    return msgspec.json.decode(ending.result)


async def test_a_step_is_answered_when_it_is_kept(sandbox: Sandbox) -> None:
    seen: list[bytes] = []

    async def keep(step: bytes) -> None:
        await asyncio.sleep(0)
        seen.append(step)

    code = "    first = hear()\n    say(b'{\"step\":[2]}')\n    return [first, hear()]\n"
    ending, _ = await ran(sandbox, code, keep)
    assert value_of(ending) == ['{"kept":true}'] * 2
    assert seen == [b"1", b"[2]"]


async def test_a_process_that_dies_before_it_hears_the_answer_is_not_run_again(sandbox: Sandbox) -> None:
    answered = asyncio.Event()

    async def keep(_step: bytes) -> None:
        asyncio.get_running_loop().call_soon(answered.set)

    ending, log = await ran(sandbox, "    worker.recv(1, socket.MSG_PEEK)\n    os.kill(os.getpid(), 9)\n", keep)
    assert answered.is_set()
    assert (ending.reason, log) == ("killed", "begun\n")


async def test_a_run_that_may_not_go_on_is_ended_at_its_step(sandbox: Sandbox) -> None:
    async def refuse(_step: bytes) -> Ending:
        return failed("refused", "WorkflowError", "no more")

    ending, log = await ran(sandbox, "    hear()\n    print('went on')\n", refuse)
    assert (ending.reason, value_of(ending)["error"]["message"], log) == ("refused", "no more", "begun\n")


async def test_a_run_is_canceled_while_its_step_is_being_kept(sandbox: Sandbox) -> None:
    cancel = asyncio.Event()

    async def never(_step: bytes) -> None:
        cancel.set()
        await asyncio.Event().wait()

    ending, log = await ran(sandbox, "    hear()\n    print('went on')\n", never, cancel)
    assert (ending.reason, log) == ("canceled", "begun\n")


async def test_who_does_not_wait_for_the_answer_is_ended(sandbox: Sandbox) -> None:
    async def never(_step: bytes) -> None:
        await asyncio.Event().wait()

    ending, _ = await ran(sandbox, "    say(b'{\"step\":2}')\n    hear()\n", never)
    assert "did not wait for its step" in value_of(ending)["error"]["message"]


async def test_no_step_is_kept_where_nobody_keeps_any(sandbox: Sandbox) -> None:
    run = Run()
    execution = Execution(job_id="test", language="python3", code=SAY + "    hear()\n")
    async with asyncio.timeout(DEADLINE.total_seconds()):
        ending = await sandbox.run(
            ZygoteKey(workspace="test"),
            execution,
            on_log=run.chunks.append,
            on_stream=run.stream.append,
            cancel=run.cancel,
        )
    assert json.loads(bytes(ending.result))["error"]["message"] == "No steps are kept for this job."
