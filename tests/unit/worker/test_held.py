"""What a worker holds, and what a beat's verdicts do to it."""

import asyncio
import uuid
from datetime import UTC, datetime

import pytest

from tidemill.worker.held import Halt, Held, Holding
from tidemill.worker.store.queue import Claim, Verdict


def a_claim(key: uuid.UUID) -> Claim:
    return Claim(
        key=key,
        id=uuid.uuid4(),
        workspace_id="w",
        kind="script",
        path="u/ann/x",
        hash="0011223344556677",
        language="python3",
        code=None,
        entrypoint=None,
        args="{}",
        tag="python3",
        envs=[],
        timeout_s=None,
        due_at=datetime(2026, 11, 23, tzinfo=UTC),
        parent_job=None,
        root_job=None,
        created_by="ann",
        permissioned_as="u/ann",
        permissions="{}",
        email="ann@example.com",
        claims=1,
        rounds=0,
        checkpointed=False,
        reply_to=None,
        traceparent=None,
        token="tmj_1_x",
        lock=None,
        step_id=None,
        root_flow=None,
        flow_path=None,
        shares_with=None,
    )


def a_run(held: Held) -> Holding:
    holding = held.open()
    holding.claim = a_claim(holding.key)
    return holding


@pytest.mark.parametrize(("verdict", "halt"), [(Verdict.DROP, Halt.DROPPED), (Verdict.CANCEL, Halt.CANCELED)])
def test_a_verdict_ends_a_run(verdict: Verdict, halt: Halt) -> None:
    held = Held()
    run = a_run(held)
    held.judge({run.key: verdict}, held.claimed())
    assert run.halt is halt
    assert run.stop.is_set()


def test_a_claim_that_is_still_asked_for_is_named_in_beats_and_not_dropped_by_them() -> None:
    held = Held()
    asking = held.open()
    assert held.keys() == [asking.key]
    held.judge({asking.key: Verdict.DROP}, held.claimed())
    assert asking.halt is None


def test_a_claim_that_was_answered_while_the_beat_was_on_its_way_is_not_dropped_by_it() -> None:
    held = Held()
    asking = held.open()
    claimed = held.claimed()
    asking.claim = a_claim(asking.key)
    held.judge({asking.key: Verdict.DROP}, claimed)
    assert asking.halt is None
    held.judge({asking.key: Verdict.DROP}, held.claimed())
    assert asking.halt is Halt.DROPPED


def test_a_dropped_claim_has_nothing_left_to_report_whatever_came_before() -> None:
    held = Held()
    run = a_run(held)
    seen = []
    for why in (Halt.CANCELED, Halt.DRAINED, Halt.DROPPED):
        run.end(why)
        seen.append(run.halt)
    assert seen == [Halt.CANCELED, Halt.CANCELED, Halt.DROPPED]


async def test_it_is_empty_when_the_last_claim_is_closed() -> None:
    held = Held()
    first, second = a_run(held), held.open()
    empty = asyncio.create_task(held.wait_until_empty())
    held.close(second)
    await asyncio.sleep(0)
    assert not empty.done()
    held.close(first)
    await asyncio.wait_for(empty, 1)
    assert held.executed == 1
