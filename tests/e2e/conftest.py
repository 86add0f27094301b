"""A running Tidemill of each shape for a whole module, started by the command that a new user types."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support import cli
from tests.support.cli import NotToBeHad
from tests.support.installation import SHAPES, Installation, Shape, installation
from tests.support.wheels import only_from, wheels_of


@pytest.fixture(scope="session")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels with the unmodified `wmill` package, for scripts that import it."""
    folder = tmp_path_factory.mktemp("sdk")
    wheels_of(folder, "wmill")
    return folder


@pytest.fixture(scope="session")
def wmill() -> Sequence[str]:
    """How the unmodified `wmill` command is started; without it, the tests that want it are left out."""
    try:
        return cli.program()
    except NotToBeHad as missing:
        pytest.skip(f"no wmill command: {missing}")


@pytest_asyncio.fixture(scope="module", params=SHAPES)
async def tidemill(request: pytest.FixtureRequest, sdk: Path) -> AsyncIterator[Installation]:
    shape: Shape = request.param
    async with installation(shape, only_from(sdk)) as running:
        yield running
