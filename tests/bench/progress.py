"""Say on standard error how far a long run has come."""

import sys
import time

_BEGAN = time.monotonic()


def tell(line: str) -> None:
    """Show one line with the seconds since the start."""
    sys.stderr.write(f"[{time.monotonic() - _BEGAN:4.0f} s] {line}\n")
    sys.stderr.flush()


class Steps:
    """Tells about each tenth of a long loop, but not more often than every two seconds."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._told = time.monotonic()

    def done(self, count: int) -> None:
        """Note that so many are done."""
        if time.monotonic() - self._told >= 2 or count == self._total:
            self._told = time.monotonic()
            tell(f"{self._what}: {count}/{self._total}")
