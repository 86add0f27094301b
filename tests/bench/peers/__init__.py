"""Other engines on the same machine in the same run, each with its own default isolation of user code."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One engine: `with_<name>.py` is its program, `<name>.in` what it needs, `<name>.txt` that with hashes."""

    title: str
    setup: str = ""
    """What stands beside it, or in which of its ways it is used."""
    isolation: str
    what: str
    """What one job and jobs a second are for this engine."""
    amqp: bool = False
    limit: timedelta = timedelta(seconds=180)


PEERS: Mapping[str, Peer] = {
    "dbos": Peer(
        title="DBOS",
        isolation="none: threads of the caller's process",
        what="a workflow without steps",
    ),
    "celery": Peer(
        title="Celery",
        setup="RabbitMQ + Postgres",
        isolation="long-lived child processes, one a core",
        what="a task, its result polled every 2 ms in the Postgres backend",
        amqp=True,
    ),
    "procrastinate": Peer(
        title="Procrastinate",
        isolation="none: threads of one worker process",
        what="a task without a result, its state polled every 2 ms",
    ),
    "prefect": Peer(
        title="Prefect",
        setup="flow in the client",
        isolation="none: threads of the caller's process",
        what="one job: a flow run; the others: task runs within one flow",
        limit=timedelta(seconds=240),
    ),
}


class Raw(msgspec.Struct, frozen=True):
    """What a peer's program prints as its last line; seconds."""

    start: float
    one_job: Sequence[float]
    jobs_per_second: float
    light: float | None = None
    heavy: float | None = None
