"""The lines that the README shows are the lines that are run here, from the folder and against the address it names."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.installation import Installation

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """Return the code below the mark `<!-- run: name -->`."""
    found = re.search(rf"<!-- run: {name} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no block {name}"
    return found[1]


async def run(tidemill: Installation, folder: Path, *command: str) -> str:
    """Run a block in a folder whose `.tidemill` is this installation's, and return its output."""
    folder.joinpath(".tidemill").symlink_to(tidemill.home)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


def here(tidemill: Installation, text: str) -> str:
    assert "http://localhost:8000" in text
    return text.replace("http://localhost:8000", tidemill.url.replace("127.0.0.1", "localhost"))


async def test_the_lines_of_curl(tidemill: Installation, tmp_path: Path) -> None:
    output = await run(tidemill, tmp_path, "bash", "-eu", "-c", here(tidemill, block("curl")))
    assert '"hello world"' in output
    assert "greeting webhook" in output
    assert '"CompletedJob"' in output or '"QueuedJob"' in output


async def test_the_lines_of_python(tidemill: Installation, tmp_path: Path) -> None:
    output = await run(tidemill, tmp_path, sys.executable, "-c", here(tidemill, block("python")))
    assert output.splitlines()[-1] == "42"


async def test_the_lines_that_run_a_flow(tidemill: Installation, tmp_path: Path) -> None:
    output = await run(tidemill, tmp_path, "bash", "-eu", "-c", here(tidemill, block("flows")))
    lines = output.splitlines()
    assert lines[:2] == ["u/admin/squares", "14"]
    assert '"flow_status":{' in output
    assert '"why"' in output
    assert "approved" in lines
    last = json.loads([line for line in lines if line.startswith("data: ")][-1].removeprefix("data: "))
    assert (last["completed"], last["only_result"]) == (True, 25)


async def test_the_workflow_that_is_code(tidemill: Installation) -> None:
    await tidemill.serve_script("u/admin/squares_as_code", block("workflow"))
    where = "/w/:w/jobs/run_wait_result/p/u/admin/squares_as_code"
    assert await tidemill.call("POST", where, {"numbers": [1, 2, 3]}) == 14


@pytest.mark.parametrize("name", ["curl", "python"])
def test_ten_lines_are_ten(name: str) -> None:
    assert len([line for line in block(name).splitlines() if line.strip()]) <= 10


def test_the_commands_that_the_readme_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)", README) + re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"no target {target}"
