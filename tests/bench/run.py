"""One run of the benchmark as a value: what is written to latest.json and what table and plot are made from."""

from collections.abc import Sequence

import msgspec

from tests.bench.calibration import Calibration
from tests.bench.figures import Latency, Measured
from tests.bench.measurements.series import HEAVY_SERIES, LIGHT_SERIES
from tests.bench.peers.drive import Ran
from tests.support.installation import Shape


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured."""

    began_at: str
    samples: int
    calibration: Calibration
    measured: Sequence[Measured]
    peers: dict[str, Ran]

    def of(self, measurement: str, shape: Shape) -> Measured | None:
        """Return what a measurement of a shape gave."""
        return next((each for each in self.measured if (each.measurement, each.shape) == (measurement, shape)), None)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One engine beside the others: one of our shapes, or a peer."""

    title: str
    isolation: str
    ours: bool
    one_job: Latency | None = None
    jobs_per_second: float | None = None
    light: float | None = None
    heavy: float | None = None
    start: float | None = None
    missing: str | None = None


OUR_ISOLATION = "own user, pid, mount, ipc and uts namespaces for each job"


def side_by_side(run: Run) -> list[Row]:
    """Return our shapes and the peers in one form."""
    rows = []
    for shape in dict.fromkeys(each.shape for each in run.measured):
        figures = {
            name: one.find(figure)
            for name, measurement, figure in _OURS
            if (one := run.of(measurement, shape)) is not None
        }
        latency = [figures.get(name) for name in ("p50", "p95", "p99")]
        p50, p95, p99 = latency
        rows.append(
            Row(
                title=f"Tidemill, {shape}",
                isolation=OUR_ISOLATION,
                ours=True,
                one_job=None if p50 is None or p95 is None or p99 is None else Latency(p50, p95, p99, run.samples),
                jobs_per_second=figures.get("jobs_per_second"),
                light=figures.get("light"),
                heavy=figures.get("heavy"),
                start=figures.get("start"),
            )
        )
    rows.extend(
        Row(
            title=peer.title,
            isolation=peer.isolation,
            ours=False,
            one_job=peer.one_job,
            jobs_per_second=peer.jobs_per_second,
            light=peer.light,
            heavy=peer.heavy,
            start=peer.start,
            missing=peer.missing,
        )
        for peer in run.peers.values()
    )
    return rows


_OURS = (
    ("p50", "p1", "one job p50"),
    ("p95", "p1", "one job p95"),
    ("p99", "p1", "one job p99"),
    ("jobs_per_second", "p4", "isolated Python"),
    ("light", "series", LIGHT_SERIES),
    ("heavy", "series", HEAVY_SERIES),
    ("start", "p10", "make up until the first answer"),
)
