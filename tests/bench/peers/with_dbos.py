"""DBOS: durable workflows as a library, in the process that calls them."""

import time

from closed_loop import Order, fib, report  # type: ignore[import-not-found]  # as a neighbour it is imported
from dbos import DBOS  # type: ignore[import-not-found]  # it lives in its own venv

DBOS_LIMIT = 200  # workflows at once; each holds a thread


def main() -> None:
    """Run workflows by `start_workflow` and wait for their results."""
    began = time.perf_counter()
    order = Order()
    DBOS(config={"name": "bench", "system_database_url": order.postgres, "run_admin_server": False})
    noop = DBOS.workflow()(nothing)
    calculate = DBOS.workflow()(calculated)
    DBOS.launch()

    def many(count: int) -> None:
        for first in range(0, count, DBOS_LIMIT):
            handles = [DBOS.start_workflow(noop) for _ in range(min(DBOS_LIMIT, count - first))]
            for handle in handles:
                handle.get_result()

    def series(count: int, n: int) -> None:
        for _ in range(count):
            DBOS.start_workflow(calculate, n).get_result()

    try:
        report(order, began, one=lambda: DBOS.start_workflow(noop).get_result(), many=many, series=series)
    finally:
        DBOS.destroy()


def nothing() -> int:
    """The no-op workflow."""
    return 1


def calculated(n: int) -> int:
    """The light or heavy workflow."""
    return int(fib(n))


if __name__ == "__main__":
    main()
