"""One example of every message and its golden file: the bytes as they go over the wire.

`golden/<type>.json` is what this version says. `golden/<type>.<anything>.json` is what an earlier one said, and is read
for ever. `python -m tests.messages.golden` writes files that are missing and overwrites none: before a new optional
field changes the bytes, rename the present file (say to `job.ticket.v1.before-priority.json`) and write the new one.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from tidemill.shared.message import Message, wrap
from tidemill.shared.messages import (
    AuditRecorded,
    CancelJob,
    FlowReady,
    JobAnswered,
    JobProgressed,
    JobScheduled,
    JobTicket,
    WorkerAnnounced,
)
from tidemill.shared.messages.jobs import Progress

FOLDER = Path(__file__).parent / "golden"
MESSAGE_ID = "0197a3f0-0000-7000-8000-00000000000e"
SOURCE = "/tidemill/api"
TIME = datetime(2027, 1, 31, 12, 0, 0, 250_000, UTC)

JOB = UUID("0197a3f0-0000-7000-8000-000000000001")
RUN = UUID("0197a3f0-0000-4000-8000-000000000002")

EXAMPLES: tuple[Message, ...] = (
    JobTicket(job_id=JOB, tag="python3"),
    JobScheduled(job_id=JOB, due_at=datetime(2027, 2, 1, 6, 30, tzinfo=UTC)),
    FlowReady(flow_id=JOB),
    JobAnswered(job_id=JOB),
    JobProgressed(job_id=JOB, what=Progress.LOGGED),
    CancelJob(job_id=JOB, worker_run=RUN),
    WorkerAnnounced(worker_run=RUN, name="worker-1", tags=["python3", "bash"]),
    AuditRecorded(
        workspace_id="demo",
        at=datetime(2027, 1, 31, 11, 59, 59, tzinfo=UTC),
        username="ada",
        email="ada@example.com",
        operation="scripts.create",
        action_kind="Created",
        resource="u/ada/hello",
        parameters={"hash": "00000000deadbeef", "tags": ["a", "b"], "draft": False},
        span=str(JOB),
    ),
)


def wire(example: Message) -> bytes:
    """Return the bytes by which an example travels."""
    return wrap(example, SOURCE, message_id=MESSAGE_ID, now=TIME)


def present(kind: type[Message]) -> Path:
    """Return the golden file of what this version says."""
    return FOLDER / f"{kind.TYPE}.json"


def all_of(kind: type[Message]) -> Iterator[Path]:
    """Return the golden files of this version and of earlier ones."""
    yield from sorted(FOLDER.glob(f"{kind.TYPE}.json"))
    yield from sorted(FOLDER.glob(f"{kind.TYPE}.*.json"))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for one in EXAMPLES:
        if not present(type(one)).exists():
            present(type(one)).write_bytes(wire(one) + b"\n")
            print(f"wrote {present(type(one)).name}")
