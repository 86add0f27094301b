"""Flows in the queue, walked by the test as the scheduler walks them.

flow = await a_flow(queue, {"modules": [...]})
job = await start(queue, flow, 0, "a")
await end(queue, job, {"answer": 1})
await park(queue, flow, 1, "b", job, needed=2)
"""

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.queue import Queue, a_job
from tidemill.shared.ids import new_job_id

LONGEST_LIST = 1_000_000


def a_module(name: str, **options: Any) -> dict[str, Any]:
    """Return a step of one line of Bash."""
    return {"id": name, "value": {"type": "rawscript", "content": "echo", "language": "bash"}, **options}


async def a_flow(queue: Queue, value: Mapping[str, Any], **asked: Any) -> uuid.UUID:
    """Ask for a preview of a flow and return its id."""
    flow = {"kind": "flowpreview", "code": json.dumps(value), "language": "", "tag": "flow", **asked}
    return await queue.request(a_job(**flow))


async def a_flow_unheard(queue: Queue, value: Mapping[str, Any], **asked: Any) -> uuid.UUID:
    """The same where a scheduler runs: it does not hear of the flow before somebody says something of it."""
    flow = await a_flow(queue, value, due_in_ms=3_600_000, **asked)
    await queue.look.execute("UPDATE queue.live_job SET state = 'queued' WHERE id = $1", flow)
    return flow


async def advance(queue: Queue, flow: uuid.UUID, **changes: Any) -> None:
    """Write down what was decided on a flow."""
    version = await queue.look.fetchval("SELECT version FROM queue.live_job WHERE id = $1", flow)
    answer = await queue.scheduler.fetchval(
        "SELECT answer FROM queue.advance_flow($1, $2, $3, $4)",
        flow,
        version,
        json.dumps(changes, default=str),
        LONGEST_LIST,
    )
    assert answer == "done", answer


async def start(queue: Queue, flow: uuid.UUID, no: int, module: str, **job: Any) -> uuid.UUID:
    """Start the job of a flow's step and return its id."""
    job_id = new_job_id()
    asked = {
        "id": job_id, "kind": "script", "path": None, "language": "bash", "code": "echo", "code_hash": "x",
        "tag": "bash", "priority": 0, "envs": [], "step_id": module, "step_no": no, "args": {}, **job,
    }  # fmt: skip
    step = {"no": no, "module": module, "state": "started", "job_id": job_id, "since": datetime.now(UTC)}
    await advance(queue, flow, at_step=no, steps=[step], start=[asked])
    return job_id


async def end(queue: Queue, job_id: uuid.UUID, result: Any = None) -> None:
    """Run the job of a step as a worker does."""
    await queue.start_worker("bash")
    claim = await queue.claimed("bash")
    assert claim.job_id == job_id
    await queue.finish(claim, result=result)


async def park(
    queue: Queue,
    flow: uuid.UUID,
    no: int,
    module: str,
    after: uuid.UUID | None,
    *,
    needed: int = 1,
    until: timedelta = timedelta(minutes=30),
    conditions: Mapping[str, Any] | None = None,
) -> None:
    """Let a flow wait before a step until what has ended before is approved."""
    waits = {
        "no": no, "module": module, "state": "waiting", "job_id": after, "needed": needed,
        "until": datetime.now(UTC) + until, "conditions": conditions,
    }  # fmt: skip
    before = {"no": no - 1, "module": "before", "state": "success", "job_id": after}
    await advance(queue, flow, at_step=no, steps=[before, waits])


async def finish(queue: Queue, flow: uuid.UUID, **changes: Any) -> None:
    """End a flow well."""
    await advance(queue, flow, end={"outcome": "success", "result": 1}, **changes)
