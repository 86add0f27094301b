"""How long to wait before trying again: doubling, capped and jittered, so that many do not come back at once."""

from collections.abc import Iterator
from datetime import timedelta
from random import Random


def delays(first: timedelta, cap: timedelta, rng: Random) -> Iterator[timedelta]:
    """Yield pauses for ever: each is a random half-to-whole of `first` doubled once more, never above `cap`."""
    ceiling = min(first, cap)
    while True:
        yield ceiling * rng.uniform(0.5, 1.0)
        ceiling = min(ceiling * 2, cap)


def delay(attempt: int, first: timedelta, cap: timedelta, rng: Random) -> timedelta:
    """Return the pause after the `attempt`-th failure in a row, counted from 1."""
    # 2**30 times any sensible `first` is past every cap; beyond it timedelta would overflow.
    return min(first * (1 << min(attempt - 1, 30)), cap) * rng.uniform(0.5, 1.0)
