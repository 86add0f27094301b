"""Where locks go in the value of a flow."""

import json
from typing import Any

from tidemill.worker import flow_locks


def code(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "value": {"type": "rawscript", "content": name, "language": "python3", **more}}


def test_locks_are_filled_in_wherever_modules_stand_and_nothing_else_changes() -> None:
    loop = {"id": "b", "value": {"type": "forloopflow", "iterator": {"type": "static"}, "modules": [code("c")]}}
    case = {"expr": "true", "modules": [code("e")]}
    chosen = {"id": "d", "value": {"type": "branchone", "branches": [case], "default": [code("f")]}}
    every = {"id": "g", "value": {"type": "branchall", "branches": [{"modules": [code("h"), loop]}]}}
    value = {
        "modules": [code("a", lock="kept"), chosen, every, {"id": "i", "value": {"type": "identity"}}],
        "failure_module": code("failure"),
        "preprocessor_module": code("preprocessor"),
        "from_the_future": [1.5, None, "ü"],
    }
    locks = {name: f"lock of {name}" for name in ("c", "e", "f", "h", "failure", "preprocessor")}
    filled = json.loads(flow_locks.filled(json.dumps(value).encode(), locks))
    text = json.dumps(value)
    for name, lock in locks.items():
        text = text.replace(json.dumps(code(name)), json.dumps(code(name, lock=lock)))
    assert filled == json.loads(text)
