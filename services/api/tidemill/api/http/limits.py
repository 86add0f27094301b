"""How often somebody may fail: counted in memory, by whatever tells one attacker from the next."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tidemill.chassis.clock import Clock

_REMEMBERED = 10_000


@dataclass
class _Failures:
    count: int
    until: datetime
    told: bool = False


class Attempts:
    """Failures by key; after `allowed` of them within `window`, nothing more until the window has passed."""

    def __init__(self, clock: Clock, *, allowed: int, window: timedelta) -> None:
        self._clock = clock
        self._allowed = allowed
        self._window = window
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()

    def wait_for(self, key: Hashable) -> timedelta | None:
        """Return how long this key has to wait, or None when it may try."""
        failures = self._failures.get(key)
        if failures is None:
            return None
        left = failures.until - self._clock.now()
        if left <= timedelta(0):
            del self._failures[key]
            return None
        return left if failures.count >= self._allowed else None

    def first_refusal(self, key: Hashable) -> bool:
        """Return whether this key has to wait and nobody has asked so since it must."""
        if self.wait_for(key) is None or self._failures[key].told:
            return False
        self._failures[key].told = True
        return True

    def begin(self, key: Hashable) -> None:
        """Count an attempt as failed before its outcome is known, so that many at once are counted too."""
        failures = self._failures.setdefault(key, _Failures(0, self._clock.now() + self._window))
        failures.count += 1
        self._failures.move_to_end(key)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def forgive(self, key: Hashable) -> None:
        """Take one attempt back."""
        failures = self._failures.get(key)
        if failures is not None:
            failures.count = max(0, failures.count - 1)

    def succeeded(self, key: Hashable) -> None:
        """Forget what failed before."""
        self._failures.pop(key, None)
