"""The files of this repository, as the architecture tests read them."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = ROOT / "migrations"
GRANTS = Path(__file__).with_name("golden_grants.txt")
SCHEMA = MIGRATIONS / "SCHEMA.md"
ASYNCAPI = ROOT / "shared" / "asyncapi.yaml"
CODE = ("shared", "services", "deploy", "ee")
REGENERATE = "run: python -m tests.architecture.regenerate"


def python_files(*folders: str) -> Iterator[Path]:
    """Return every Python file below these folders, as paths from the root."""
    for folder in folders:
        yield from sorted(file.relative_to(ROOT) for file in (ROOT / folder).rglob("*.py"))
