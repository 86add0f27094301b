"""Procrastinate: tasks in Postgres, a worker process that listens and polls."""

import subprocess
import sys
import time
from pathlib import Path

import procrastinate  # type: ignore[import-not-found]  # it lives in its own venv
import psycopg
from closed_loop import Order, fib, report  # type: ignore[import-not-found]  # as a neighbour it is imported

POLL = 0.002
WORKER = ("-m", "procrastinate", "--app", "with_procrastinate.app", "worker", "--concurrency", "2")

order = Order()
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=order.postgres))


def nothing() -> None:
    """The no-op task."""


def calculated(n: int) -> None:
    """The light or heavy task."""
    fib(n)


noop = app.task(name="noop")(nothing)
calculate = app.task(name="calculate")(calculated)


def main() -> None:
    """Start a worker, defer tasks and look until they have succeeded."""
    began = time.perf_counter()
    with app.open(), psycopg.connect(order.postgres, autocommit=True) as looking:
        app.schema_manager.apply_schema()
        worker = subprocess.Popen(
            [sys.executable, *WORKER], cwd=Path(__file__).parent, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )

        def wait(first: int, count: int) -> None:
            while True:
                row = looking.execute(
                    "SELECT count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed')"
                    " FROM procrastinate_jobs WHERE id >= %s",
                    (first,),
                ).fetchone()
                if row is not None and row[1]:
                    raise RuntimeError("a task has failed")
                if row is not None and row[0] >= count:
                    return
                time.sleep(POLL)

        def many(count: int) -> None:
            wait(min(noop.defer() for _ in range(count)), count)

        def series(count: int, n: int) -> None:
            for _ in range(count):
                wait(calculate.defer(n=n), 1)

        try:
            report(order, began, one=lambda: wait(noop.defer(), 1), many=many, series=series)
        finally:
            worker.terminate()
            worker.wait(30)


if __name__ == "__main__":
    main()
