"""What one execution is, what it may use, and how it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Literal

import msgspec

Reason = Literal[
    "returned",  # the function or script ended well
    "raised",  # it raised an exception, has no such function, or its arguments or result do not fit
    "exit_code",  # it ended with an exit code other than 0
    "killed",  # a signal ended it: a segmentation fault, its own doing
    "memory",  # it needed more memory than it may have
    "processes",  # it wanted more processes than it may have
    "files",  # it opened or made more files than it may have
    "disk",  # its files are larger than they may be, one of them or all together
    "output",  # it wrote more output than is listened to
    "timeout",  # wall_time was over
    "canceled",  # the cancel event was set
    "result_limit",  # its result, or what it streamed, is larger than result_bytes
    "suspended",  # a workflow's round that is not its end: its result says what it asks for
    "refused",  # it never started: this worker cannot run it
]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one job may use.

    `memory_bytes` counts for the whole job, its files in /tmp and /job included, where there are control groups, and
    for each process everywhere: as RLIMIT_DATA, what it may write to, not the address space that runtimes reserve.
    `processes` counts for the whole job in namespaces or control groups, `cpu_percent` (100 is one core) in groups.
    `tmp_bytes` is the size of each of /tmp, /job and /dev/shm. Beyond `log_bytes` the log is cut and the job goes on,
    until it has written `output_bytes` in all.
    """

    wall_time: timedelta = timedelta(minutes=15)
    memory_bytes: int = 4 << 30
    processes: int = 512
    cpu_percent: int | None = None
    open_files: int = 4096
    file_bytes: int = 2 << 30
    tmp_bytes: int = 512 << 20
    log_bytes: int = 16 << 20
    output_bytes: int = 1 << 30
    result_bytes: int = 64 << 20


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is born into, before it is known which job it gets; jobs of equal room may have each other's."""

    tmp_bytes: int = 512 << 20
    memory_bytes: int = 4 << 30
    processes: int = 512
    cpu_percent: int | None = None


def room(limits: Limits) -> Room:
    return msgspec.convert(limits, Room, from_attributes=True)


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One script to run: `args` is the JSON object as it was given, `env` all of the environment that the job gets."""

    job_id: str
    language: str
    code: str
    entrypoint: str = "main"
    args: msgspec.Raw = msgspec.Raw(b"{}")
    env: dict[str, str] = {}
    limits: Limits = Limits()
    checkpoint: msgspec.Raw | None = None  # what is known of a workflow's steps
    warm: str | None = None  # jobs for which this is equal may have the same process, one after the other


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How it ended; `result` is valid JSON without NUL, and `{"error": {...}}` when it failed."""

    success: bool
    result: msgspec.Raw
    reason: Reason
    memory_peak_kb: int | None = None


KeepStep = Callable[[bytes], Awaitable[Ending | None]]
"""Keeps a step of a workflow, as JSON for which nobody vouches; an ending says that the job may not go on."""


class OrderLimits(msgspec.Struct, frozen=True):
    """The limits that the child itself puts into force; `processes` is None where a control group counts them."""

    memory_bytes: int
    processes: int | None
    open_files: int
    file_bytes: int
    result_bytes: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told on its socket: once, or for each job of a warm one."""

    program: Literal["python", "bash"]
    code: str
    env: dict[str, str]
    limits: OrderLimits
    entrypoint: str = "main"
    args: msgspec.Raw = msgspec.Raw(b"{}")
    argv: list[str] = []
    checkpoint: msgspec.Raw | None = None
    warm: bool = False  # clear up after the answer and wait for the next order


def order_limits(limits: Limits) -> OrderLimits:
    return msgspec.convert(limits, OrderLimits, from_attributes=True)
