"""What every peer's program does; runs in the peer's own venv, so it needs the standard library alone.

    report(Order(), began, one=..., many=..., series=...)

A loop ends with its number of samples or when its time is over, whichever is first.
"""

import json
import os
import sys
import time
from collections.abc import Callable

LIGHT, HEAVY = 40, 10
PATIENCE, WARM_UP_PATIENCE = 30.0, 5.0  # seconds of one loop


def fib(n: int) -> int:
    """What light and heavy jobs calculate."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


class Order:
    """What the benchmark wants, from the environment."""

    def __init__(self) -> None:
        self.postgres = os.environ["BENCH_POSTGRES"]
        self.amqp = os.environ.get("BENCH_AMQP", "")
        self.home = os.environ["BENCH_HOME"]
        self.warm_ups = int(os.environ["BENCH_WARM_UPS"])
        self.samples = int(os.environ["BENCH_SAMPLES"])
        self.burst = int(os.environ["BENCH_BURST"])
        self.heavy = os.environ["BENCH_HEAVY"] == "1"


def report(
    order: Order,
    began: float,
    *,
    one: Callable[[], object],
    many: Callable[[int], object],
    series: Callable[[int, int], object],
) -> None:
    """Measure and print: `one` runs a no-op job, `many` so many at once, `series` so many times fib(n) in turn."""
    one()
    start = time.perf_counter() - began
    tell("first job done")
    loop(one, order.warm_ups, WARM_UP_PATIENCE)
    samples = loop(one, order.samples, PATIENCE)
    tell(f"{len(samples)} samples taken")
    burst = order.burst
    if order.burst * samples[len(samples) // 2] > 4 * PATIENCE:
        burst = max(10, order.burst // 10)
    many(min(20, burst))
    rate = burst / timed(lambda: many(burst))
    tell(f"burst of {burst} done")
    light = timed(lambda: series(LIGHT, 10))
    heavy = timed(lambda: series(HEAVY, 33)) if order.heavy else None
    print(
        json.dumps({"start": start, "one_job": samples, "jobs_per_second": rate, "light": light, "heavy": heavy}),
        flush=True,
    )


def loop(one: Callable[[], object], times: int, patience: float) -> list[float]:
    """Return how long each call took."""
    samples: list[float] = []
    until = time.perf_counter() + patience
    while len(samples) < times and (len(samples) < 2 or time.perf_counter() < until):
        samples.append(timed(one))
    return samples


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that some work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def tell(line: str) -> None:
    """Say how far we are."""
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()
