"""What a zygote must be before it forks, and what each of its children must be before it runs a job."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.integration.worker_sandbox.harness import Scripts, children_of
from tidemill.worker.sandbox.inside.zygote import PRELOADED
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, ZygoteKey

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a zygote can be looked into by root only")


async def zygote_of(scripts: Scripts, before: set[int]) -> psutil.Process:
    """Return the zygote in which these scripts run: the one that is the first of its pid namespace."""
    await scripts.result("def main(): return 1")
    (zygote,) = (pid for pid in children_of(os.getpid()) - before if is_zygote(pid))
    return psutil.Process(zygote)


def is_zygote(pid: int) -> bool:
    try:
        numbers = Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].splitlines()[0].split()
    except FileNotFoundError:
        return False
    return len(numbers) == 2 and numbers[-1] == "1"


def descriptors(pid: int) -> list[str]:
    return [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]


@as_root
async def test_a_zygote_has_one_thread_and_no_descriptor_that_it_does_not_need() -> None:
    before = children_of(os.getpid())
    inherited = os.memfd_create("inherited", 0)
    try:
        async with Sandbox(SandboxSettings()) as sandbox:
            zygote = await zygote_of(Scripts(sandbox, ZygoteKey(workspace="w")), before)
            threads = zygote.num_threads()
            links = descriptors(zygote.pid)
    finally:
        os.close(inherited)
    assert threads == 1
    assert sorted(link.partition(":")[0] for link in links if link != "/dev/null" and "pidfd" not in link) == [
        "pid",  # its own pid namespace, to come back to
        "socket",  # the control socket
    ]
    assert links.count("/dev/null") == 3


@as_root
async def test_a_zygote_knows_nothing_of_the_workers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_DATABASE_URL", "postgresql://worker:secret@db")
    before = children_of(os.getpid())
    async with Sandbox(SandboxSettings()) as sandbox:
        zygote = await zygote_of(Scripts(sandbox, ZygoteKey(workspace="w")), before)
        launcher = zygote.parents()[0]
        assert (zygote.environ(), launcher.environ()) == ({}, {})


async def test_random_numbers_of_every_kind_differ_between_children(either: Scripts) -> None:
    code = (
        "import os, random, uuid, tempfile\ndef main(): return [random.random(), str(uuid.uuid4()), tempfile.mktemp()]"
    )
    drawn = await asyncio.gather(*(either.result(code) for _ in range(5)))
    for kind in zip(*drawn, strict=True):
        assert len(set(kind)) == 5


async def test_the_environment_is_there_before_the_first_line_of_the_script(either: Scripts) -> None:
    code = "import os, time\nFIRST = os.environ['GREETING'], time.tzname[0]\ndef main(): return FIRST"
    assert await either.result(code, env={"GREETING": "hi", "TZ": "Asia/Tokyo"}) == ["hi", "JST"]
    assert await either.result('echo "$GREETING"', language="bash", env={"GREETING": "hi"}) == "hi"


async def test_each_job_has_a_session_of_its_own(either: Scripts) -> None:
    code = "import os\ndef main(): return [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()]"
    assert await either.result(code) == [True, True]
    assert await either.result("cat /dev/tty 2>/dev/null || echo none", language="bash") == "none"


async def test_a_job_has_no_descriptor_but_null_output_and_its_own_socket(either: Scripts) -> None:
    code = """
import os
def main():
    found = []
    for fd in range(1024):
        try: os.fstat(fd)
        except OSError: continue
        found.append(fd)
    return found
"""
    assert await either.result(code) == [0, 1, 2, 3]
    # The fourth is what lists them.
    assert await either.result("ls /proc/self/fd | tr '\\n' ' '", language="bash") == "0 1 2 3 "


async def test_modules_of_one_job_are_not_there_for_the_next(either: Scripts) -> None:
    change = "import json, os\ndef main():\n    json.touched = os.touched = True\n    return os.getpid()"
    look = "import json, os\ndef main(): return [hasattr(json, 'touched'), hasattr(os, 'touched')]"
    await either.result(change)
    assert await either.result(look) == [False, False]


def test_what_a_zygote_imports_starts_no_thread() -> None:
    """Fork copies one thread only: a lock that another held would stay locked in every child."""
    code = f"import threading\nfor name in {PRELOADED!r}: __import__(name)\nprint(threading.active_count())"
    python = ZygoteKey(workspace="w").interpreter
    done = subprocess.run([python, "-I", "-S", "-c", code], check=True, capture_output=True, timeout=60)
    assert done.stdout.strip() == b"1"
