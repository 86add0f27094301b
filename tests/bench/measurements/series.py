"""40 light and 10 heavy jobs, one after the other, each its own isolated job: the same loop that the peers run."""

import time

from tests.bench.calibration import FIB
from tests.bench.figures import TIMES, Figure, Measured
from tests.bench.progress import tell
from tests.bench.sizes import ALL_SAMPLES, Sizes
from tests.bench.subject import subject
from tests.support.installation import Shape

LIGHT, HEAVY = 40, 10
LIGHT_SERIES, HEAVY_SERIES = f"{LIGHT} {TIMES} fib(10)", f"{HEAVY} {TIMES} fib(33)"
PATH = "u/admin/bench_fib"
SCRIPT = FIB + "\ndef main(n: int):\n    return fib(n)\n"


async def measure(shape: Shape, sizes: Sizes) -> Measured:
    """Measure both series; in a small run the heavy one is left out."""
    figures = []
    missing = {}
    async with subject(shape) as it:
        await it.installation.save_script(PATH, SCRIPT)
        for _ in range(sizes.warm_ups):
            await it.call_and_wait(PATH, {"n": 1})
        began = time.perf_counter()
        for _ in range(LIGHT):
            await it.call_and_wait(PATH, {"n": 10})
        figures.append(Figure(LIGHT_SERIES, round(time.perf_counter() - began, 3), "s"))
        if sizes.samples < ALL_SAMPLES:
            missing[HEAVY_SERIES] = f"only with {ALL_SAMPLES} samples"
        else:
            tell(f"series {shape}: {HEAVY_SERIES}")
            began = time.perf_counter()
            for _ in range(HEAVY):
                await it.call_and_wait(PATH, {"n": 33})
            figures.append(Figure(HEAVY_SERIES, round(time.perf_counter() - began, 3), "s"))
    return Measured(measurement="series", shape=shape, figures=figures, missing=missing)
