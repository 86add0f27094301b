"""Control groups: a whole job is bounded, not each of its processes."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.worker_sandbox.harness import Scripts, processes_with, until
from tidemill.worker.sandbox.execution import Limits
from tidemill.worker.sandbox.groups import Group, Groups, Hierarchy, hierarchies
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, ZygoteKey

MIB = 1 << 20


@pytest.fixture
def controllers(sandbox: Sandbox) -> str:
    if sandbox.groups.layer is None:
        pytest.skip("no control groups here")
    return sandbox.groups.layer


@pytest.fixture
def memory(controllers: str) -> None:
    if "memory" not in controllers:
        pytest.skip("no control group bounds memory here")


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("language", ["python3", "bash"])
async def test_a16_memory_of_all_processes_together_is_bounded(either: Scripts, language: str) -> None:
    hungry = "x = b'1' * (60 << 20); import time; time.sleep(60)"
    code = {
        "python3": f"""
import os, subprocess, sys
def main():
    family = [subprocess.Popen([sys.executable, '-c', {hungry!r}]) for _ in range(4)]
    if os.wait()[1]: raise RuntimeError('a child was killed')
""",
        "bash": f'for i in 1 2 3 4; do {either.key.interpreter} -c "{hungry}" & done; wait -n',
    }[language]
    error = await either.error(code, language=language, limits=Limits(memory_bytes=150 * MIB))
    assert error["reason"] == "memory"
    assert error["message"].startswith("it needed more than 150 MiB of memory")


@pytest.mark.usefixtures("memory")
async def test_a16_files_in_memory_count_as_memory(scripts: Scripts) -> None:
    code = "def main():\n    with open('/tmp/x', 'wb') as f:\n        while True: f.write(b'1' * (1 << 20))"
    error = await scripts.error(code, limits=Limits(memory_bytes=100 * MIB, tmp_bytes=400 * MIB))
    assert error["reason"] == "memory"


@pytest.mark.usefixtures("memory")
async def test_the_peak_is_that_of_all_processes_together(scripts: Scripts) -> None:
    code = """
import subprocess, sys
def main():
    hungry = "x = b'1' * (40 << 20); print(1, flush=True); input()"
    pipe = subprocess.PIPE
    family = [subprocess.Popen([sys.executable, '-c', hungry], stdin=pipe, stdout=pipe) for _ in range(3)]
    for child in family: child.stdout.readline()
"""
    ending, _ = await scripts.run(code)
    assert ending.success
    assert ending.memory_peak_kb is not None
    assert ending.memory_peak_kb > 110 << 10


async def test_a16_a_fork_bomb_is_named_and_leaves_others_alone(either: Scripts, controllers: str) -> None:
    if "pids" not in controllers:
        pytest.skip("no control group bounds processes here")
    code = "import os, time\ndef main():\n    while True:\n        if os.fork() == 0: time.sleep(100)"
    bomb = either.start(code, limits=Limits(processes=30))
    assert await either.result("import os\ndef main(): return os.system('true')") == 0
    ending = await bomb.ending()
    assert (ending.success, ending.reason) == (False, "processes")


async def test_a16_a_fork_bomb_in_bash_ends_with_its_time_at_the_latest(either: Scripts) -> None:
    marker = f"bomb-{uuid4().hex}"
    code = f"{marker}() {{ {marker} | {marker} & }}; {marker}; exec -a {marker} sleep 1000"
    bomb = either.start(code, language="bash", limits=Limits(processes=30, wall_time=timedelta(seconds=2)))
    assert await either.result("echo well", language="bash") == "well"
    assert (await bomb.ending()).reason == "timeout"
    await until(lambda: not processes_with(marker))


async def test_processor_time_is_bounded(either: Scripts, controllers: str) -> None:
    if "cpu" not in controllers:
        pytest.skip("no control group bounds processor time here")
    code = """
import time
def main():
    began = time.monotonic()
    while time.process_time() < 0.3: pass
    return time.monotonic() - began
"""
    assert await either.result(code, limits=Limits(cpu_percent=20)) > 1


async def test_groups_go_with_their_sandbox(controllers: str) -> None:
    assert controllers
    async with Sandbox(SandboxSettings()) as sandbox:
        scripts = Scripts(sandbox, ZygoteKey(workspace="w"))
        folders = sandbox.groups.folders
        for _ in range(5):
            assert await scripts.result("def main(): return 1") == 1
        # Those of ended jobs are gone, those of idle children are there.
        await until(lambda: all(len(list(folder.glob("job-*"))) <= 3 for folder in folders))
        assert all(folder.exists() for folder in folders)
    assert not any(folder.exists() for folder in folders)


OWNER = """
import asyncio, os, subprocess, sys, time
from tidemill.worker.sandbox.execution import Room
from tidemill.worker.sandbox.groups import Groups
async def main():
    groups = Groups()
    await groups.open()
    left = subprocess.Popen(["sleep", "1000"], stdout=subprocess.DEVNULL)
    for door in groups.make(Room()).doors():
        os.write(door, str(left.pid).encode())
    print(left.pid, *groups.folders, flush=True)
    time.sleep(1000)
asyncio.run(main())
"""


async def test_groups_of_a_killed_worker_are_removed_with_all_that_lives_in_them(controllers: str) -> None:
    assert controllers
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    async with asyncio.timeout(20):
        pid, *folders = (await owner.stdout.readline()).decode().split()
    first = Groups()
    await first.open()
    await first.close()
    await until(lambda: all(Path(folder).exists() for folder in folders))  # its owner lives
    owner.kill()
    await owner.wait()
    second = Groups()
    await second.open()
    await second.close()
    await until(lambda: not any(Path(folder).exists() for folder in folders))
    await until(lambda: not Path("/proc", pid).exists())


def test_hierarchies_are_found_where_they_are_mounted() -> None:
    mixed = """
30 25 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
31 25 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:10 - cgroup cgroup rw,cpu,cpuacct
32 25 0:28 /docker/abc /sys/fs/cgroup/memory ro shared:11 - cgroup cgroup rw,memory
33 25 0:29 / /proc rw shared:12 - proc proc rw
""".strip()
    own = "5:memory:/docker/abc\n4:cpu,cpuacct:/user.slice\n0::/system.slice/x.service\n"
    assert hierarchies(mixed, own) == {
        "": Hierarchy(2, Path("/sys/fs/cgroup/unified/system.slice/x.service")),
        "cpu": Hierarchy(1, Path("/sys/fs/cgroup/cpu,cpuacct/user.slice")),
        "memory": Hierarchy(1, Path("/sys/fs/cgroup/memory")),
    }
    assert hierarchies("33 25 0:29 / /proc rw shared:12 - proc proc rw", "0::/") == {}


def test_workers_that_start_at_the_same_time_leave_each_other_their_groups(tmp_path: Path) -> None:
    def start(number: int) -> bool:
        groups = Groups()
        parent = groups._claim(tmp_path, f"tidemill-{number}")
        stood = parent.is_dir()
        groups._close()
        return stood

    with ThreadPoolExecutor(4) as workers:
        assert all(workers.map(start, range(400)))


def test_the_doors_of_a_group_are_all_opened_or_none(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    group = Group({"memory": Hierarchy(1, tmp_path), "pids": Hierarchy(1, tmp_path / "gone")})
    before = sorted(each.name for each in Path("/proc/self/fd").iterdir())
    with pytest.raises(FileNotFoundError):
        group.doors()
    assert sorted(each.name for each in Path("/proc/self/fd").iterdir()) == before
