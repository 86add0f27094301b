"""What one execution is, what it may use, and how it ended."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

Reason = Literal[
    "returned",  # the function or script ended well
    "raised",  # it raised an exception, has no such function, or its arguments or result do not fit
    "exit_code",  # it ended with an exit code other than 0
    "killed",  # a signal ended it: out of memory, a segmentation fault
    "timeout",  # wall_time was over
    "canceled",  # the cancel event was set
    "result_limit",  # its result, or what it streamed, is larger than result_bytes
    "refused",  # it never started: this worker cannot run it
]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one job may use; `processes` counts for the whole job in namespaces, the other numbers for each process.

    `memory_bytes` is RLIMIT_DATA: memory that a process may write to, not the address space that runtimes reserve.
    `tmp_bytes` is the size of each of /tmp, /job and /dev/shm. Beyond `log_bytes` the log is cut and the job goes on.
    """

    wall_time: timedelta = timedelta(minutes=15)
    memory_bytes: int = 4 << 30
    processes: int = 512
    open_files: int = 4096
    file_bytes: int = 2 << 30
    tmp_bytes: int = 512 << 20
    log_bytes: int = 16 << 20
    result_bytes: int = 64 << 20


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One script to run: `args` is the JSON object as it was given, `env` all of the environment that the job gets."""

    job_id: str
    language: str
    code: str
    entrypoint: str = "main"
    args: msgspec.Raw = msgspec.Raw(b"{}")
    env: dict[str, str] = {}
    limits: Limits = Limits()


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended; `result` is valid JSON without NUL, and `{"error": {...}}` when it failed."""

    success: bool
    result: msgspec.Raw
    reason: Reason
    memory_peak_kb: int | None = None


class OrderLimits(msgspec.Struct, frozen=True):
    """The limits that the child itself puts into force."""

    memory_bytes: int
    processes: int
    open_files: int
    file_bytes: int
    result_bytes: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told, once, on its socket."""

    program: Literal["python", "bash"]
    code: str
    env: dict[str, str]
    limits: OrderLimits
    entrypoint: str = "main"
    args: msgspec.Raw = msgspec.Raw(b"{}")
    argv: list[str] = []


def order_limits(limits: Limits) -> OrderLimits:
    return msgspec.convert(limits, OrderLimits, from_attributes=True)
