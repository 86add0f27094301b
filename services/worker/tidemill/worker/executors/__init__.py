"""One file a language: each says how an execution becomes the order that a sandboxed child carries out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from tidemill.worker.executors import bash, python
from tidemill.worker.sandbox.execution import Execution, Order


class Executor(Protocol):
    """A language: a module with this one function."""

    def order(self, execution: Execution) -> Order:
        """Return what the child is told to do."""


EXECUTORS: Mapping[str, Executor] = {
    "python3": python,
    "bash": bash,
}
