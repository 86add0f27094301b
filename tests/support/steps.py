"""Flows as the queue sees them, walked by hand.

flow = await a_flow(queue)
step = await start(queue, flow, a_step())
await queue.finish(await queue.claimed())
await end(queue, flow)
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.queue import Queue, a_job
from tidemill.shared.ids import new_job_id

Step = dict[str, Any]


async def a_flow(queue: Queue, **changes: Any) -> uuid.UUID:
    """Ask for a flow and return its id."""
    return await queue.request(a_job(**{"kind": "flow", "tag": "flow", "path": "f/folder/flow", **changes}))


def a_step(**changes: Any) -> Step:
    """Return a request for the first step of a flow: code that stands in it, with whatever the test cares about."""
    code = changes.get("code", "def main(): pass")
    asked: Step = {
        "id": new_job_id(),
        "kind": "flowscript",
        "language": "python3",
        "code": code,
        "code_hash": f"hash of {code}",
        "tag": "python3",
        "step_id": "a",
        "step_no": 0,
        "step_attempt": 0,
        "args": {},
    }
    return asked | changes


async def advance(queue: Queue, flow: uuid.UUID, **changes: Any) -> Sequence[Mapping[str, Any]]:
    """Write down what was decided on a flow and return what was said."""
    version = await queue.look.fetchval("SELECT version FROM queue.live_job WHERE id = $1", flow)
    row = await queue.scheduler.fetchrow(
        "SELECT * FROM queue.advance_flow($1, $2, $3, 1000000)", flow, version, json.dumps(changes, default=str)
    )
    assert row is not None
    assert row["answer"] == "done"
    said: list[Mapping[str, Any]] = json.loads(row["said"])
    return said


async def start(queue: Queue, flow: uuid.UUID, step: Step) -> uuid.UUID:
    """Start one job of a flow at its step and return its id."""
    row = {"no": step["step_no"], "module": step["step_id"], "state": "started", "job_id": step["id"]}
    await advance(queue, flow, at_step=step["step_no"], steps=[row], start=[step])
    return uuid.UUID(str(step["id"]))


async def end(queue: Queue, flow: uuid.UUID, outcome: str = "success", **how: Any) -> None:
    """End a flow."""
    await advance(queue, flow, end={"outcome": outcome, **how})
