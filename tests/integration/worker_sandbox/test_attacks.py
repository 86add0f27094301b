"""Attacks A13 to A18, in Python and in Bash, against every tier: what they must not get, and what is said of them.

A13 for networks stands in test_network.py, A15 by system call in test_seccomp.py, A16's fork bombs and whole-job memory
in test_groups.py.
"""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.worker_sandbox.harness import Run, Scripts, processes_with, until
from tidemill.worker.sandbox.execution import Ending, Limits

MIB = 1 << 20
SECRET = f"secret-{uuid4().hex}"
LANGUAGES = pytest.mark.parametrize("language", ["python3", "bash"])


@pytest.fixture
def files_of_ours(tmp_path: Path) -> list[str]:
    """Files that a worker has or could have, and that no job may read."""
    folder = tmp_path / "worker"
    folder.mkdir()
    (folder / "secret").write_text(SECRET)
    paths = [
        "/proc/1/environ",
        "/proc/1/mem",
        "/proc/1/maps",
        "/etc/shadow",
        "/etc/sudoers",
        "/etc/ssh/ssh_host_rsa_key",
    ]
    paths += ["/var/run/secrets/kubernetes.io/serviceaccount/token", "/run/docker.sock", "/dev/mem", "/dev/kmsg"]
    paths += ["/proc/kcore", "/sys/kernel/notes"]
    paths += [str(folder / "secret"), __file__, *(f"/proc/{os.getpid()}/{name}" for name in ("environ", "mem", "maps"))]
    return paths


@LANGUAGES
async def test_a13_a_job_reads_nothing_of_the_worker(
    either: Scripts, language: str, files_of_ours: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_DATABASE_URL", SECRET)
    code = {
        "python3": """
import glob, os
def main(paths):
    found = [os.environ.get('TIDEMILL_DATABASE_URL', '')]
    for path in [*paths, *glob.glob('/proc/[0-9]*/environ')]:
        try: text = open(path, errors='replace').read(100_000)
        except OSError: continue
        if path in paths and text: found.append(path)
        if 'TIDEMILL' in text: found.append(path)
    return [each for each in found if each]
""",
        "bash": """
paths="$1"
for path in $(echo "$paths" | tr -d '[],"') /proc/[0-9]*/environ; do
  if text=$(head -c 100000 "$path" 2>/dev/null | tr -d '\\0') && [ -n "$text" ]; then
    case "$path" in /proc/[0-9]*/environ) ;; *) echo "$path" >> found ;; esac
    case "$text" in *TIDEMILL*) echo "$path" >> found ;; esac
  fi
done 2>/dev/null
echo "[$TIDEMILL_DATABASE_URL$(cat found 2>/dev/null || true)]"
""",
    }[language]
    assert await either.result(code, {"paths": files_of_ours}, language=language) == (
        [] if language == "python3" else "[]"
    )


@LANGUAGES
async def test_a14_a_job_writes_into_nothing_shared(either: Scripts, language: str) -> None:
    other = either.start("import os, time\ndef main():\n    print(os.getcwd(), flush=True); time.sleep(99)")
    await other.says("\n")
    shared = ["/etc/hosts", "/etc/resolv.conf", "/etc/passwd", "/usr/bin/new", "/usr/lib/new", "/env/0/new", "/new"]
    shared += ["/usr/lib/python3/dist-packages/new.pth", "/proc/sys/kernel/hostname", "/var/new", "/run/new"]
    if other.log.strip() != "/job":  # else it is a folder of that name that only we see
        shared += [f"{other.log.strip()}/main.py", f"{other.log.strip()}/new"]
    code = {
        "python3": """
import os
def main(paths):
    written = []
    for path in paths:
        try: os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        except OSError: continue
        written.append(path)
    return written
""",
        "bash": """
paths="$1"
for path in $(echo "$paths" | tr -d '[],"'); do
  if (: >> "$path") 2>/dev/null; then echo "$path" >> written; fi
done
echo "[$(cat written 2>/dev/null || true)]"
""",
    }[language]
    written = await either.result(code, {"paths": shared}, language=language)
    other.cancel.set()
    await other.ending()
    assert written in ([], "[]")


@LANGUAGES
async def test_a15_a_job_gains_no_privilege(either: Scripts, language: str) -> None:
    code = {
        "python3": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def main():
    tries = {
        'mount': lambda: libc.mount(b'none', b'/tmp', b'tmpfs', 0, None),
        'bind': lambda: libc.mount(b'/', b'/tmp', None, 4096, None),
        'unshare': lambda: libc.unshare(0x10000000),
        'ptrace': lambda: libc.ptrace(16, 1, None, None),
        'setuid': lambda: libc.setuid(0),
        'setgid': lambda: libc.setgid(0),
        'keyring': lambda: libc.syscall(250, 0, -3, 1),
        'raw socket': lambda: libc.socket(2, 3, 1),
        'chroot': lambda: libc.chroot(b'/tmp'),
        'device': lambda: libc.mknod(b'disk', 0o60600, os.makedev(8, 0)),
        'capability': lambda: libc.prctl(47, 2, 21, 0, 0),
        'dump': lambda: libc.setrlimit(4, (ctypes.c_long * 2)(1 << 20, 1 << 20)),
    }
    return [name for name, attempt in tries.items() if attempt() != -1]
""",
        "bash": """
try() { if "$@" >/dev/null 2>&1 </dev/null; then echo "$*" >> won; fi; }
try unshare --user --map-root-user true
try unshare --mount true
try nsenter --target 1 --mount true
try mount -t tmpfs none /tmp
try mount --bind / /tmp
try chroot /tmp true
try mknod disk b 8 0
try su -c true
try sudo -n true
try setpriv --reuid 0 true
try bash -c 'exec 3<>/dev/mem'
try bash -c 'echo 1 > /proc/sys/kernel/sysrq'
try dmesg
try ulimit -c 1000
echo "[$(cat won 2>/dev/null || true)]"
""",
    }[language]
    assert await either.result(code, language=language) in ([], "[]")


@LANGUAGES
async def test_a16_ten_gigabytes_of_memory(either: Scripts, language: str) -> None:
    code = {
        "python3": "def main(): bytearray(10 << 30)",
        "bash": f"exec {either.key.interpreter} -c 'x = bytearray(10 << 30)'",
    }[language]
    ending = await ended(either, code, language, Limits(memory_bytes=200 * MIB))
    if language == "python3":
        assert ending.reason == "memory"
    else:
        # An interpreter started by a script is refused the memory and says so itself.
        assert "MemoryError" in bytes(ending.result).decode()


@LANGUAGES
async def test_a16_a_full_disk(scripts: Scripts, language: str) -> None:
    code = {
        "python3": "def main():\n    with open('/tmp/x', 'wb') as f:\n        while True: f.write(bytes(1 << 20))",
        "bash": "cat /dev/zero > /tmp/x",
    }[language]
    ending = await ended(scripts, code, language, Limits(tmp_bytes=16 * MIB))
    assert ending.reason == "disk"
    assert json.loads(bytes(ending.result))["error"]["reason"] == "disk"


@LANGUAGES
async def test_a16_one_file_larger_than_allowed(either: Scripts, language: str) -> None:
    code = {
        "python3": "def main():\n    with open('x', 'wb') as f:\n        while True: f.write(bytes(1 << 20))",
        "bash": "cat /dev/zero > x",
    }[language]
    assert (await ended(either, code, language, Limits(file_bytes=4 * MIB))).reason == "disk"


@LANGUAGES
async def test_a16_a_million_files(scripts: Scripts, language: str) -> None:
    code = {
        "python3": "def main():\n    for number in range(1_000_000): open(f'/tmp/{number}', 'w').close()",
        "bash": "cd /tmp; for batch in {1..50}; do touch $(seq -f $batch-%g 20000); done",
    }[language]
    ending = await ended(scripts, code, language, Limits(wall_time=timedelta(seconds=60)), within=60)
    assert ending.reason == "files"


async def test_a16_more_open_files_than_allowed(either: Scripts) -> None:
    code = "def main(): return [open('/dev/null') for _ in range(5000)]"
    assert (await ended(either, code, "python3", Limits(open_files=100))).reason == "files"


@LANGUAGES
async def test_a16_a_line_of_a_gigabyte_is_cut_and_the_job_goes_on(scripts: Scripts, language: str) -> None:
    code = {
        "python3": "import os\ndef main():\n    for _ in range(1 << 14): os.write(1, b'x' * 65536)\n    return 'done'",
        "bash": "head -c 1073741824 /dev/zero >&2; echo done",
    }[language]
    run = scripts.start(code, language=language, limits=Limits(log_bytes=100_000, output_bytes=2 << 30))
    ending = await finished(run, 60)
    assert (ending.success, bytes(ending.result)) == (True, b'"done"')
    assert len(run.log) < 110_000
    assert "longer than 100000 bytes" in run.log


@LANGUAGES
async def test_a16_output_without_end(either: Scripts, language: str) -> None:
    code = {"python3": "def main():\n    while True: print('x' * 1000)", "bash": "yes >&2"}[language]
    limits = Limits(log_bytes=10_000, output_bytes=50 * MIB)
    ending = await ended(either, code, language, limits)
    assert ending.reason == "output"
    assert "was killed" in json.loads(bytes(ending.result))["error"]["message"]


@LANGUAGES
async def test_a16_a_result_of_a_hundred_megabytes(either: Scripts, language: str) -> None:
    code = {
        "python3": "def main(): return 'x' * (100 << 20)",
        "bash": "head -c 104857600 /dev/zero | tr '\\0' x > result.out",
    }[language]
    assert (await ended(either, code, language, Limits(result_bytes=1 * MIB))).reason == "result_limit"


@LANGUAGES
async def test_a16_text_that_is_none(either: Scripts, language: str) -> None:
    code = {
        "python3": "def main(): return ['a\\0b', 'c\\ud800d', b'\\xff'.decode('utf-8', 'surrogateescape')]",
        "bash": "printf 'a\\0b\\n\\xff' > result.out",
    }[language]
    result = await either.result(code, language=language)
    text = json.dumps(result, ensure_ascii=False)
    assert "\0" not in text
    assert "\\u0000" not in text
    text.encode()


@LANGUAGES
async def test_a16_json_of_a_hundred_thousand_levels(either: Scripts, language: str) -> None:
    code = {
        "python3": "def main():\n    value = []\n    for _ in range(100_000): value = [value]\n    return value",
        "bash": "printf '[%.0s' {1..100000} > result.json; printf ']%.0s' {1..100000} >> result.json",
    }[language]
    ending = await ended(either, code, language, Limits())
    assert ending.reason == "raised"


async def test_a16_numbers_that_are_none(either: Scripts) -> None:
    assert await either.result("def main(): return [float('nan'), float('inf'), 1.5]") == [None, None, 1.5]
    error = await either.error("echo NaN > result.json", language="bash")
    assert "not valid JSON" in error["message"]


@LANGUAGES
@pytest.mark.parametrize("how", ["cancel", "time", "end"])
async def test_a17_nothing_outlives_a_job(either: Scripts, language: str, how: str) -> None:
    marker = f"a17-{uuid4().hex}"
    daemon = f"trap '' TERM INT HUP; exec -a {marker} sleep 1000"
    rest = {"cancel": 1000, "time": 1000, "end": 0.3}[how]
    code = {
        "python3": f"""
import os, signal, subprocess, time
def main():
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP): signal.signal(each, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: os.execvp('bash', ['bash', '-c', {daemon!r}])
        os._exit(0)
    os.wait()
    print('started', flush=True)
    time.sleep({rest})
""",
        "bash": f"trap '' TERM INT HUP\n(setsid bash -c \"{daemon}\" &) >/dev/null 2>&1\n"
        f"echo started >&2\nsleep {rest}\n",
    }[language]
    wall_time = timedelta(seconds=1 if how == "time" else 60)
    run = either.start(code, language=language, limits=Limits(wall_time=wall_time))
    if how != "time":
        await run.says("started")
    if how == "cancel":
        await until(lambda: processes_with(marker))
        run.cancel.set()
    ending = await run.ending()
    assert ending.reason == {"cancel": "canceled", "time": "timeout", "end": "returned"}[how]
    await until(lambda: not processes_with(marker))


@pytest.mark.parametrize(
    "entrypoint",
    [
        "system", "run", "os.system", "__import__", "__builtins__", "__loader__", "main; import os", "main\nimport os",
        "lambda: 1", "main()", "", "m\u0430in", "../main",
    ],
)  # fmt: skip
async def test_a18_only_the_scripts_own_functions_are_entrypoints(either: Scripts, entrypoint: str) -> None:
    code = "import os\nfrom os import system\nfrom subprocess import run\ndef main(): return 1\ndef other(): return 2"
    error = await either.error(code, {"command": "touch /tmp/x", "args": "true"}, entrypoint=entrypoint)
    assert error["name"] == "EntrypointNotFound"
    assert await either.result(code, entrypoint="other") == 2


HOSTILE = [
    "a\nimport os",
    "x'y",
    'x"y',
    "$(touch hit)",
    "`touch hit`",
    "a;touch hit",
    "\u2028",
    "__class__",
    "../x",
    "a\0b",
]


async def test_a18_names_and_values_of_arguments_are_only_text(either: Scripts) -> None:
    args = dict.fromkeys(HOSTILE, "$(touch hit)`touch hit`';touch hit;\"")
    listing = "import os\ndef main(**rest): return [sorted(rest), os.listdir('.')]"
    names, files = await either.result(listing, args)
    assert sorted(names) == sorted(name.replace("\0", "\ufffd") for name in HOSTILE)
    assert files == ["main.py"]
    for value in HOSTILE:
        assert await either.result(
            'x="$1"\n[ ! -e hit ]\nprintf "%s" "$x" > result.out', {"x": value}, language="bash"
        ) in (
            value,
            value.replace("\0", ""),
        )


@pytest.mark.parametrize("language", ["python3; touch x", "../bash", "Python3", "bash\n", "__init__", ""])
async def test_a18_a_language_is_one_of_the_table(either: Scripts, language: str) -> None:
    error = await either.error("echo 1", language=language)
    assert (error["reason"], error["name"]) == ("refused", "UnknownLanguage")


async def ended(scripts: Scripts, code: str, language: str, limits: Limits, within: float = 30) -> Ending:
    """Return how an attack ended: it failed, and its neighbour did not notice."""
    attack = scripts.start(code, language=language, limits=limits)
    neighbour = await scripts.result("def main(): return 'well'")
    ending = await finished(attack, within)
    assert neighbour == "well"
    assert not ending.success
    assert await scripts.result("echo well", language="bash") == "well"
    return ending


async def finished(run: Run, within: float) -> Ending:
    assert run.task is not None
    async with asyncio.timeout(within):
        return await run.task
