"""One file a measurement; each takes a shape and sizes and starts what it measures."""

from collections.abc import Awaitable, Callable, Mapping

from tests.bench.figures import Measured
from tests.bench.measurements import (
    flows,
    p1_latency,
    p4_throughput,
    p5_rescue,
    p7_loop,
    p8_idle,
    p9_disk,
    p10_cold_start,
    p11_long_line,
    series,
    stages,
)
from tests.bench.sizes import Sizes
from tests.support.installation import Shape

MEASUREMENTS: Mapping[str, tuple[str, Callable[[Shape, Sizes], Awaitable[Measured]]]] = {
    "p1": ("webhook → isolated, sandboxed Python job → answer", p1_latency.measure),
    "stages": ("where the milliseconds of P1 go, by its spans", stages.measure),
    "series": ("40 light and 10 heavy jobs, one after the other", series.measure),
    "p2": ("a flow of 40 light Python steps, each its own job", flows.measure_forty),
    "p3": ("three steps: as jobs of a flow, and as code inside one job", flows.measure_three),
    "p4": ("jobs a second, submitted over HTTP, all persisted", p4_throughput.measure),
    "p5": ("worker killed → its job runs elsewhere", p5_rescue.measure),
    "p7": ("a long parallel loop of no-ops", p7_loop.measure),
    "p8": ("an idle installation", p8_idle.measure),
    "p9": ("disk for each finished small job", p9_disk.measure),
    "p10": ("`make up` with everything downloaded → first job answered", p10_cold_start.measure),
    "p11": ("a long line of queued jobs against an empty one", p11_long_line.measure),
}
"""What there is: its name on the command line, what it is in words, and what does it."""
