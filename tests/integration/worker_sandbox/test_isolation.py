"""What a job can reach, which is nothing of ours."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

import pytest

from tests.integration.worker_sandbox.harness import Scripts, children_of, processes_with


async def test_it_is_nobody_and_has_no_capabilities_or_groups(scripts: Scripts) -> None:
    code = "import os\ndef main(): return [os.getresuid(), os.getgroups(), open('/proc/self/status').read()]"
    uids, groups, status = await scripts.result(code)
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert 0 not in uids
    assert groups in ([], [1000])
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"


async def test_on_the_host_it_is_not_root_either(scripts: Scripts) -> None:
    run = scripts.start("import time\ndef main():\n    print('x'); time.sleep(1000)")
    await run.says("x")
    # Servers of other tests may be our children as well.
    ours = children_of(os.getpid()) & processes_with(str(Path("worker", "sandbox")))
    owners = {_uid(child) for child in ours} - {os.geteuid()}
    run.cancel.set()
    await run.ending()
    if os.geteuid() == 0:
        assert owners == {61184}
    else:
        assert owners == set()


async def test_nothing_of_the_host_is_visible_but_its_programs(scripts: Scripts, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    prefix = _prefix(scripts.key.interpreter)
    code = """
import os
def main(paths, prefix):
    walks = [step for top in ('/root', '/home') for step in os.walk(top)]
    homes = [d + '/' + f for d, _, files in walks if not d.startswith(prefix) for f in files]
    return [os.listdir('/'), homes, [p for p in paths if os.path.exists(p)], *map(os.listdir, ('/tmp', '/run', '/job'))]
"""
    paths = [str(tmp_path), "/etc/shadow", "/sys/kernel", "/var/lib", "/srv", "/boot", "/mnt", __file__]
    top, homes, seen, tmp, run, job = await scripts.result(code, {"paths": paths, "prefix": prefix})
    allowed = {
        "bin",
        "dev",
        "env",
        "etc",
        "job",
        "lib",
        "lib32",
        "lib64",
        "libx32",
        "proc",
        "run",
        "sbin",
        "tmp",
        "usr",
        "var",
    }
    assert set(top) - allowed <= {Path(prefix).parts[1]}
    assert (homes, seen, tmp, run, job) == ([], [], [], [], ["main.py"])


@pytest.mark.parametrize(
    "path",
    [
        "/x",
        "/usr/x",
        "/usr/bin/x",
        "/etc/x",
        "/etc/passwd",
        "/dev/x",
        "/env/x",
        "/run/x",
        "/var/x",
        "/proc/sys/kernel/hostname",
    ],
)
async def test_only_its_own_folders_can_be_written(scripts: Scripts, path: str) -> None:
    error = await scripts.error("def main(path): open(path, 'w').write('x')", {"path": path})
    assert error["name"] in {"OSError", "PermissionError", "FileNotFoundError"}


async def test_its_own_folders_can_be_written_and_are_private_to_the_job(scripts: Scripts) -> None:
    code = """
import os, time
def main(seconds):
    before = [os.listdir(d) for d in ('/tmp', '/dev/shm', '/job')]
    for d in ('/tmp', '/dev/shm', '/job', '/var/tmp'):
        open(d + '/trace', 'w').write('x')
    print('written')
    time.sleep(seconds)
    return before
"""
    first = scripts.start(code, {"seconds": 1000})
    await first.says("written")
    assert await scripts.result(code, {"seconds": 0}) == [[], [], ["main.py"]]
    first.cancel.set()
    await first.ending()
    assert await scripts.result(code, {"seconds": 0}) == [[], [], ["main.py"]]


async def test_the_environment_is_exactly_what_was_given(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_SECRET", "worker's own")
    code = """
import os, subprocess
def main(): return [dict(os.environ), subprocess.getoutput('cat /proc/*/environ 2>/dev/null')]
"""
    env, of_processes = await scripts.result(code, env={"WM_TOKEN": "t"})
    assert env == {
        "WM_TOKEN": "t",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
    }
    assert "TIDEMILL" not in of_processes


async def test_only_its_own_processes_exist(scripts: Scripts) -> None:
    other = scripts.start("import time\ndef main():\n    print('x'); time.sleep(1000)")
    await other.says("x")
    pids = await scripts.result("import os\ndef main(): return [int(p) for p in os.listdir('/proc') if p.isdigit()]")
    other.cancel.set()
    await other.ending()
    assert set(pids) == {1, 2}


async def test_it_inherits_no_descriptor_but_its_own(scripts: Scripts) -> None:
    code = """
import os
def main():
    fds = sorted(int(f) for f in os.listdir('/proc/self/fd'))
    child = os.popen('ls /proc/self/fd').read().split()
    return [fds, os.readlink('/proc/self/fd/0'), child]
"""
    fds, stdin, child = await scripts.result(code)
    assert fds[:4] == [0, 1, 2, 3]
    assert len(fds) == 5  # the fifth lists them
    assert stdin == "/dev/null"
    assert child == ["0", "1", "2", "3"]  # the last lists them: our socket is not passed on


async def test_privileges_cannot_be_won_back(scripts: Scripts) -> None:
    code = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def main():
    tries = {
        'new user namespace': libc.unshare(0x10000000),
        'new mount namespace': libc.unshare(0x00020000),
        'mount': libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None),
        'unmount /proc': libc.umount2(b'/proc', 2),
        'unmount /tmp': libc.umount2(b'/tmp', 2),
        'remount': libc.mount(None, b'/', None, 32 | 4096, None),
        'chroot': libc.chroot(b'/tmp'),
        'setuid': libc.setuid(0),
        'ptrace pid 1': libc.ptrace(16, 1, None, None),
        'hostname': libc.sethostname(b'x', 1),
        'nice': libc.setpriority(0, 0, -5),
        'memory of pid 1': 0 if os.access('/proc/1/mem', os.R_OK) else -1,
        'descriptors of pid 1': 0 if os.access('/proc/1/fd/3', os.F_OK) else -1,
        'raw socket': libc.socket(2, 3, 1),
        'packet socket': libc.socket(17, 3, 0),
    }
    try:
        os.kill(1, 9)
    except PermissionError:
        pass
    return [what for what, result in tries.items() if result != -1]
"""
    assert await scripts.result(code) == []


async def test_the_host_is_not_named(scripts: Scripts) -> None:
    name, address = await scripts.result(
        "import socket\ndef main(): return [socket.gethostname(), socket.gethostbyname(socket.gethostname())]"
    )
    assert (name, address) == ("tidemill-job", "127.0.0.1")
    assert name != socket.gethostname()


async def test_certificates_names_and_time_zones_are_there(scripts: Scripts) -> None:
    code = """
import getpass, pwd, ssl, time
from zoneinfo import ZoneInfo
def main():
    authorities = ssl.create_default_context().cert_store_stats()['x509_ca']
    return [getpass.getuser(), authorities, str(ZoneInfo('Europe/Rome')), time.tzname]
"""
    user, authorities, zone, names = await scripts.result(code, env={"TZ": "Europe/Rome"})
    assert (user, zone, names) == ("job", "Europe/Rome", ["CET", "CEST"])
    assert authorities == ssl.create_default_context().cert_store_stats()["x509_ca"]


def _prefix(interpreter: str) -> str:
    return str(Path(interpreter).resolve().parent.parent)


def _uid(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0])
    except OSError:
        return os.geteuid()
