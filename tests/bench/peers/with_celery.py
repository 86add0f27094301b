"""Celery: tasks over RabbitMQ, results in Postgres, a worker with its default pool of child processes."""

import subprocess
import sys
import time
from pathlib import Path

from celery import Celery  # type: ignore[import-not-found]  # it lives in its own venv
from closed_loop import Order, fib, report  # type: ignore[import-not-found]  # as a neighbour it is imported

POLL = 0.002

order = Order()
app = Celery(
    "bench", broker=order.amqp, backend="db+" + order.postgres.replace("postgresql://", "postgresql+psycopg://", 1)
)


def nothing() -> int:
    """The no-op task."""
    return 1


def calculated(n: int) -> int:
    """The light or heavy task."""
    return int(fib(n))


noop = app.task(name="noop")(nothing)
calculate = app.task(name="calculate")(calculated)


def main() -> None:
    """Start a worker, call its tasks and wait for their results."""
    began = time.perf_counter()
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "with_celery", "worker", "--loglevel", "error"],
        cwd=Path(__file__).parent,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )

    def many(count: int) -> None:
        for result in [noop.delay() for _ in range(count)]:
            result.get(interval=POLL, timeout=60)

    def series(count: int, n: int) -> None:
        for _ in range(count):
            calculate.delay(n).get(interval=POLL, timeout=60)

    try:
        report(order, began, one=lambda: noop.delay().get(interval=POLL, timeout=60), many=many, series=series)
    finally:
        worker.terminate()
        worker.wait(30)


if __name__ == "__main__":
    main()
