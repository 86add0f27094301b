"""Rules about all code: names that say something, one reader of the environment, no traces of one machine."""

import ast
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.architecture.repository import CODE, ROOT, python_files

NAMES_THAT_SAY_NOTHING = {"base", "common", "helper", "helpers", "lib", "misc", "util", "utils"}

READERS_OF_THE_ENVIRONMENT: Mapping[str, str] = {
    "services/audit/tidemill/audit/command.py": "`tidemill audit verify` reads settings",
    "services/chassis/tidemill/chassis/commands.py": "`tidemill settings` and `tidemill migrate` read settings",
    "services/chassis/tidemill/chassis/service.py": "the main program of each service hands it to settings",
    "services/chassis/tidemill/chassis/telemetry/signals.py": "the OTEL_ variables, which we do not name",
    "services/worker/tidemill/worker/sandbox/inside/job.py": "makes the environment of the user's code",
    "services/worker/tidemill/worker/sandbox/inside/warm.py": "makes it again for the next job of the same script",
    "deploy/allinone/dependencies.py": "builds the environment of pip and uv",
    "deploy/allinone/tidemill/allinone/provide.py": "its main program",
    "deploy/allinone/tidemill/allinone/rabbitmq.py": "builds the environment of RabbitMQ",
    "deploy/allinone/tidemill/allinone/up.py": "the main program of the launcher",
}
"""Everything else asks for settings; a file that comes in here needs as good a reason."""


def test_no_module_has_a_name_that_says_nothing() -> None:
    nothing = [
        str(file)
        for file in python_files(*CODE, "tests")
        if NAMES_THAT_SAY_NOTHING & {part.removesuffix(".py") for part in file.parts}
    ]
    assert nothing == []


def test_only_settings_and_main_programs_read_the_environment() -> None:
    readers = {str(file) for file in python_files(*CODE) if reads_the_environment(ROOT / file)}
    assert readers == set(READERS_OF_THE_ENVIRONMENT)


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    # A checkout in /app or a home in / would be found in every second sentence; those tell nothing of a machine.
    here = [re.escape(str(place)) + r"\b" for place in (ROOT, Path.home()) if len(place.parts) > 2]
    traces = re.compile("|".join([*here, r"/roo[t]/", r"/home/(?!\.|<)[a-z]+/"]))
    found = []
    for name in listed_files():
        file = ROOT / name
        if file.is_file() and b"\0" not in (content := file.read_bytes()):
            text = content.decode("utf-8", "replace")
            found += [f"{name}: {match[0]}" for match in traces.finditer(text)]
    assert found == []


def test_python_files_end_in_no_commented_marker_of_unfinished_work() -> None:
    marker = re.compile(r"#\s*(TODO|FIXME|XXX)\b")
    found = [str(file) for file in python_files(*CODE, "tests") if marker.search((ROOT / file).read_text("utf-8"))]
    assert found == []


def listed_files() -> list[str]:
    """Return what git knows or would take in, or all files where there is no git."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        timeout=30,
        check=False,
    )
    if listing.returncode == 0:
        return [name for name in listing.stdout.decode().split("\0") if name]
    hidden = {".venv", ".git", ".tidemill", "__pycache__"}
    return [str(file.relative_to(ROOT)) for file in ROOT.rglob("*") if not hidden & set(file.relative_to(ROOT).parts)]


def reads_the_environment(file: Path) -> bool:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "environb" | "getenv" | "putenv"):
                return True
            case ast.ImportFrom(module="os", names=names) if {"environ", "getenv"} & {each.name for each in names}:
                return True
    return False
