"""How much is measured: all sizes follow from the number of samples, so that a small run is small everywhere."""

from datetime import timedelta

import msgspec

ALL_SAMPLES = 500


class Sizes(msgspec.Struct, frozen=True):
    """The sizes of one run."""

    samples: int = ALL_SAMPLES

    @property
    def warm_ups(self) -> int:
        return min(50, self.samples)

    @property
    def rounds(self) -> int:
        """How often what takes seconds is done."""
        return 3 if self.samples >= ALL_SAMPLES else 1

    @property
    def burst(self) -> int:
        """How many jobs are submitted at once for jobs a second."""
        return 2 * self.samples

    @property
    def line(self) -> int:
        """How many jobs wait in a long line."""
        return 200 * self.samples

    @property
    def idle(self) -> timedelta:
        """How long an idle installation is watched."""
        return timedelta(seconds=30 if self.samples >= ALL_SAMPLES else 5)
