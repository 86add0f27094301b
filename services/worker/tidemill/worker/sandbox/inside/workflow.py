"""One round of a workflow written as code: the SDK runs it until it needs what is not there yet.

A step that runs inside the round is kept before the next one begins. The SDK has a way of its own to do that, over
HTTP, which costs more than all the rest of a round; it is given the worker to speak to instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import encode
from .answer import Answer

SDK = "wmill.client"
CLIENT = "_inline_http_client"

Keep = Callable[[bytes], None]


class Kept:
    """The answer that the SDK expects: there is nothing to say but that all is well."""

    headers: dict[str, str] = {}  # noqa: RUF012 (nobody writes to it)

    def raise_for_status(self) -> None:
        """Say that all is well."""


class StepKeeper:
    """Stands where the SDK has its HTTP client for the steps inside a round."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep

    async def post(self, _url: str, *, content: str) -> Kept:
        """Have a step kept. Nothing else may go on meanwhile, or it could be done without this being known."""
        step = json.loads(content)
        document = encode.to_json(step)
        if json.loads(document) != step:
            # The SDK then ends the round, so that this one sees what all later ones do.
            raise ValueError("what the step has come to can only be kept in another form")
        self._keep(document)
        return Kept()

    async def aclose(self) -> None:
        """Have nothing to close."""


def is_one(function: Callable[..., Any]) -> bool:
    """Tell whether the SDK has marked this as a workflow, and is one that can run it."""
    return getattr(function, "_is_workflow", False) is True and hasattr(sys.modules.get(SDK), "_run_workflow")


def run_round(
    function: Callable[..., Any], args: dict[str, Any], checkpoint: dict[str, Any] | None, keep: Keep
) -> Answer:
    """Return the workflow's result, or what it asks for before it can go on."""
    sdk: Any = sys.modules[SDK]
    with _steps_kept_by(keep, sdk):
        outcome = sdk._run_workflow(function, checkpoint or {}, args)
    if outcome["type"] == "complete":
        return Answer(True, "returned", encode.to_json(outcome["result"]))
    return Answer(False, "suspended", encode.to_json(outcome))


@contextmanager
def _steps_kept_by(keep: Keep, sdk: Any) -> Iterator[None]:
    """Give the SDK another to speak to; one that has no place for it goes on as it would."""
    context = sdk.WorkflowCtx

    def with_keeper(checkpoint: dict[str, Any]) -> Any:
        made = context(checkpoint)
        if hasattr(made, CLIENT):
            setattr(made, CLIENT, StepKeeper(keep))
        return made

    sdk.WorkflowCtx = with_keeper
    try:
        yield
    finally:
        sdk.WorkflowCtx = context
