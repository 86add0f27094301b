"""An extension is a distribution of its own: installed, it is there; removed, it is gone; broken, the start says so."""

import subprocess
import sys
from pathlib import Path

import pytest

TOY = """\
from contextlib import asynccontextmanager
from tidemill.chassis.service import Extension

@asynccontextmanager
async def opened(frame):
    frame.append("toy opened")
    yield
    frame.append("toy closed")

EXTENSION = Extension(open=opened)
"""
ASK = """\
import asyncio
from contextlib import AsyncExitStack
from tidemill.chassis.extensions import load
from tidemill.chassis.service import Extension

async def main():
    said = []
    async with AsyncExitStack() as stack:
        for extension in load("tidemill.scheduler.extensions", Extension):
            await stack.enter_async_context(extension.open(said))
        said.append("service runs")
    print(", ".join(said))

asyncio.run(main())
"""


def install(site: Path, code: str) -> None:
    site.joinpath("toy_extension.py").write_text(code)
    info = site / "toy_extension-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: toy-extension\nVersion: 1.0\n")
    info.joinpath("entry_points.txt").write_text("[tidemill.scheduler.extensions]\ntoy = toy_extension:EXTENSION\n")


def ask(site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ASK],
        env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_installed_extension_is_opened_inside_its_service(tmp_path: Path) -> None:
    install(tmp_path, TOY)
    assert ask(tmp_path).stdout == "toy opened, service runs, toy closed\n"


def test_without_it_nothing_else_changes(tmp_path: Path) -> None:
    assert ask(tmp_path).stdout == "service runs\n"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [("import no_such_module\n", "can't be loaded"), ("EXTENSION = 5\n", "is no Extension")],
)
def test_a_broken_extension_refuses_the_start(tmp_path: Path, code: str, complaint: str) -> None:
    install(tmp_path, code)
    answer = ask(tmp_path)
    assert answer.returncode != 0
    assert complaint in answer.stderr
