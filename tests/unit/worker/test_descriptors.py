import resource
from collections.abc import Iterator

import pytest

from tidemill.worker import descriptors


@pytest.fixture
def few() -> Iterator[int]:
    """Allow this process few descriptors for one test; return how many it may take at most."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_worker_takes_the_descriptors_that_it_is_allowed(few: int) -> None:
    descriptors.raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(few, 1 << 16) if few > 0 else 1 << 16, few)
