"""Environments with the real uv and packages that the test makes: built once, left alone, cleared away."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.architecture.repository import ROOT
from tests.support.installation import free_port
from tests.support.package_index import package_index
from tests.support.waiting import eventually
from tests.support.wheels import a_source, a_wheel, only_from
from tidemill.worker.environments import build, tree, uv
from tidemill.worker.environments.environments import Environment, Environments
from tidemill.worker.environments.failure import NotInstallable, Stopped
from tidemill.worker.environments.store import Store
from tidemill.worker.sandbox.settings import Tier
from tidemill.worker.settings import WorkerSettings

CODE = "import tinyone\n"
MANY = 100


class Workshop:
    """One worker's environments, and what it has said."""

    def __init__(
        self, folder: Path, variables: dict[str, str] | None = None, tier: Tier = "full", **settings: Any
    ) -> None:
        self.cache = folder / "cache"
        self.said: list[str] = []
        self.stop = asyncio.Event()
        variables = {"HOME": str(folder), "PATH": os.environ["PATH"], **(variables or only_from(folder / "wheels"))}
        self.environments = Environments(WorkerSettings(cache=self.cache, **settings), folder, variables, tier)

    async def lend(self, code: str = CODE, lock: str | None = None) -> Environment:
        """Borrow an environment for a moment."""
        async with self.environments.lent("python3", code, lock, self.said.append, self.stop) as environment:
            return environment

    async def lock(self, code: str = CODE) -> str:
        """Find a lock."""
        return await self.environments.lock_of("python3", code, self.said.append, self.stop)

    async def refuses(self, code: str = CODE, lock: str | None = None) -> NotInstallable:
        """Return why an environment can't be had."""
        with pytest.raises(NotInstallable) as refused:
            await self.lend(code, lock)
        return refused.value

    def built(self) -> list[str]:
        """Return the names of what lies in the folder of environments."""
        return sorted(each.name for each in (self.cache / "environments").glob("*"))


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    a_wheel(folder, "tinyone")
    a_wheel(folder, "tinytwo", needs=["tinyone>=1"])
    return folder


@pytest.fixture
def workshop(tmp_path: Path, wheels: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder of our own among those that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders into which something was really installed."""
    done: list[Path] = []
    install = build._install

    async def counted(*values: Any) -> None:
        done.append(values[3])
        await install(*values)

    monkeypatch.setattr(build, "_install", counted)
    return done


def imported(environment: Environment, code: str) -> str:
    """Return what code prints that sees the environment."""
    program = [environment.interpreter, "-I", "-S", "-c", f"import sys; sys.path += {environment.folders!r}\n{code}"]
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=30).stdout.strip()


def let_everybody_enter(folder: Path) -> None:
    folder.chmod(0o711)


def everything_in(folder: Path) -> list[Path]:
    return [folder, *sorted(folder.rglob("*"))]


async def test_what_a_script_imports_is_there_with_what_that_needs(workshop: Workshop) -> None:
    environment = await workshop.lend("import tinytwo")
    assert imported(environment, "import tinyone, tinytwo; print(tinyone.__version__)") == "1.0"
    assert workshop.said[0].startswith("resolving 1 requirement for Python 3.")
    assert "installing 2 packages ..." in workshop.said
    assert workshop.said[-1].startswith("installed, took ")


async def test_many_who_want_the_same_cold_environment_cost_one_installation(
    tmp_path: Path, wheels: Path, installs: list[Path]
) -> None:
    # Two workshops are two workers: between them there is only the lock on the disk.
    shops = [Workshop(tmp_path), Workshop(tmp_path)]
    lent = await asyncio.gather(*(shops[number % 2].lend() for number in range(MANY)))
    assert len(set(lent)) == 1
    assert len(installs) == 1
    assert len(shops[0].built()) == 1


async def test_a_lock_names_hashes_and_no_address_and_leads_to_the_same_environment(workshop: Workshop) -> None:
    lock = await workshop.lock("import tinytwo")
    assert lock.startswith("# py: 3.")
    assert lock.count("--hash=sha256:") == 2
    assert "://" not in lock
    assert "wheels" not in lock
    found = await workshop.lend("import tinytwo")
    assert await workshop.lend("whatever", lock) == found
    assert await workshop.lend("whatever", lock.replace("\n", "\r\n")) == found


async def test_a_lock_without_hashes_is_taken_as_it_is(workshop: Workshop) -> None:
    environment = await workshop.lend("", "tinyone==1.0\n")
    assert imported(environment, "import tinyone; print(tinyone.__version__)") == "1.0"


async def test_a_wheel_that_is_not_the_one_of_the_lock_is_not_installed(workshop: Workshop, wheels: Path) -> None:
    lock = await workshop.lock()
    a_wheel(wheels, "tinyone", code="print('evil')\n")
    refused = await Workshop(wheels.parent / "other", only_from(wheels)).refuses("", lock)
    assert refused.name == "InstallationFailed"
    assert "hash" in str(refused).lower()


async def test_nothing_of_a_package_that_comes_as_source_runs(workshop: Workshop, wheels: Path) -> None:
    a_source(wheels, "onlysource")
    refused = await workshop.refuses("import onlysource")
    assert refused.name == "ResolutionFailed"
    assert "onlysource" in str(refused)
    assert "Only wheels are installed" in str(refused)
    assert not (wheels / "it-ran").exists()


async def test_what_python_can_not_compile_is_installed_all_the_same(workshop: Workshop, wheels: Path) -> None:
    a_wheel(wheels, "broken", code="def (\n")
    environment = await workshop.lend("import broken, tinyone")
    assert imported(environment, "import tinyone; print(tinyone.__version__)") == "1.0"
    modules = everything_in(Path(environment.folders[0]) / "tinyone")
    assert [each.suffix for each in modules if each.suffix == ".pyc"] == [".pyc"]


async def test_what_can_not_be_resolved_says_why(workshop: Workshop) -> None:
    assert "nosuch was not found" in str(await workshop.refuses("import nosuch"))
    assert "no_cache" in str(await workshop.refuses("# no_cache\nimport tinyone"))
    assert "tinyone" in str(await workshop.refuses("# requirements:\n# tinyone>=2\n"))


async def test_an_interpreter_that_is_not_there_is_named(workshop: Workshop) -> None:
    refused = await workshop.refuses("# py: 3.99\nimport tinyone")
    assert refused.name == "InterpreterMissing"
    assert "3.99" in str(refused)


async def test_looking_for_an_interpreter_in_vain_is_told_from_not_being_able_to_look(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uv, "find_uv_bin", lambda: "/nowhere/uv")
    for code in ("# py: 3.99\nimport tinyone", "import tinyone"):
        refused = await workshop.refuses(code)
        assert refused.name == "NotStarted"
        assert "/nowhere/uv" in str(refused)


async def test_a_script_without_a_lock_keeps_the_versions_that_were_found_once(
    tmp_path: Path, workshop: Workshop, wheels: Path
) -> None:
    first = await workshop.lend()
    a_wheel(wheels, "tinyone", "2.0")
    assert await workshop.lend() == first
    assert "tinyone==2.0" in await workshop.lock()
    a_wheel(wheels, "tinyone", "3.0")
    impatient = Workshop(tmp_path, resolutions_kept=timedelta(0))
    assert imported(await impatient.lend(), "import tinyone; print(tinyone.__version__)") == "3.0"


BUILDER = """
import asyncio, sys
from pathlib import Path
from tests.integration.worker.test_environments import Workshop
from tidemill.worker.environments import build

async def hang(*_):
    print("unpacked", flush=True)
    await asyncio.sleep(120)

build._compile = hang
asyncio.run(Workshop(Path(sys.argv[1])).lend())
"""


async def test_a_builder_that_is_killed_leaves_nothing_broken(
    tmp_path: Path, workshop: Workshop, installs: list[Path]
) -> None:
    builder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", BUILDER, str(tmp_path)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert builder.stdout is not None
    try:
        assert await asyncio.wait_for(builder.stdout.readline(), 60) == b"unpacked\n"
        waiting = asyncio.create_task(workshop.lend())
        await workshop.environments.collect()
        assert [name[:4] for name in workshop.built()] == ["tmp-"], "a build that goes on is left alone"
        assert not waiting.done()
    finally:
        builder.send_signal(signal.SIGKILL)
        await builder.wait()
    environment = await asyncio.wait_for(waiting, 60)
    assert imported(environment, "import tinyone; print(tinyone.__version__)") == "1.0"
    assert len(installs) == 1
    await workshop.environments.collect()
    assert [name[:4] for name in workshop.built()] == [Path(environment.folders[0]).parent.name[:4]]


OUTLIVED = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from tests.integration.worker.test_environments import Workshop
from tidemill.worker.environments import build
from tidemill.worker.environments.uv import execute

UNPACKS = "import os, sys, time; print(os.getpid(), file=open(sys.argv[1], 'w', buffering=1)); time.sleep(120)"

async def unpack(uv, lock, interpreter, libraries, held):
    await execute([sys.executable, "-c", UNPACKS, sys.argv[2]], {}, timedelta(minutes=2), keeps=[held])

build._install = unpack
asyncio.run(Workshop(Path(sys.argv[1])).lend())
"""


async def test_nobody_clears_up_under_an_unpacking_that_outlives_its_builder(
    tmp_path: Path, workshop: Workshop
) -> None:
    note = tmp_path / "pid"
    builder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OUTLIVED, str(tmp_path), str(note)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    async def its_pid() -> int:
        return int(note.read_text() or 0) if note.exists() else 0

    unpacking = await eventually(its_pid, patience=60)
    try:
        builder.send_signal(signal.SIGKILL)
        await builder.wait()
        waiting = asyncio.create_task(workshop.lend())
        await workshop.environments.collect()
        assert [name[:4] for name in workshop.built()] == ["tmp-"]
        assert not waiting.done()
    finally:
        os.kill(unpacking, signal.SIGKILL)
    assert (await asyncio.wait_for(waiting, 60)).folders


async def test_an_environment_is_read_only(workshop: Workshop) -> None:
    environment = await workshop.lend()
    modes = [path.lstat().st_mode for path in everything_in(Path(environment.folders[0]))]
    assert [mode for mode in modes if mode & 0o222 or not mode & 0o004] == []


async def test_the_longest_unused_go_first_and_none_that_is_in_use(tmp_path: Path, wheels: Path) -> None:
    for name in ("old", "used", "young"):
        a_wheel(wheels, name)
    workshop, store = Workshop(tmp_path), Store(tmp_path / "cache")
    digests = {
        name: Path((await workshop.lend(f"import {name}")).folders[0]).parent.name for name in ("old", "used", "young")
    }
    for age, name in enumerate(("young", "used", "old")):
        os.utime(tmp_path / "cache" / "environments" / digests[name] / "complete", (1000 - age, 1000 - age))
    one = json.loads((tmp_path / "cache" / "environments" / digests["old"] / "complete").read_text())["bytes"]
    async with workshop.environments.lent("python3", "import used", None, workshop.said.append, workshop.stop):
        os.utime(tmp_path / "cache" / "environments" / digests["used"] / "complete", (1, 1))
        assert store.collect(10 * one) == 0
        assert store.collect(2 * one + one // 2) == 1
        assert digests["old"] not in workshop.built()
        assert store.collect(0) == 1
        assert workshop.built() == [digests["used"]]
    assert store.collect(0) == 1
    assert workshop.built() == []
    assert list((tmp_path / "cache" / "locks").iterdir()) == []
    # It is simply built again, in another place.
    assert imported(await workshop.lend("import old"), "import old; print(old.__version__)") == "1.0"


async def test_downloads_are_forgotten_when_they_are_too_many_and_environments_stay_whole(
    tmp_path: Path, wheels: Path
) -> None:
    a_wheel(wheels, "bulky", code=f"DATA = {'x' * (2 << 20)!r}\n")
    a_wheel(wheels, "small")
    workshop = Workshop(tmp_path, cache_size=8)
    environment = await workshop.lend("import bulky")
    (tmp_path / "cache" / "uv" / "filler").write_bytes(b"x" * (16 << 20))
    await workshop.environments.collect()
    assert not (tmp_path / "cache" / "uv" / "filler").exists()
    assert imported(environment, "import bulky; print(len(bulky.DATA))") == str(2 << 20)


async def test_what_was_downloaded_is_enough_while_offline(tmp_path: Path, wheels: Path) -> None:
    async with package_index(wheels) as index:
        online = Workshop(tmp_path, {"PIP_INDEX_URL": index.url})
        environment = await online.lend("import tinytwo")
        offline = Workshop(tmp_path, {"PIP_INDEX_URL": index.url}, offline=True)
        asked = len(index.asked)
        assert "tinytwo==1.0" in await offline.lock("import tinytwo")
        assert await offline.lend("import tinytwo") == environment
        refused = await offline.refuses("import nosuch")
    assert len(index.asked) == asked
    assert "TIDEMILL_OFFLINE" in str(refused)


async def test_pips_settings_lead_to_its_index_and_its_password_is_told_to_nobody(tmp_path: Path, wheels: Path) -> None:
    async with package_index(wheels, credentials="ann:s3cret") as index:
        configuration = tmp_path / "pip.conf"
        configuration.write_text(f"[global]\nindex-url = {index.url}\n")
        by_file = Workshop(tmp_path, {"PIP_CONFIG_FILE": str(configuration)})
        lock = await by_file.lock("import tinytwo")
        assert "://" not in lock
        await by_file.lend("", lock)
        refused = await by_file.refuses("import nosuch")
        index.credentials = "ann:another"
        wrong = await Workshop(tmp_path / "new", {"PIP_INDEX_URL": index.url.replace("another", "s3cret")}).refuses()
    for text in (lock, str(refused), str(wrong), *by_file.said):
        assert "s3cret" not in text


async def test_an_index_that_fails_for_a_moment_is_asked_again(tmp_path: Path, wheels: Path) -> None:
    async with package_index(wheels) as index:
        index.failures = 3
        workshop = Workshop(tmp_path, {"UV_DEFAULT_INDEX": index.url})
        assert "tinyone==1.0" in await workshop.lock()


async def test_an_index_that_can_not_be_reached_is_a_clear_result(tmp_path: Path) -> None:
    workshop = Workshop(
        tmp_path, {"UV_DEFAULT_INDEX": f"http://127.0.0.1:{free_port()}/simple", "UV_HTTP_RETRIES": "0"}
    )
    refused = await workshop.refuses()
    assert refused.name == "IndexUnreachable"
    assert "tinyone" in str(refused)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Let the folder be a disk of its own for the block."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=20)


def free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def uvs_with(cache: Path) -> int:
    """Return how many uv run with this cache."""
    found = 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            found += process.name() == "uv" and str(cache) in process.environ().get("UV_CACHE_DIR", "")
    return found


async def until_so_many_run(cache: Path, wanted: int) -> None:
    async def look() -> bool:
        return uvs_with(cache) == wanted

    await eventually(look)


async def test_who_is_stopped_leaves_the_work_to_the_others_and_the_last_one_ends_it(
    tmp_path: Path, wheels: Path
) -> None:
    async with package_index(wheels) as index:
        index.hangs = True
        workshop = Workshop(tmp_path, {"UV_DEFAULT_INDEX": index.url})
        stops = [asyncio.Event(), asyncio.Event()]

        async def lend(stop: asyncio.Event) -> None:
            async with workshop.environments.lent("python3", CODE, None, workshop.said.append, stop):
                pass

        tasks = [asyncio.create_task(lend(stop)) for stop in stops]
        await asyncio.wait_for(index.somebody_waits.wait(), 30)
        for task, stop, left in zip(tasks, stops, (1, 0), strict=True):
            stop.set()
            with pytest.raises(Stopped):
                await asyncio.wait_for(task, 20)
            await until_so_many_run(workshop.cache, left)


async def test_who_is_stopped_while_it_is_published_leaves_a_whole_environment_and_the_lock_only_then(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    publish = Store.publish

    def slowly(store: Store, digest: str, libraries: Path, packages: int) -> None:
        begun.set()
        assert go_on.wait(60)
        publish(store, digest, libraries, packages)

    monkeypatch.setattr(Store, "publish", slowly)
    lending = asyncio.create_task(workshop.lend())
    try:
        assert await asyncio.to_thread(begun.wait, 60)
        workshop.stop.set()
        with pytest.raises(Stopped):
            await asyncio.wait_for(lending, 20)
        [draft] = workshop.built()
        assert Store(workshop.cache).collect(0) == 0
        assert workshop.built() == [draft], "the lock is held for as long as the thread writes"
    finally:
        go_on.set()
    monkeypatch.undo()
    workshop.stop.clear()
    environment = await asyncio.wait_for(workshop.lend(), 60)
    assert imported(environment, "import tinyone; print(tinyone.__version__)") == "1.0"
    assert workshop.built() == [draft.removeprefix("tmp-").partition("-")[0]]


async def test_an_environment_whose_libraries_are_gone_is_built_again(workshop: Workshop) -> None:
    [libraries] = (await workshop.lend()).folders
    tree.remove(Path(libraries))
    assert imported(await workshop.lend(), "import tinyone; print(tinyone.__version__)") == "1.0"


async def test_work_that_takes_too_long_is_ended(tmp_path: Path, wheels: Path) -> None:
    async with package_index(wheels) as index:
        index.hangs = True
        workshop = Workshop(tmp_path, {"UV_DEFAULT_INDEX": index.url}, install_timeout=timedelta(seconds=1))
        refused = await workshop.refuses()
    assert refused.name == "InstallTimeout"
    assert uvs_with(workshop.cache) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a disk that is full")
async def test_a_full_disk_is_a_clear_result_and_leaves_no_broken_environment(tmp_path: Path, wheels: Path) -> None:
    a_wheel(wheels, "bulky", code=f"DATA = {os.urandom(4 << 20).hex()!r}\n")
    workshop = Workshop(tmp_path)
    with small_disk(workshop.cache, "24m"):
        lock = await workshop.lock("import bulky")
        await workshop.environments.collect()
        (workshop.cache / "filler").write_bytes(b"x" * (free_bytes(workshop.cache) - 64 * 1024))
        refused = await workshop.refuses("", lock)
        assert refused.name == "DiskFull"
        assert workshop.built() == []
        (workshop.cache / "filler").unlink()
        assert imported(await workshop.lend(), "import tinyone; print(tinyone.__version__)") == "1.0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only for root are jobs somebody else")
async def test_without_namespaces_a_cache_that_jobs_can_not_enter_is_named(foreign: Path, wheels: Path) -> None:
    workshop = Workshop(foreign, only_from(wheels), "reduced")
    refused = await workshop.refuses()
    assert refused.name == "CacheUnavailable"
    assert str(foreign) in str(refused)
    assert "TIDEMILL_CACHE" in str(refused)
    let_everybody_enter(foreign)
    assert (await workshop.lend()).folders


async def test_a_cache_that_can_not_be_written_is_a_clear_result(tmp_path: Path, wheels: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    refused = await Workshop(tmp_path).refuses("", "tinyone==1.0")
    assert refused.name == "CacheUnavailable"
    assert "TIDEMILL_CACHE" in str(refused)
