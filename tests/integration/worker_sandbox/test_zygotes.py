"""The sandbox's own life: zygotes that die, owners that die, hosts that refuse, users that are not root."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import tidemill.shared
import tidemill.worker
from tests.integration.worker_sandbox.harness import Scripts, children_of, plainly, until
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, SandboxUnavailable, ZygoteKey
from tidemill.worker.sandbox.settings import JOB_UID
from tidemill.worker.sandbox.zygote import BOOTSTRAP, FOLDER, Plan, Spawn

# A program that runs one job and prints its ending; its arguments: isolation, interpreter, scratch folder, code.
ONE_JOB = """
import asyncio, json, os, sys
from datetime import timedelta
import msgspec
from tidemill.worker.sandbox.execution import Execution, Limits
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, ZygoteKey

async def main(isolation, interpreter, scratch, code):
    settings = SandboxSettings(isolation=isolation, interpreter=interpreter, scratch=scratch)
    async with Sandbox(settings) as sandbox:
        ending = await sandbox.run(
            ZygoteKey(workspace="w", interpreter=interpreter),
            Execution(job_id="j", language="python3", code=code),
            on_log=lambda text: print(text, end="", flush=True),
            on_stream=print,
            cancel=asyncio.Event(),
        )
    print(json.dumps([ending.success, json.loads(bytes(ending.result)), sandbox.isolation]))

asyncio.run(main(*sys.argv[1:]))
"""
SLEEPER = "import os, time\ndef main():\n    if os.fork() == 0: os.setsid()\n    print('started')\n    time.sleep(1000)"


def alive(pids: set[int]) -> set[int]:
    """Return those that still exist and are no zombies waiting for a parent."""
    found = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.add(pid)
        except OSError:
            continue
    return found


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Give a folder that an ordinary user may call his own, wherever pytest keeps its folders."""
    folder = Path(tempfile.mkdtemp(prefix="tidemill-test-"))
    if os.geteuid() == 0:
        os.chown(folder, JOB_UID + 1, JOB_UID + 1)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("isolation", ["full", "reduced"])
async def test_killing_the_owner_ends_everything_that_it_started(
    isolation: str, public_interpreter: str, scratch: Path
) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ONE_JOB, isolation, public_interpreter, scratch, SLEEPER, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert owner.stdout is not None
        async with asyncio.timeout(20):
            assert await owner.stdout.readline() == b"started\n"
        family = children_of(owner.pid)
        assert len(family) >= 4  # zygote, idle children, the job and its fork
        owner.send_signal(signal.SIGKILL)
        await owner.wait()
        await until(lambda: not alive(family))
    finally:
        if owner.returncode is None:
            owner.kill()


@pytest.mark.parametrize("unread", [True, False], ids=["news-unread", "orders-unread"])
async def test_a_zygote_whose_owner_is_gone_leaves_nobody_behind(
    unread: bool, public_interpreter: str, scratch: Path
) -> None:
    for folder in (scratch, scratch / "job", scratch / "tmp"):
        folder.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, JOB_UID, JOB_UID)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote = await asyncio.create_subprocess_exec(
        public_interpreter, "-I", "-S", "-c", BOOTSTRAP, str(theirs.fileno()), FOLDER, pass_fds=[theirs.fileno()]
    )
    theirs.close()
    ours.send(msgspec.json.encode(Plan("reduced", "", JOB_UID, (), "host", None, ())))
    assert json.loads(await asyncio.to_thread(ours.recv, 65536))["ready"]
    ours.send(msgspec.json.encode(Spawn(1, 0, str(scratch))))
    await until(lambda: children_of(zygote.pid))
    family = children_of(zygote.pid) | {zygote.pid}
    if not unread:
        zygote.send_signal(signal.SIGSTOP)
        ours.recv(65536)
        ours.send(msgspec.json.encode(Spawn(2, 0, str(scratch))))
    ours.close()
    zygote.send_signal(signal.SIGCONT)
    async with asyncio.timeout(20):
        assert await zygote.wait() == 0
    assert not alive(family)


async def test_leaving_the_sandbox_ends_everything_and_removes_its_folder() -> None:
    before = children_of(os.getpid())
    async with Sandbox(SandboxSettings()) as sandbox:
        scripts = Scripts(sandbox, ZygoteKey(workspace="w"))
        run = scripts.start(SLEEPER)
        await run.says("started")
        started = children_of(os.getpid()) - before
        assert len(started) >= 4
    assert (await run.ending()).reason == "killed"
    assert not alive(started)


async def test_a_zygote_that_dies_is_started_again_and_its_jobs_end_as_killed(caplog: pytest.LogCaptureFixture) -> None:
    async with Sandbox(SandboxSettings()) as sandbox:
        scripts = Scripts(sandbox, ZygoteKey(workspace="w"))
        before = children_of(os.getpid())
        run = scripts.start(SLEEPER)
        await run.says("started")
        launcher = min(pid for pid in children_of(os.getpid()) if _bootstraps(pid) and pid not in before)
        os.kill(launcher, signal.SIGKILL)
        ending = await run.ending()
        assert (ending.success, ending.reason) == (False, "killed")
        assert await scripts.result("def main(): return 'back'") == "back"
    assert "a zygote died and is started again" in caplog.text


async def test_an_idle_child_that_dies_is_replaced(scripts: Scripts) -> None:
    await scripts.result("def main(): return 1")
    await asyncio.sleep(0.2)  # the stock is full again
    for pid in [pid for pid in children_of(os.getpid()) if _is_job(pid)]:
        os.kill(pid, signal.SIGKILL)
    results = await asyncio.gather(*(scripts.result("def main(): return 'alive'") for _ in range(6)))
    assert results == ["alive"] * 6


async def test_zygotes_beyond_the_limit_are_closed_the_longest_unused_first() -> None:
    others = _zygotes_of(os.getpid())
    async with Sandbox(SandboxSettings(max_zygotes=2, idle_children=1)) as sandbox:
        keys = [ZygoteKey(workspace=str(number)) for number in range(3)]
        scripts = Scripts(sandbox, keys[0])
        busy = scripts.start(SLEEPER, key=keys[0])
        await busy.says("started")
        for key in keys[1:]:
            assert await scripts.result("def main(): return 1", key=key) == 1
        await until(lambda: len(_zygotes_of(os.getpid()) - others) == 2)
        assert busy.task is not None
        assert not busy.task.done()
        busy.cancel.set()
        assert (await busy.ending()).reason == "canceled"


async def test_many_jobs_at_once_each_get_their_own_child(scripts: Scripts) -> None:
    results = await asyncio.gather(*(scripts.result("def main(n): return n", {"n": n}) for n in range(40)))
    assert results == list(range(40))


async def test_a_language_that_is_not_there_is_refused(scripts: Scripts) -> None:
    error = await scripts.error("10 PRINT 1", language="basic")
    assert error["reason"] == "refused"
    assert "basic" in error["message"]


async def test_an_interpreter_that_is_not_there_is_named() -> None:
    with pytest.raises(SandboxUnavailable, match="/nowhere/python"):
        async with Sandbox(SandboxSettings(interpreter="/nowhere/python")):
            pass


async def test_a_host_that_forbids_user_namespaces_is_told_the_layer_and_the_remedy(public_interpreter: str) -> None:
    # Inside a sandbox no further user namespace can be made: the very host that we need.
    async with Sandbox(SandboxSettings(interpreter=public_interpreter)) as sandbox:
        paths = tuple(_import_paths())
        key = ZygoteKey(workspace="w", interpreter=public_interpreter, environment=paths)
        code = f"""
import subprocess, sys
def main():
    env = {{"PYTHONPATH": ":".join(p for p in sys.path if p.startswith("/env"))}}
    command = [sys.executable, "-c", {ONE_JOB!r}, "full", sys.executable, "/tmp", ""]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    return done.stderr.strip().splitlines()[-1]
"""
        line = await Scripts(sandbox, key).result(code)
    assert "SandboxUnavailable: sandbox layer 'user namespace' is unavailable" in line
    assert "kernel.unprivileged_userns_clone=1" in line
    assert "TIDEMILL_ISOLATION=reduced" in line


@pytest.mark.parametrize("isolation", ["full", "reduced"])
def test_an_ordinary_user_has_the_same_sandbox(isolation: str, public_interpreter: str, scratch: Path) -> None:
    probe = "import os\ndef main(): return [os.getuid(), os.path.exists('/etc/shadow'), os.getpid()]"
    paths = os.pathsep.join(_import_paths())
    if plainly(
        [public_interpreter, "-c", "import msgspec, tidemill.worker"], JOB_UID + 1, env={"PYTHONPATH": paths}
    ).returncode:
        pytest.skip("an ordinary user cannot read this checkout and its libraries")
    command = [public_interpreter, "-c", ONE_JOB, isolation, public_interpreter, str(scratch), probe]
    done = plainly(command, JOB_UID + 1, env={"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr.decode()
    success, (uid, shadow, pid), mode = json.loads(done.stdout)
    assert success
    assert mode.startswith(isolation)
    if isolation == "full":
        assert (uid, shadow, pid) == (1000, False, 2)
    else:
        assert uid == (JOB_UID + 1 if os.geteuid() == 0 else os.geteuid())


async def test_the_fallback_runs_jobs_without_privileges_in_a_folder_of_their_own(fallback: Scripts) -> None:
    code = """
import os
def main():
    open('file', 'w').write('x')
    status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)
    return [os.getuid(), status['CapEff'], status['NoNewPrivs'], os.getcwd(), os.environ['HOME']]
"""
    uid, capabilities, no_new_privs, folder, home = await fallback.result(code)
    assert uid == (JOB_UID if os.geteuid() == 0 else os.geteuid())
    assert (capabilities, no_new_privs) == ("0" * 16, "1")
    await until(lambda: not Path(folder).exists() and not Path(home).exists())
    assert "missing: namespaces" in fallback.sandbox.isolation


async def test_the_fallback_runs_bash(fallback: Scripts) -> None:
    assert await fallback.result('x="$1"\necho "$x"', {"x": "hi"}, language="bash") == "hi"


def _import_paths() -> list[str]:
    """Return what PYTHONPATH needs to import the worker without this venv."""
    packages = (tidemill.worker.__path__[0], tidemill.shared.__path__[0])
    return [str(Path(msgspec.__file__).parent.parent), *(str(Path(each).parent.parent) for each in packages)]


def _bootstraps(pid: int) -> bool:
    try:
        return b"inside.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _is_job(pid: int) -> bool:
    """Tell whether this is pid 2 of a pid namespace within a pid namespace: a job, waiting or running."""
    try:
        numbers = Path(f"/proc/{pid}/status").read_text().split("NSpid:")[1].splitlines()[0].split()
    except (OSError, IndexError):
        return False
    return len(numbers) == 3 and numbers[-1] == "2"


def _zygotes_of(pid: int) -> set[int]:
    return {child for child in children_of(pid) if _bootstraps(child) and _parent_of(child) == pid}


def _parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has gone since
        return None


async def test_what_a_killed_worker_left_behind_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    no_longer, still = tmp_path / f"tidemill-sandbox-{2**22 + 1}-x", tmp_path / f"tidemill-sandbox-{os.getpid()}-x"
    no_longer.joinpath("root").mkdir(parents=True)
    still.mkdir()
    async with Sandbox(SandboxSettings()):
        assert not no_longer.exists()
        assert still.exists()
    assert names(tmp_path) == [still.name]


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]
