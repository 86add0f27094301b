"""Time, cancels, sizes: what ends a job, and what is told then."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import uuid4

import pytest

from tests.integration.worker_sandbox.harness import Scripts, processes_with, until
from tidemill.worker.sandbox.execution import Limits

SECOND = timedelta(seconds=1)


def family(marker: str) -> str:
    """Return a script whose children, grandchildren and detached daemons all bear the marker."""
    return f"""
import os, subprocess, time
def main():
    subprocess.Popen(["bash", "-c", "bash -c 'exec -a {marker} sleep 1000' & exec -a {marker} sleep 1000"])
    subprocess.Popen(["setsid", "bash", "-c", "exec -a {marker} sleep 1000"])
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("bash", ["bash", "-c", "trap '' TERM INT HUP; exec -a {marker} sleep 1000"])
        os._exit(0)
    print("started", flush=True)
"""


async def test_cancel_ends_the_whole_family_within_a_second(either: Scripts) -> None:
    marker = f"family-{uuid4().hex}"
    run = either.start(family(marker) + "    time.sleep(1000)\n")
    await run.says("started")
    await until(lambda: len(processes_with(marker)) >= 4)
    started = time.monotonic()
    run.cancel.set()
    ending = await run.ending()
    await until(lambda: not processes_with(marker))
    assert time.monotonic() - started < 1
    assert (ending.success, ending.reason) == (False, "canceled")


async def test_what_outlives_main_is_killed(either: Scripts) -> None:
    marker = f"family-{uuid4().hex}"
    run = either.start(family(marker) + "    time.sleep(0.5)\n")
    await until(lambda: len(processes_with(marker)) >= 4)
    assert (await run.ending()).success
    await until(lambda: not processes_with(marker), within=SECOND)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python3", "import time, signal\ndef main():\n    signal.signal(15, signal.SIG_IGN)\n    time.sleep(1000)"),
        ("python3", "def main():\n    while True: pass"),
        ("bash", "trap '' TERM; sleep 1000"),
    ],
)
async def test_a_job_beyond_its_time_is_killed_and_says_so(scripts: Scripts, language: str, code: str) -> None:
    started = time.monotonic()
    error = await scripts.error(code, language=language, limits=Limits(wall_time=timedelta(seconds=0.3)))
    assert time.monotonic() - started < 2
    assert (error["name"], error["message"]) == ("ExecutionErr", "Job timed out after 0.3s")
    assert error["reason"] == "timeout"


async def test_a_job_cancelled_before_it_began_does_not_begin(scripts: Scripts) -> None:
    run = scripts.start("def main(): print('ran')")
    run.cancel.set()
    assert (await run.ending()).reason == "canceled"
    assert run.log == ""


async def test_giving_up_on_a_run_kills_its_job(scripts: Scripts) -> None:
    marker = f"given-up-{uuid4().hex}"
    run = scripts.start(f"echo go; exec -a {marker} sleep 1000", language="bash")
    await until(lambda: processes_with(marker))
    assert run.task is not None
    run.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run.task
    await until(lambda: not processes_with(marker), within=SECOND)


async def test_the_log_is_live_and_in_order(scripts: Scripts) -> None:
    code = """
import sys, time
def main():
    for i in range(50):
        print(i, file=sys.stderr if i % 2 else sys.stdout)
    sys.stdout.write('no newline yet'); sys.stdout.flush()
    time.sleep(1000)
"""
    run = scripts.start(code)
    await run.says("no newline yet")
    run.cancel.set()
    await run.ending()
    assert run.log == "".join(f"{i}\n" for i in range(50)) + "no newline yet"


async def test_everything_written_before_the_answer_is_heard_before_the_ending(scripts: Scripts) -> None:
    for _ in range(5):
        _, run = await scripts.run("def main():\n    print('x' * 300_000)\n    print('end')")
        assert run.log == "x" * 300_000 + "\nend\n"


async def test_output_that_is_no_text_is_replaced(scripts: Scripts) -> None:
    _, run = await scripts.run(r"import os" "\n" r"def main(): os.write(1, b'\xff\x00ok\n')")
    assert run.log == "\ufffd\ufffdok\n"


async def test_a_log_beyond_its_limit_is_cut_and_the_job_goes_on(scripts: Scripts) -> None:
    code = "def main():\n    for _ in range(20_000): print('y' * 99)\n    return 'done'"
    ending, run = await scripts.run(code, limits=Limits(log_bytes=10_000))
    assert ending.success
    assert len(run.log) < 10_200
    assert "longer than 10000 bytes" in run.log


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python3", "def main(): return 'r' * 20_000"),
        ("python3", "def main():\n    while True: yield 'r' * 100"),
        ("python3", "def main():\n    while True: print('WM_STREAM: ' + 'r' * 100)"),
        ("python3", "def main(): raise ValueError('r' * 20_000)"),
        ("bash", "head -c 20000 /dev/zero | tr '\\0' r"),
        ("bash", "printf '\"%020000d\"' 1 > result.json"),
        ("bash", "head -c 20000 /dev/zero > result.out"),
    ],
)
async def test_a_result_beyond_its_limit_fails_the_job(scripts: Scripts, language: str, code: str) -> None:
    error = await scripts.error(code, language=language, limits=Limits(result_bytes=10_000, wall_time=10 * SECOND))
    assert (error["name"], error["reason"]) == ("ResultTooLarge", "result_limit")


async def test_a_child_that_writes_nonsense_on_its_socket_fails_alone(scripts: Scripts) -> None:
    for nonsense in ("b'\\xff' * 8", "b'\\0\\0\\0\\2{}'", "b'\\0\\0\\0\\3[[['"):
        error = await scripts.error(f"import os, time\ndef main():\n    os.write(3, {nonsense})\n    time.sleep(1000)")
        assert set(error) >= {"name", "message"}
    assert await scripts.result("def main(): return 1") == 1


async def test_a_script_that_closes_every_descriptor_still_ends(scripts: Scripts) -> None:
    error = await scripts.error("import os\ndef main():\n    os.closerange(0, 1000)")
    assert error["reason"] == "exit_code"


async def test_memory_beyond_the_limit_is_refused(scripts: Scripts) -> None:
    error = await scripts.error("def main(): bytearray(300 << 20)", limits=Limits(memory_bytes=200 << 20))
    assert error["name"] == "MemoryError"


async def test_a_fork_bomb_meets_its_limit_and_leaves_the_others_alone(scripts: Scripts) -> None:
    code = """
import os, time
def main():
    n = 0
    try:
        while True:
            if os.fork() == 0: time.sleep(1000)
            n += 1
    except OSError as error:
        return [n, error.strerror]
"""
    bomb, other = await asyncio.gather(
        scripts.result(code, limits=Limits(processes=20)),
        scripts.result("import os\ndef main(): return os.system('true')"),
    )
    assert bomb[0] < 20
    assert bomb[1] == "Resource temporarily unavailable"
    assert other == 0


async def test_files_and_folders_are_bounded(scripts: Scripts) -> None:
    code = """
def main():
    found = []
    for path in ('/tmp/x', '/job/x', '/dev/shm/x'):
        try:
            with open(path, 'wb') as file:
                for _ in range(64): file.write(b'1' * (1 << 20))
        except OSError as error:
            found.append(error.strerror)
    return found
"""
    assert await scripts.result(code, limits=Limits(tmp_bytes=8 << 20)) == ["No space left on device"] * 3
    assert await scripts.result(code, limits=Limits(file_bytes=4 << 20)) == ["File too large"] * 3
