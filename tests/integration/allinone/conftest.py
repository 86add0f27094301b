"""What the tests of the launchers have in common."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import temporary_home


@pytest.fixture
def home() -> Iterator[Path]:
    """A data folder with a short name, removed at the end."""
    with temporary_home() as folder:
        yield folder
