"""One round of a workflow written as code: the SDK runs it until it needs what is not there yet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from . import encode
from .answer import Answer

SDK = "wmill.client"


def is_one(function: Callable[..., Any]) -> bool:
    """Tell whether the SDK has marked this as a workflow, and is one that can run it."""
    return getattr(function, "_is_workflow", False) is True and hasattr(sys.modules.get(SDK), "_run_workflow")


def run_round(function: Callable[..., Any], args: dict[str, Any], checkpoint: dict[str, Any] | None) -> Answer:
    """Return the workflow's result, or what it asks for before it can go on."""
    outcome = sys.modules[SDK]._run_workflow(function, checkpoint or {}, args)
    if outcome["type"] == "complete":
        return Answer(True, "returned", encode.to_json(outcome["result"]))
    return Answer(False, "suspended", encode.to_json(outcome))
