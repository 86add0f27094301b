"""The table of states in Python and the trigger in the database say the same."""

import itertools
from pathlib import Path

import asyncpg
import pytest

from tests.support.queue import BAD_TRANSITION, Queue, a_job
from tidemill.chassis.migrate import migrations_folder
from tidemill.scheduler.domain.job import FOLLOWERS, State, may_follow
from tidemill.scheduler.domain.transitions import transitions_sql


def test_the_trigger_is_generated_from_the_table() -> None:
    written = Path(migrations_folder(), "queue", "transitions.sql").read_text(encoding="utf-8")
    assert written == transitions_sql(), "run: python -m tidemill.scheduler.domain.transitions > ...transitions.sql"


@pytest.mark.parametrize("state", list(State))
async def test_the_database_lets_a_job_go_exactly_where_the_table_does(queue: Queue, state: State) -> None:
    for following in State:
        if following is state:
            continue
        job = await queue.request(a_job())
        # As if it had been inserted there: the trigger guards what changes, not what is new.
        await queue.look.execute("ALTER TABLE queue.live_job DISABLE TRIGGER guard_transition")
        await queue.look.execute(_MOVE, job, state)
        await queue.look.execute("ALTER TABLE queue.live_job ENABLE TRIGGER guard_transition")
        if may_follow(state, following):
            await queue.look.execute(_MOVE, job, following)
        else:
            with pytest.raises(asyncpg.PostgresError, match=f"from {state} to {following}") as refused:
                await queue.look.execute(_MOVE, job, following)
            assert refused.value.sqlstate == BAD_TRANSITION


async def test_the_database_knows_the_same_states(queue: Queue) -> None:
    constraint = await queue.look.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = 'queue.live_job'::regclass AND pg_get_constraintdef(oid) LIKE '%suspended%'"
    )
    assert {state for state in State if f"'{state}'" in constraint} == set(State)


def test_what_is_final_has_no_followers_and_all_else_can_be_canceled() -> None:
    final = {state for state, followers in FOLLOWERS.items() if not followers}
    assert final == {State.SUCCESS, State.FAILURE, State.CANCELED, State.SKIPPED}
    for state, following in itertools.product(FOLLOWERS, State):
        if following is State.CANCELED:
            assert may_follow(state, following) == (state not in final)


_MOVE = """
    UPDATE queue.live_job SET state = $2, claim_key = CASE WHEN $2 = 'running' THEN gen_random_uuid() END WHERE id = $1
"""
