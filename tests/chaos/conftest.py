"""One installation of each shape for all cases, and what they measured at the end of the run."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.chaos.site import FINDINGS, RECOVERIES, Site
from tests.support.installation import SHAPES, Shape
from tests.support.servers import temporary_home
from tidemill.allinone.rabbitmq import RabbitMqNotFound


@pytest_asyncio.fixture(scope="package", params=SHAPES)
async def site(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """A running installation that may be hurt."""
    shape: Shape = request.param
    with temporary_home() as home:
        try:
            it = Site(shape, home)
        except RabbitMqNotFound as missing:
            pytest.skip(str(missing))
        try:
            await it.open()
            yield it
        finally:
            await it.close()


@pytest.fixture(autouse=True)
def said(site: Site) -> Iterator[None]:
    """Show with a case that failed what the installation has said meanwhile."""
    before = len(site.tidemill.output)
    yield
    print("\n".join(site.tidemill.output[before:]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long it took until the installation worked again after each fault."""
    if RECOVERIES or FINDINGS:
        terminalreporter.section("faults")
        for shape, fault, seconds in RECOVERIES:
            terminalreporter.line(f"{shape:11}  {seconds:5.1f} s until a new job had run: {fault}")
        for finding in FINDINGS:
            terminalreporter.line(finding)
