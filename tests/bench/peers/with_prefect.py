"""Prefect: a server process, flows and tasks in the process that calls them."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from closed_loop import Order, fib, report  # type: ignore[import-not-found]  # as a neighbour it is imported

PATIENCE = 90.0


def main() -> None:
    """Start a server on Postgres, then run flows against it."""
    began = time.perf_counter()
    order = Order()
    port = free_port()
    os.environ |= {
        "PREFECT_HOME": str(Path(order.home) / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": order.postgres.replace("postgresql://", "postgresql+asyncpg://", 1),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "DO_NOT_TRACK": "1",
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
    )
    try:
        until_healthy(f"http://127.0.0.1:{port}/api/health", server)
        measure(order, began)
    finally:
        server.terminate()
        server.wait(30)


def measure(order: Order, began: float) -> None:
    """Run flows and tasks in this process."""
    # After the environment has been set, which it reads when it is imported.
    from prefect import flow, task  # type: ignore[import-not-found]  # it lives in its own venv

    one = flow(nothing, name="one")
    noop = task(nothing, name="noop")
    calculate = task(fib, name="calculate")

    def burst(count: int) -> None:
        for future in [noop.submit() for _ in range(count)]:
            future.result()

    def sequence(count: int, n: int) -> None:
        for _ in range(count):
            calculate(n)

    report(order, began, one=one, many=flow(burst, name="many"), series=flow(sequence, name="series"))


def nothing() -> int:
    """The no-op flow and task."""
    return 1


def until_healthy(url: str, server: "subprocess.Popen[bytes]") -> None:
    """Return when the server answers."""
    until = time.perf_counter() + PATIENCE
    while time.perf_counter() < until:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("the server did not answer in time")


def free_port() -> int:
    """Return a port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
