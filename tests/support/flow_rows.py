"""Flows whose steps the test itself decides on; their rows come from the queue's own functions, as the scheduler's do.

flow_id = await a_flow(queue, {"modules": [...]})
job = a_step("a", 0)
await advance(queue, flow_id, at_step=0, steps=[row(job)], start=[job])
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.queue import Queue, a_job
from tidemill.shared.ids import new_job_id

LONGEST = 1_000_000


def code(module: str, **more: Any) -> dict[str, Any]:
    """Return a module of code."""
    value = {"type": "rawscript", "content": "", "language": "python3", "input_transforms": {}}
    return {"id": module, "value": value, **more}


def container(module: str, kind: str, **value: Any) -> dict[str, Any]:
    """Return a loop or branches."""
    return {"id": module, "value": {"type": kind, **value}}


async def a_flow(queue: Queue, value: Mapping[str, Any], **changes: Any) -> uuid.UUID:
    """Ask for a flow that comes with the request and return its id."""
    asked = a_job(kind="flowpreview", language="", tag="flow", code=json.dumps(value))
    return await queue.request(asked | changes)


def a_step(module: str, no: int, **changes: Any) -> dict[str, Any]:
    """Return a job of a step, to be started."""
    new = {"id": str(new_job_id()), "kind": "flowscript", "language": "python3", "tag": "python3", "step_attempt": 0}
    return {**new, "step_id": module, "step_no": no} | changes


def row(job: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the row of a step that has this one job."""
    return {"no": job["step_no"], "module": job["step_id"], "state": "started", "job_id": job["id"], **changes}


async def advance(queue: Queue, flow_id: uuid.UUID, **changes: Any) -> None:
    """Write down what was decided on a flow as it stands at this moment."""
    version = await queue.look.fetchval("SELECT version FROM queue.live_job WHERE id = $1", flow_id)
    answer = await queue.scheduler.fetchval(
        "SELECT answer FROM queue.advance_flow($1, $2, $3, $4)", flow_id, version, json.dumps(changes), LONGEST
    )
    assert answer == "done"


async def begin(queue: Queue, flow_id: uuid.UUID, module: str, no: int = 0, **changes: Any) -> dict[str, Any]:
    """Start the one job of a step and return it."""
    job = a_step(module, no, **changes)
    await advance(queue, flow_id, at_step=no, steps=[row(job)], start=[job])
    return job


async def begin_loop(
    queue: Queue, flow_id: uuid.UUID, module: str, count: int, no: int = 0, *, total: int | None = None, **changes: Any
) -> Sequence[dict[str, Any]]:
    """Start so many children of a loop and return their jobs."""
    jobs = [a_step(module, no, step_index=index, **changes) for index in range(count)]
    loop = {"no": no, "module": module, "state": "started", "total": total, "started": count}
    await advance(queue, flow_id, at_step=no, steps=[loop], start=jobs)
    return jobs


async def park(
    queue: Queue, flow_id: uuid.UUID, behind: Mapping[str, Any], module: str, *, needed: int = 1, until: str
) -> None:
    """Let a flow wait for approvals behind a step whose job has ended, before another one."""
    no = behind["step_no"] + 1
    waiting = {"no": no, "module": module, "state": "waiting", "job_id": behind["id"], "needed": needed, "until": until}
    await advance(queue, flow_id, at_step=no, steps=[row(behind, state="success"), waiting], wake_at=until)
