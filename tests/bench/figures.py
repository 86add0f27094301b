"""What a measurement gives: named figures, why others are missing, and tables that say where they come from."""

import statistics
from collections.abc import Iterable, Sequence

import msgspec

from tests.support.installation import Shape

TIMES = "\N{MULTIPLICATION SIGN}"


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50: float
    p95: float
    p99: float
    samples: int


class Table(msgspec.Struct, frozen=True):
    """Details behind a figure."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Figure(msgspec.Struct, frozen=True):
    """One measured value."""

    name: str
    value: float
    unit: str


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What one measurement of one shape gave."""

    measurement: str
    shape: Shape
    figures: Sequence[Figure] = ()
    missing: dict[str, str] = {}
    """Figures that could not be measured, and why."""
    tables: Sequence[Table] = ()

    def find(self, name: str) -> float | None:
        """Return the value of a figure, or None when there is none of this name."""
        return next((each.value for each in self.figures if each.name == name), None)


def spread(seconds: Iterable[float]) -> Latency:
    """Return the percentiles of samples in seconds; of a single one, that one thrice."""
    samples = sorted(seconds)
    if len(samples) == 1:
        samples *= 2
    cuts = statistics.quantiles(samples, n=100, method="inclusive")
    p50, p95, p99 = (round(cuts[at - 1] * 1000, 2) for at in (50, 95, 99))
    return Latency(p50, p95, p99, len(samples))


def latency_figures(what: str, latency: Latency) -> list[Figure]:
    """Return the three figures of a latency."""
    return [Figure(f"{what} {name}", getattr(latency, name), "ms") for name in ("p50", "p95", "p99")]


def number(value: float | None) -> str:
    """Return a number with the digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
