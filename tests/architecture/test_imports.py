"""Who may import whom, and what the language of the services may stand on."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.repository import CODE, ROOT, python_files


def test_the_contracts_in_importlinter_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-logo", "--no-cache", "--config", ROOT / ".importlinter"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_distribution_is_under_contract() -> None:
    contracts = (ROOT / ".importlinter").read_text(encoding="utf-8")
    for init in ROOT.glob("*/**/tidemill/*/__init__.py"):
        assert f"tidemill.{init.parent.name}\n" in contracts


def test_the_language_of_the_services_stands_on_msgspec_and_the_standard_library_alone() -> None:
    allowed = {*sys.stdlib_module_names, "msgspec"}
    for file in python_files("shared"):
        for module in imported(ROOT / file):
            assert module.split(".")[0] in allowed or module.startswith("tidemill.shared"), f"{file} imports {module}"


@pytest.mark.parametrize("folder", [folder for folder in CODE if folder != "ee"])
def test_nothing_imports_the_enterprise_part(folder: str) -> None:
    for file in python_files(folder):
        for module in imported(ROOT / file):
            assert "ee" not in module.split("."), f"{file} imports {module}"


def imported(file: Path) -> Iterator[str]:
    """Return the names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
