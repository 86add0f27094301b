"""Measure Tidemill and its peers side by side on this machine, and say which goals are met.

    make bench                                          everything: both shapes, all peers, 500 samples; ten minutes
    make bench ONLY=p1,p4 SHAPE=all-in-one PEERS=none SAMPLES=100

A whole run replaces tests/bench/results/; a part of one goes to tests/bench/results/local/, which is not committed.
"""

import argparse
import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from tests.bench import report
from tests.bench.calibration import calibrate
from tests.bench.figures import Measured
from tests.bench.measurements import MEASUREMENTS
from tests.bench.peers import PEERS
from tests.bench.peers.drive import run_peers
from tests.bench.progress import tell
from tests.bench.run import Run
from tests.bench.sizes import ALL_SAMPLES, Sizes
from tests.support.installation import SHAPES, Shape
from tests.support.servers import postgres_server

RESULTS = Path(__file__).parent / "results"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    only: Sequence[str]
    shapes: Sequence[Shape]
    peers: Sequence[str]
    sizes: Sizes
    results: Path | None

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return (
            list(self.only) == list(MEASUREMENTS)
            and list(self.shapes) == list(SHAPES)
            and list(self.peers) == list(PEERS)
            and self.sizes.samples >= ALL_SAMPLES
        )


async def measure(plan: Plan) -> Run:
    """Carry out the plan; a measurement that fails is reported as missing and the others go on."""
    began = datetime.now(UTC)
    async with postgres_server() as postgres:
        calibration = await calibrate(plan.sizes, postgres)
        measured = [await one(name, shape, plan.sizes) for shape in plan.shapes for name in plan.only]
        peers = await run_peers(plan.peers, plan.sizes, postgres)
    return Run(
        began_at=began.isoformat(timespec="seconds"),
        samples=plan.sizes.samples,
        calibration=calibration,
        measured=measured,
        peers=peers,
    )


async def one(name: str, shape: Shape, sizes: Sizes) -> Measured:
    """Take one measurement of one shape."""
    words, take = MEASUREMENTS[name]
    tell(f"{name} {shape}: {words}")
    try:
        return await take(shape, sizes)
    except Exception as error:
        tell(f"{name} {shape} failed: {type(error).__name__}: {error}")
        reason = f"failed: {type(error).__name__}: {str(error)[:200]}"
        return Measured(measurement=name, shape=shape, missing={"everything": reason})


def main(arguments: Sequence[str]) -> int:
    """Measure, print the table and keep it; the exit code tells whether a measurement failed, not how it came out."""
    plan = read(arguments)
    run = asyncio.run(measure(plan))
    folder = plan.results or (RESULTS if plan.is_whole else RESULTS / "local")
    sys.stdout.write(report.write(run, folder))
    tell(f"written to {folder}")
    return int(any("everything" in each.missing for each in run.measured))


def read(arguments: Sequence[str]) -> Plan:
    """Return what the command line asks for."""
    listed = "\n".join(f"  {name:8} {words}" for name, (words, _) in MEASUREMENTS.items())
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog=f"measurements:\n{listed}\n\npeers: {', '.join(PEERS)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="all", help="measurements, separated by commas; none: peers alone")
    parser.add_argument("--shape", default="all", help=f"{', '.join(SHAPES)} or all")
    parser.add_argument("--peers", default="all", help="peers, separated by commas, all or none")
    parser.add_argument("--samples", type=positive, default=ALL_SAMPLES, help="all sizes follow from it (%(default)s)")
    parser.add_argument("--results", type=Path, help="write to this folder instead")
    given = parser.parse_args(arguments)
    chosen = chooser(parser)
    return Plan(
        only=chosen("--only", given.only, MEASUREMENTS),
        shapes=[shape for shape in SHAPES if shape in chosen("--shape", given.shape, SHAPES)],
        peers=chosen("--peers", given.peers, PEERS),
        sizes=Sizes(samples=given.samples),
        results=given.results,
    )


def chooser(parser: argparse.ArgumentParser) -> Callable[[str, str, Collection[str]], list[str]]:
    """Return what reads a list of names and ends with a helpful line when one is unknown."""

    def chosen(option: str, given: str, known: Collection[str]) -> list[str]:
        if given == "none":
            return []
        names = list(known) if given == "all" else [name.strip() for name in given.split(",")]
        for name in names:
            if name not in known:
                parser.error(f"{option}: there is no {name!r}; known are {', '.join(known)}, all and none")
        return names

    return chosen


def positive(text: str) -> int:
    """Return a number that is at least one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
