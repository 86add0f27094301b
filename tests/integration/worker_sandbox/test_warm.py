"""Warm scripts: one process for job after job, of which nothing but the interpreter's memory remembers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import psutil
import pytest

from tests.integration.worker_sandbox.harness import Run, Scripts, processes_with, until
from tidemill.worker.sandbox.execution import Ending, Limits
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, ZygoteKey

COUNT = "import os\ncount = 0\ndef main():\n    global count\n    count += 1\n    return count\n"


@pytest.fixture
async def alone() -> AsyncIterator[Scripts]:
    """Scripts in a sandbox that only one test uses."""
    async with Sandbox(SandboxSettings()) as sandbox:
        yield WarmScripts(sandbox, ZygoteKey(workspace="test"))


class WarmScripts(Scripts):
    """Starts the next script only when the process of the one before has cleared up, however slow the machine."""

    async def run(self, code: str, args: dict[str, Any] | None = None, **options: Any) -> tuple[Ending, Run]:
        await self.sandbox.warm.settle()
        return await super().run(code, args, **options)


@pytest.fixture
def scripts(sandbox: Sandbox) -> Scripts:
    return WarmScripts(sandbox, ZygoteKey(workspace="test"))


async def kept(scripts: Scripts, code: str) -> bool:
    """Run it twice under a key of its own and return whether the second job had the first one's process."""
    for _ in range(2):
        _, run = await scripts.run("print('loading')\n" + code, warm=code)
    return "loading" not in run.log


async def test_the_second_job_finds_the_module_globals_of_the_first(scripts: Scripts) -> None:
    assert [await scripts.result(COUNT, warm="globals") for _ in range(3)] == [1, 2, 3]


async def test_a_script_is_loaded_once_and_gets_each_jobs_arguments_and_environment(scripts: Scripts) -> None:
    code = """
import os
print("loading")
def main(x): print("x is", x); return os.environ.get("FIRST"), os.environ.get("SECOND"), os.environ["WM_JOB_ID"]
"""
    first, run = await scripts.run(code, {"x": 1}, env={"FIRST": "1", "WM_JOB_ID": "a"}, warm="loaded once")
    assert run.log == "loading\nx is 1\n"
    second, run = await scripts.run(code, {"x": 2}, env={"SECOND": "2", "WM_JOB_ID": "b"}, warm="loaded once")
    assert run.log == "x is 2\n"
    assert json.loads(bytes(first.result)) == ["1", None, "a"]
    assert json.loads(bytes(second.result)) == [None, "2", "b"]


LEFT = {
    "files": (
        "for p in ('/tmp/left', '/job/left', '/dev/shm/left'): open(p, 'w').write('x')\n"
        "    os.makedirs('/tmp/deep/er'); os.chmod('/tmp/deep/er', 0); os.symlink('/etc', '/tmp/link')",
        "sorted(os.listdir('/tmp') + os.listdir('/job') + os.listdir('/dev/shm'))",
        ["main.py"],
    ),
    "environment": (
        "os.environ['LEFT'] = '1'; ctypes.CDLL(None).setenv(b'DEEPER', b'1', 1)",
        "subprocess.run('env', capture_output=True, text=True).stdout.count('LEFT=')"
        " + subprocess.run('env', capture_output=True, text=True).stdout.count('DEEPER=')",
        0,
    ),
    "working folder": ("os.chdir('/usr')", "os.getcwd()", "/job"),
    "umask": ("os.umask(0o077)", "os.umask(0o022)", 0o022),
    "processes": (
        "subprocess.Popen(['/bin/sleep', '97']); subprocess.Popen('(setsid sleep 98 &) &', shell=True).wait()",
        "sum(open(f'/proc/{p}/cmdline').read().startswith(('/bin/sleep', 'sleep'))"
        " for p in os.listdir('/proc') if p.isdigit())",
        0,
    ),
    "signal handlers": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, lambda *_: None)"
        "; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); signal.setitimer(signal.ITIMER_REAL, 60)",
        "[signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,"
        " signal.getsignal(signal.SIGINT) == signal.default_int_handler,"
        " len(signal.pthread_sigmask(signal.SIG_BLOCK, [])), signal.getitimer(signal.ITIMER_REAL)[0]]",
        [True, True, 0, 0.0],
    ),
    "streams": (
        "sys.stdout.reconfigure(line_buffering=False, encoding='latin-1')"
        "; sys.stdout = io.StringIO(); sys.stdin = None",
        "[type(sys.stdout).__name__, sys.stdout.encoding, sys.stdout.line_buffering, sys.stdin is None]",
        ["TextIOWrapper", "utf-8", True, False],
    ),
    "locale": ("locale.setlocale(locale.LC_ALL, 'C')", "locale.setlocale(locale.LC_ALL)", None),
    "context": ("decimal.getcontext().prec = 3", "decimal.getcontext().prec", 28),
    "limits": (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (9, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))",
        "resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 9",
        True,
    ),
    "recursion": ("sys.setrecursionlimit(77)", "sys.getrecursionlimit()", 1000),
}
IMPORTS = "import ctypes, decimal, io, locale, os, resource, signal, subprocess, sys\n"


@pytest.mark.parametrize("what", LEFT)
async def test_nothing_else_outlives_a_job(scripts: Scripts, what: str) -> None:
    leave, look, expected = LEFT[what]
    code = f"""{IMPORTS}
count = 0
def main(leave):
    global count
    count += 1
    if not leave: return count, {look}
    found = {look} if {expected!r} is None else {expected!r}
    {leave}
    return count, found
"""
    count, found = await scripts.result(code, {"leave": True}, warm=f"left {what}")
    assert count == 1
    again, run = await scripts.run(code, {"leave": False}, warm=f"left {what}")
    assert json.loads(bytes(again.result)) == [2, found], run.log


SPENT = {
    "a thread": "import threading as t\ndef main(): t.Thread(target=t.Event().wait, daemon=True).start()",
    "an open file": "held = []\ndef main(): held.append(open('/etc/passwd'))",
    "a connection": "import socket\nheld = []\ndef main(): held.append(socket.socketpair())",
    "closed output": "import os\ndef main(): os.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
    "an exit handler": "import atexit\ndef main(): atexit.register(print, 'bye')",
    "lowered limits": "import resource\ndef main(): resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "a lower priority": "import os\ndef main(): os.nice(1)",
    "shared memory": "import ctypes\ndef main(): assert ctypes.CDLL(None).shmget(1, 4096, 0o1600) >= 0",
    "files of its loading": "open('/tmp/model', 'w').write('x')\ndef main(): return open('/tmp/model').read()",
    "processes of its loading": "import subprocess\nat = subprocess.Popen(['sleep', '96'])\ndef main(): return 1",
    "a failed loading": "raise ValueError('no')",
    "an exit": "import os\ndef main(): os._exit(3)",
    "a signal": "import os\ndef main(): os.kill(os.getpid(), 11)",
}


@pytest.mark.parametrize("what", SPENT)
async def test_a_process_that_cannot_be_as_before_is_not_used_again(scripts: Scripts, what: str) -> None:
    assert not await kept(scripts, SPENT[what])


GOOD = {
    "an exception": "def main(): raise ValueError('no')",
    "exit()": "def main(): raise SystemExit(3)",
    "a temporary folder": "import tempfile\ndef main():\n    with tempfile.TemporaryDirectory() as f: return len(f)",
    "threads that have ended": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def main():\n    with ThreadPoolExecutor(4) as pool: return list(pool.map(abs, range(8)))"
    ),
    "an event loop": "import asyncio\nasync def main(): return await asyncio.to_thread(abs, -1)",
    "a process": "import subprocess\ndef main(): return subprocess.run('echo x', shell=True).returncode",
    "a file of its loading": "at = open('/etc/passwd')\ndef main(): at.seek(0); return len(at.read()) > 0",
    "a file held by an exception": "def main():\n    f = open('/etc/passwd'); raise ValueError(f.name)",
}


@pytest.mark.parametrize("what", GOOD)
async def test_a_process_is_kept_after(scripts: Scripts, what: str) -> None:
    assert await kept(scripts, GOOD[what])


async def test_the_next_log_says_why_a_process_was_not_kept(scripts: Scripts) -> None:
    code = "held = []\ndef main(): held.append(open('/etc/passwd'))"
    await scripts.result(code, warm="says why")
    _, run = await scripts.run(code, warm="says why")
    assert run.log.startswith("[warm: the process of an earlier job was not kept: it left files or connections open")


async def test_what_is_written_after_the_answer_reaches_no_other_job(scripts: Scripts) -> None:
    code = """
import os, subprocess
def main(first):
    if first: subprocess.Popen(["/bin/bash", "-c", "while :; do echo noise; done"])
    else: print("mine")
    return os.getpid()
"""
    await scripts.result(code, {"first": True}, warm="noise")
    ending, run = await scripts.run(code, {"first": False}, warm="noise")
    assert ending.success
    assert run.log == "mine\n"


async def test_a_text_that_was_begun_is_heard_before_the_answer(scripts: Scripts) -> None:
    code = "import sys\nout = sys.stdout\ndef main(): sys.stdout = None; out.write('no newline')"
    for _ in range(2):
        _, run = await scripts.run(code, warm="begun")
        assert run.log == "no newline"


@pytest.mark.parametrize("other", ["version", "workspace", "network", "limits"])
async def test_another_ones_job_never_gets_the_process(scripts: Scripts, other: str) -> None:
    assert await scripts.result(COUNT, warm=f"mine {other}") == 1
    match other:
        case "version":
            found = await scripts.result(COUNT, warm="theirs")
        case "workspace":
            found = await scripts.result(COUNT, warm=f"mine {other}", key=ZygoteKey(workspace="theirs"))
        case "network":
            found = await scripts.result(COUNT, warm=f"mine {other}", key=ZygoteKey(workspace="test", network="none"))
        case _:
            found = await scripts.result(COUNT, warm=f"mine {other}", limits=Limits(open_files=99))
    assert found == 1
    assert await scripts.result(COUNT, warm=f"mine {other}") == 2


async def test_a_job_that_is_not_warm_never_gets_the_process(scripts: Scripts) -> None:
    assert [await scripts.result(COUNT, warm=warm) for warm in ("w", None, "w")] == [1, 1, 2]


async def test_jobs_at_the_same_time_have_processes_of_their_own(scripts: Scripts) -> None:
    code = COUNT.replace("count += 1", "count += 1\n    open('/dev/shm/here', 'x')\n    import time; time.sleep(0.3)")
    both = [scripts.start(code, warm="at once") for _ in range(2)]
    assert [json.loads(bytes((await run.ending()).result)) for run in both] == [1, 1]


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_a_warm_job_can_be_ended_and_its_process_with_it(scripts: Scripts, how: str) -> None:
    code = """
import os, subprocess, time
count = 0
def main(wait):
    global count
    count += 1
    if wait:
        subprocess.Popen(["/bin/sleep", "95.5"])
        print("waiting", flush=True); time.sleep(95)
    return count
"""
    assert await scripts.result(code, {"wait": False}, warm=how) == 1
    limits = Limits(wall_time=timedelta(seconds=1)) if how == "timeout" else Limits()
    run = scripts.start(code, {"wait": True}, warm=how, limits=limits)
    await run.says("waiting")
    if how == "cancel":
        run.cancel.set()
    assert (await run.ending()).reason == {"cancel": "canceled", "timeout": "timeout"}[how]
    await until(lambda: not processes_with("95.5"))
    assert await scripts.result(code, {"wait": False}, warm=how) == 1


async def test_a_warm_process_that_is_killed_while_it_waits_is_replaced(alone: Scripts) -> None:
    mark = "left-for-the-test-of-a-kill"
    code = f"{COUNT}\nimport ctypes\nctypes.CDLL(None).prctl(15, b'{mark[:15]}', 0, 0, 0)\n"
    assert await alone.result(code, warm="killed") == 1
    await until(lambda: len(alone.sandbox.warm) == 1)
    (process,) = [each for each in psutil.process_iter(["name"]) if each.info["name"] == mark[:15]]
    process.kill()
    await until(lambda: len(alone.sandbox.warm) == 0)
    assert await alone.result(code, warm="killed") == 1


async def test_a_process_that_holds_much_memory_is_not_kept(scripts: Scripts) -> None:
    code = COUNT.replace("count += 1", "count += 1\n    global held\n    held = bytearray(160 << 20)")
    limits = Limits(memory_bytes=256 << 20)
    assert [await scripts.result(code, warm="memory", limits=limits) for _ in range(2)] == [1, 1]


async def test_the_longest_unused_ends_when_there_are_too_many() -> None:
    async with Sandbox(SandboxSettings(warm_children=2)) as sandbox:
        scripts = WarmScripts(sandbox, ZygoteKey(workspace="test"))
        for key in ("a", "b", "a", "c"):
            await scripts.result(COUNT, warm=key)
        await until(lambda: len(sandbox.warm) == 2)
        assert [await scripts.result(COUNT, warm=key) for key in ("c", "a", "b")] == [2, 3, 1]


async def test_processes_that_wait_are_bounded_in_memory() -> None:
    async with Sandbox(SandboxSettings(warm_memory_bytes=1)) as sandbox:
        scripts = WarmScripts(sandbox, ZygoteKey(workspace="test"))
        assert [await scripts.result(COUNT, warm="a") for _ in range(2)] == [1, 1]


async def test_a_process_that_is_not_needed_ends() -> None:
    async with Sandbox(SandboxSettings(warm_idle=timedelta(milliseconds=50))) as sandbox:
        scripts = WarmScripts(sandbox, ZygoteKey(workspace="test"))
        await scripts.result(COUNT, warm="a")
        await sandbox.warm.settle()
        await until(lambda: len(sandbox.warm) == 0)
        assert await scripts.result(COUNT, warm="a") == 1


async def test_a_worker_may_keep_none_and_says_so() -> None:
    async with Sandbox(SandboxSettings(warm_children=0)) as sandbox:
        _, run = await Scripts(sandbox, ZygoteKey(workspace="test")).run(COUNT, warm="a")
        assert run.log == "[not warm: this worker keeps no processes (TIDEMILL_WARM_CHILDREN is 0)]\n"


async def test_a_process_is_kept_without_a_proc_of_its_own_as_well() -> None:
    async with Sandbox(SandboxSettings(isolation="pod")) as sandbox:
        scripts = WarmScripts(sandbox, ZygoteKey(workspace="test"))
        code = "import subprocess\ndef main(): subprocess.Popen('(setsid sleep 95.25 &) &', shell=True).wait()"
        assert [await scripts.result(COUNT, warm="a") for _ in range(2)] == [1, 2]
        assert await kept(scripts, code)
        await sandbox.warm.settle()
        assert not processes_with("95.25")


async def test_without_namespaces_a_job_has_a_process_of_its_own_and_its_log_says_why(fallback: Scripts) -> None:
    for _ in range(2):
        ending, run = await fallback.run(COUNT, warm="reduced")
        assert json.loads(bytes(ending.result)) == 1
        assert run.log.startswith("[not warm: in the tier reduced")


async def test_a_bash_script_runs_as_usual(scripts: Scripts) -> None:
    ending, run = await scripts.run("echo 5", language="bash", warm="bash")
    assert (json.loads(bytes(ending.result)), run.log) == ("5", "5\n")


SAME = {
    "a value": "def main(): return {'a': [1, None, 'ä\\0']}",
    "labels": "def main(): return {'wm_labels': ['x']}",
    "an exception": "def main():\n    print('before')\n    1 / 0",
    "exit": "import sys\ndef main(): sys.exit('that was it')",
    "no function": "x = 1",
    "missing arguments": "def main(a): return a",
    "a generator": "def main():\n    yield 'a'\n    yield {'b': 1}",
    "a coroutine": "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    return 1",
    "a marked line": "def main(): print('WM_STREAM: a')",
    "a warning": "import warnings\ndef main(): warnings.warn('careful')",
    "a thread's output": "import threading\ndef main(): threading.Thread(target=print, args=['late']).start()",
    "an exit handler": "import atexit\ndef main(): atexit.register(print, 'bye')",
    "an unclosed pool": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def main(): ThreadPoolExecutor(1).submit(print, 'from the pool')"
    ),
    "a child's output": "import subprocess\ndef main(): subprocess.run(['echo', 'x'])",
    "a killed child": "import os\ndef main(): os.kill(os.getpid(), 9)",
    "a deep result": "def main():\n    x = []\n    for _ in range(100000): x = [x]\n    return x",
    "settings of its loading": (
        "import os\nos.environ['MINE'] = '1'; os.chdir('/usr')\ndef main(): return os.environ['MINE'], os.getcwd()"
    ),
    "a handler of its loading": (
        "import signal, os\nsignal.signal(signal.SIGTERM, lambda *_: print('caught'))\n"
        "def main(): os.kill(os.getpid(), signal.SIGTERM)"
    ),
    "a stream of its loading": "import sys\nsys.stdout = sys.stderr\ndef main(): print('out', end='')",
    "its own source": "import inspect\ndef main(): return inspect.getsource(main), open(__file__).read() != ''",
    "a fork": "import os\ndef main():\n    if os.fork() == 0: return 'child'\n    os.wait()\n    return 'parent'",
}


@pytest.mark.parametrize("what", SAME)
async def test_a_warm_job_ends_as_one_that_is_not(scripts: Scripts, what: str) -> None:
    wanted, run = await scripts.run(SAME[what])
    expected = (wanted.success, json.loads(bytes(wanted.result)), wanted.reason, run.log, run.stream)
    for _ in range(3):
        ending, run = await scripts.run(SAME[what], warm=f"same {what}")
        note, _, rest = run.log.rpartition("was not kept: ")
        log = rest.partition("\n")[2] if note else run.log
        assert (ending.success, json.loads(bytes(ending.result)), ending.reason, log, run.stream) == expected


async def test_a_limit_that_an_earlier_job_met_is_not_blamed_on_the_next(scripts: Scripts) -> None:
    if "memory" in scripts.sandbox.groups.missing:
        pytest.skip("there are no control groups for memory here")
    code = """
import subprocess, sys, time
def main(what):
    if what == "a lot":
        eat = "import time; held = bytearray(100 << 20); time.sleep(99)"
        eaters = [subprocess.Popen([sys.executable, "-c", eat]) for _ in range(3)]
        while -9 not in [each.poll() for each in eaters]: time.sleep(0.01)
    if what != "nothing":
        raise ValueError(what)
"""
    limits = Limits(memory_bytes=160 << 20)
    errors = [
        await scripts.error(code, {"what": what}, warm="met a limit", limits=limits)
        for what in ("little", "a lot", "little")
    ]
    assert [error["reason"] for error in errors] == ["raised", "memory", "raised"]


OURS = """
import sys
def ours():
    frame = sys._getframe()
    while 'warmth' not in frame.f_locals or 'frames' not in frame.f_globals: frame = frame.f_back
    return frame.f_globals['frames']
"""
POUR = (
    OURS
    + """
def main(after):
    frames, sent = ours(), []
    send = frames.send
    def pour(sock, payload):
        send(sock, payload)
        sent.append(payload)
        if len(sent) == after:
            sock.sendall((1 << 31).to_bytes(4, 'big'))
            while True: sock.sendall(bytes(1 << 20))
    frames.send = pour
    return 'poured'
"""
)
LIE = (
    OURS
    + """
def main(claimed):
    frames = ours()
    send = frames.send
    def lie(sock, payload):
        if b'resident_kb' in payload: payload = b'{"clean": true, "resident_kb": %d}' % claimed
        send(sock, payload)
    frames.send = lie
    return 'lied'
"""
)


async def test_a_process_that_says_too_much_while_it_clears_up_is_spent(alone: Scripts) -> None:
    assert await alone.result(POUR, {"after": 1}, warm="pours") == "poured"
    _, run = await alone.run(POUR, {"after": 2}, warm="pours")
    assert "it said more than it had been asked" in run.log


async def test_a_process_that_says_too_much_while_it_waits_is_ended(alone: Scripts) -> None:
    assert await alone.result(POUR, {"after": 2}, warm="pours") == "poured"
    await alone.sandbox.warm.settle()
    await until(lambda: not len(alone.sandbox.warm))


@pytest.mark.parametrize(("claimed", "allowed", "kept"), [(-(10**9), 1, 0), (10**12, 1 << 40, 2)])
async def test_a_process_counts_with_no_less_than_nothing_and_no_more_than_it_can_have(
    claimed: int, allowed: int, kept: int
) -> None:
    async with Sandbox(SandboxSettings(warm_memory_bytes=allowed)) as sandbox:
        scripts = WarmScripts(sandbox, ZygoteKey(workspace="test"))
        assert await scripts.result(LIE, {"claimed": claimed}, warm="lies") == "lied"
        assert await scripts.result(COUNT, warm="honest") == 1
        await sandbox.warm.settle()
        assert len(sandbox.warm) == kept
