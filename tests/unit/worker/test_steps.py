"""The steps that a round may keep: how many, how large, and what becomes of one that is not kept."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tidemill.worker.rounds import Step
from tidemill.worker.sandbox.execution import Ending
from tidemill.worker.steps import MOST_STEPS, Steps
from tidemill.worker.store.workflows import Kept


class Keeping:
    """Steps that are kept in a list."""

    def __init__(self, answer: Kept = Kept.KEPT, most_bytes: int = 100, count: int = 0, size: int = 0) -> None:
        self.kept: list[Step] = []
        self.dropped = False
        self._answer = answer
        self.steps = Steps(self._store, self._drop, most_bytes, count, size)

    async def _store(self, step: Step) -> Kept:
        self.kept.append(step)
        return self._answer

    def _drop(self) -> None:
        self.dropped = True

    async def keep(self, key: str = "a", result: Any = 1, **more: Any) -> Ending | None:
        return await self.steps.keep(json.dumps({"key": key, "result": result, **more}).encode())


def message(ending: Ending | None) -> str:
    assert ending is not None
    assert not ending.success
    error: dict[str, str] = json.loads(bytes(ending.result))["error"]
    assert error["name"] == "WorkflowError"
    return error["message"]


async def test_a_step_is_stored_as_it_was_said() -> None:
    keeping = Keeping()
    assert await keeping.keep("a", {"x": [1]}, started_at="2026-01-02T03:04:05+00:00", duration_ms=7) is None
    (step,) = keeping.kept
    assert step == Step("a", step.result, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), 7)
    assert json.loads(bytes(step.result)) == {"x": [1]}


async def test_what_no_database_can_hold_is_replaced() -> None:
    keeping = Keeping()
    assert await keeping.keep(result="a\0b") is None
    assert msgspec.json.decode(keeping.kept[0].result) == "a\ufffdb"


@pytest.mark.parametrize(
    "said",
    [
        b"1",
        b"{}",
        b'{"key":"","result":1}',
        b'{"key":"a"}',
        b'{"key":"a","result":NaN}',
        b'{"key":"a","result":',
        b"\xff",
    ],
)
async def test_what_makes_no_sense_ends_the_run(said: bytes) -> None:
    keeping = Keeping()
    assert "cannot be kept" in message(await keeping.steps.keep(said))
    assert keeping.kept == []


async def test_steps_have_a_number_that_earlier_rounds_count_in() -> None:
    keeping = Keeping(most_bytes=1 << 20, count=MOST_STEPS - 1)
    assert await keeping.keep() is None
    assert f"may run {MOST_STEPS} steps" in message(await keeping.keep("b"))
    assert len(keeping.kept) == 1


async def test_steps_have_a_size_together() -> None:
    keeping = Keeping(most_bytes=10, size=5)
    assert await keeping.keep(result="abc") is None
    assert "may come to 10 bytes together" in message(await keeping.keep("b"))
    assert len(keeping.kept) == 1


async def test_a_key_of_another_kind_of_step_ends_the_run() -> None:
    keeping = Keeping(Kept.TAKEN)
    assert "'a' is that of another kind of step" in message(await keeping.keep())
    assert not keeping.dropped


async def test_a_claim_that_is_over_is_dropped() -> None:
    keeping = Keeping(Kept.OVER)
    ending = await keeping.keep()
    assert ending is not None
    assert ending.reason == "canceled"
    assert keeping.dropped
