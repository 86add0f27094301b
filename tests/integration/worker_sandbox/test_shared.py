"""The folder that jobs of one flow share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from tests.integration.worker_sandbox.harness import Scripts
from tidemill.worker.sandbox import shared
from tidemill.worker.sandbox.pool import ZygoteKey

WRITE = "def main(text):\n    open('./shared/note', 'w').write(text)\n"
READ = "import os\ndef main():\n    return [os.listdir('shared'), open('shared/note').read()]\n"
DEEP = """
import os
def main():
    os.chdir('shared')
    for _ in range(2000):
        os.mkdir('d')
        os.chdir('d')
"""
LOOK = """
def main(paths):
    opened = []
    for path in paths:
        try:
            opened.append(open(path).read())
        except OSError:
            pass
    return opened
"""


@pytest.fixture
async def folder(either: Scripts) -> AsyncIterator[str]:
    yield either.sandbox.share("flow")
    await either.sandbox.unshare("flow")


def sharing(scripts: Scripts, folder: str) -> ZygoteKey:
    return msgspec.structs.replace(scripts.key, shared=folder)


def owner(folder: str, name: str) -> int:
    return Path(folder, name).stat().st_uid


def is_there(folder: str) -> bool:
    return Path(folder).exists()


async def test_what_one_job_leaves_there_the_next_one_finds(either: Scripts, folder: str) -> None:
    key = sharing(either, folder)
    await either.result(WRITE, {"text": "for you"}, key=key)
    assert await either.result(READ, key=key) == [["note"], "for you"]
    assert await either.result("cat shared/note > /dev/null\nls shared", language="bash", key=key) == "note"
    if os.geteuid() == 0:
        assert owner(folder, "note") == 61184


async def test_who_shares_nothing_sees_nothing_of_it(either: Scripts, folder: str) -> None:
    await either.result(WRITE, {"text": "not for you"}, key=sharing(either, folder))
    paths = ["shared/note", "/shared/note", f"{folder}/note"]
    assert await either.result(LOOK, {"paths": paths}) == []
    other = either.sandbox.share("other")
    assert (await either.error(READ, key=sharing(either, other)))["name"] == "FileNotFoundError"
    await either.sandbox.unshare("other")


async def test_a_folder_that_is_shared_no_more_is_gone_with_its_processes(either: Scripts) -> None:
    folder = either.sandbox.share("ended")
    await either.result(DEEP, key=sharing(either, folder))
    await either.sandbox.unshare("ended")
    assert not is_there(folder)
    assert await either.result("def main():\n    return 1\n") == 1


def write_much(folder: Path) -> None:
    (folder / "much").write_bytes(b"x" * 2_000_000)


def nest(folder: Path) -> None:
    for _ in range(500):
        folder /= "d"
        folder.mkdir()


def link_away(folder: Path) -> None:
    (folder / "link").symlink_to("/usr")
    (folder / "file").symlink_to("/proc/kcore")


@pytest.mark.parametrize(("fill", "is_full"), [(write_much, True), (nest, False), (link_away, False)])
def test_what_is_in_it_is_counted(tmp_path: Path, fill: Callable[[Path], None], is_full: bool) -> None:
    fill(tmp_path)
    assert shared.is_full(str(tmp_path), 1_000_000) is is_full


def test_many_files_are_too_many_whatever_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_FILES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    assert shared.is_full(str(tmp_path), 1_000_000)
