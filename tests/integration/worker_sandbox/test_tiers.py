"""Which tier of isolation is in force, and what each gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.worker_sandbox.harness import Scripts
from tests.integration.worker_sandbox.test_zygotes import ONE_JOB
from tidemill.worker.sandbox import tiers
from tidemill.worker.sandbox.inside import landlock
from tidemill.worker.sandbox.pool import Sandbox, SandboxSettings, SandboxUnavailable, ZygoteKey


async def test_the_strictest_tier_is_found_and_named_with_all_that_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        async with Sandbox(SandboxSettings(uplinks=())) as sandbox:
            assert sandbox.isolation.startswith("full(user pid mount ipc uts proc root no-new-privs rlimits seccomp")
            assert "missing: own network" in sandbox.isolation
    (said,) = (each for each in caplog.records if each.message == "isolation is in force")
    assert "own network: install passt" in vars(said)["remedies"]
    assert vars(said)["tier"] == "full"


def test_every_layer_that_may_be_missing_has_its_remedy() -> None:
    for tier in tiers.STRICTEST_FIRST:
        for layer in (*tiers.LOST[tier], *tiers.REMEDIES):
            assert tiers.remedy(tier, layer)


async def test_a_pod_hides_what_a_container_does_not_let_it_mount(scripts: Scripts) -> None:
    async with Sandbox(SandboxSettings(isolation="pod")) as sandbox:
        assert sandbox.isolation.startswith("pod(")
        assert "missing: own /proc" in sandbox.isolation
        code = """
import os
def main():
    opened = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        for file in ('environ', 'mem', 'maps'):
            try: text = open(f'/proc/{pid}/{file}', 'rb').read(1)
            except OSError: continue
            if text: opened.append([pid, file])
    own = [str(int(os.readlink('/proc/self'))), str(int(open('/proc/self/stat').read().split()[3]))]
    return [[each for each in opened if each[0] not in own], os.path.exists('/etc/shadow'), os.getpid()]
"""
        assert await Scripts(sandbox, ZygoteKey(workspace="w")).result(code) == [[], False, 2]
        assert await Scripts(sandbox, ZygoteKey(workspace="w")).result("cat < <(echo x)", language="bash") == "x"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mask its /proc")
def test_a_masked_proc_makes_it_a_pod_by_itself() -> None:
    script = 'mount -t tmpfs none /proc/fs && exec "$@"'
    job = [sys.executable, "-c", ONE_JOB, "auto", os.path.realpath(sys.executable), "/tmp", "def main(): return 1"]
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *job]
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)[2].startswith("pod(")


@pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
async def test_reduced_jobs_see_and_signal_nothing_that_is_not_theirs(fallback: Scripts, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    code = """
import os, signal
def main(paths, pids):
    found = []
    for path in paths:
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT):
            try: os.close(os.open(path, flags))
            except OSError: continue
            found.append(path)
    for pid in pids:
        try: os.kill(pid, 0)
        except OSError: continue
        found.append(pid)
    open('own', 'w').write('x'); open(os.environ['TMPDIR'] + '/own', 'w').write('x')
    return [found, os.listdir('.')]
"""
    other = fallback.start(
        "import os, time\ndef main():\n    print(os.getcwd(), os.getpid(), flush=True); time.sleep(99)"
    )
    await other.says("\n")
    folder, pid = other.log.split()
    paths = [str(tmp_path / "secret"), __file__, "/etc/shadow", "/tmp", "/root", f"{folder}/main.py", f"{folder}/new"]
    paths += [f"/proc/{pid}/environ", f"/proc/{os.getpid()}/environ", f"/proc/{pid}/mem"]
    pids = [int(pid)] if landlock.version() >= 6 else []
    found, own = await fallback.result(code, {"paths": paths, "pids": pids})
    other.cancel.set()
    await other.ending()
    assert found == []
    assert sorted(own) == ["main.py", "own"]


async def test_a_tier_that_cannot_be_had_is_refused_when_it_was_asked_for() -> None:
    with pytest.raises(SandboxUnavailable, match="network policy"):
        async with Sandbox(SandboxSettings(isolation="reduced", network="none")):
            pass
