"""Asking for a job: its row, its place, its ticket, and what is refused."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.support.queue import NO_PARENT, ROOT_CANCELED, TAKEN, Queue, a_job, an_audit_event
from tidemill.shared.catalog import Service
from tidemill.shared.ids import born_at, new_job_id


async def test_a_job_without_a_date_or_a_limit_is_queued_and_gets_a_ticket(queue: Queue) -> None:
    asked = a_job(tag="bash")
    state, said = await queue.ask(asked)
    assert state == "queued"
    assert [(each["exchange"], each["key"]) for each in said] == [("tidemill.jobs", "bash")]
    assert json.loads(said[0]["body"])["data"] == {"job_id": str(asked["id"]), "tag": "bash"}


async def test_what_is_said_is_a_cloud_event_that_also_lies_in_the_outbox(queue: Queue) -> None:
    _, said = await queue.ask(a_job(traceparent="00-abc-def-01"))
    (row,) = await queue.outbox()
    event = json.loads(row["body"])
    assert {name: event[name] for name in ("specversion", "type", "source", "datacontenttype")} == {
        "specversion": "1.0",
        "type": "job.ticket.v1",
        "source": "/tidemill/api",
        "datacontenttype": "application/json",
    }
    assert event["id"] == str(row["message_id"]) == said[0]["message_id"]
    assert (row["id"], row["body"], row["traceparent"]) == (said[0]["id"], said[0]["body"], "00-abc-def-01")


async def test_what_else_is_to_be_said_is_said_in_the_same_transaction(queue: Queue) -> None:
    _, said = await queue.ask(a_job(), also=[an_audit_event("jobs.run")])
    assert [each["key"] for each in said] == ["python3", "audit.jobs.run"]


async def test_the_arguments_come_back_letter_by_letter(queue: Queue) -> None:
    text = '{"b": 1.0, "a":1e3,  "a": [] }'
    await queue.api.execute("SELECT queue.request_job($1, $2, NULL)", json.dumps(a_job(), default=str), text)
    assert (await queue.claimed()).row["args"] == text


async def test_a_job_for_later_waits_for_its_time_and_wakes_the_scheduler(queue: Queue) -> None:
    state, said = await queue.ask(a_job(due_in_ms=60_000))
    assert state == "scheduled"
    assert [each["key"] for each in said] == ["job.scheduled"]
    assert await queue.claim() is None


async def test_an_absolute_date_wins_over_a_delay(queue: Queue) -> None:
    due = datetime(2050, 1, 1, tzinfo=UTC)
    job = await queue.request(a_job(due_at=due, due_in_ms=1))
    assert (await queue.live(job))["due_at"] == due


async def test_a_date_in_the_past_is_now(queue: Queue) -> None:
    state, _ = await queue.ask(a_job(due_at=datetime(2020, 1, 1, tzinfo=UTC)))
    assert state == "queued"


async def test_a_minted_id_tells_where_its_rows_lie(queue: Queue) -> None:
    job = await queue.request(a_job())
    row = await queue.job(job)
    assert abs(row["born"] - born_at(job)) < timedelta(milliseconds=1)
    assert await queue.look.fetchval("SELECT count(*) FROM queue.displaced_job") == 0


@pytest.mark.parametrize(
    "chosen",
    [
        uuid.uuid1(),
        uuid.uuid3(uuid.NAMESPACE_DNS, "tidemill"),
        uuid.uuid4(),
        uuid.uuid5(uuid.NAMESPACE_DNS, "tidemill"),
        new_job_id(),
        uuid.UUID(int=0),
        uuid.UUID(int=2**128 - 1),
        uuid.UUID("01000000-0000-7000-8000-000000000000"),
    ],
    ids=["v1", "v3", "v4", "v5", "v7", "nil", "max", "v7 of long ago"],
)
async def test_a_caller_may_choose_an_id_of_any_version(queue: Queue, chosen: uuid.UUID) -> None:
    asked = a_job(id=chosen, chosen_id=True)
    await queue.request(asked)
    claim = await queue.claimed()
    assert claim.job_id == chosen
    assert await queue.append_log(claim, 0, "hello")
    assert await queue.finish(claim, result="there") == "done"
    assert await queue.finish(claim) == "already_done"
    row = await queue.job(chosen)
    assert (row["state"], row["result"]) == ("success", '"there"')
    assert datetime.now(UTC) - row["born"] < timedelta(minutes=1)


@pytest.mark.parametrize("first_chosen", [True, False])
@pytest.mark.parametrize("finished", [True, False])
async def test_an_id_can_be_chosen_once(queue: Queue, first_chosen: bool, finished: bool) -> None:
    asked = a_job(chosen_id=first_chosen)
    await queue.request(asked)
    if finished:
        await queue.finish(await queue.claimed())
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.request(a_job(id=asked["id"], chosen_id=True))
    assert refused.value.sqlstate == TAKEN


@pytest.mark.parametrize("finished", [True, False])
async def test_a_request_whose_answer_was_lost_says_on_repetition_that_it_was_done(
    queue: Queue, finished: bool
) -> None:
    asked = a_job()
    await queue.request(asked)
    if finished:
        await queue.finish(await queue.claimed())
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.request(asked)
    assert refused.value.sqlstate == TAKEN
    assert await queue.look.fetchval("SELECT count(*) FROM queue.job") == 1


async def test_of_many_who_choose_the_same_id_at_once_one_gets_it(queue: Queue) -> None:
    chosen = uuid.uuid4()
    answers = await asyncio.gather(
        *(queue.request(a_job(id=chosen, chosen_id=True)) for _ in range(8)), return_exceptions=True
    )
    refused = [each for each in answers if isinstance(each, asyncpg.PostgresError)]
    assert len(answers) - len(refused) == 1
    assert {each.sqlstate for each in refused} == {TAKEN}


async def test_a_refused_request_leaves_nothing_behind(queue: Queue) -> None:
    asked = a_job(id=uuid.uuid4(), chosen_id=True, parent_job=uuid.uuid4())
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.request(asked, also=[an_audit_event()])
    assert refused.value.sqlstate == NO_PARENT
    assert await queue.outbox() == []
    await queue.request(asked | {"parent_job": None})


async def test_a_child_belongs_to_its_parents_root(queue: Queue) -> None:
    root = await queue.request(a_job())
    child = await queue.request(a_job(parent_job=root), by=Service.SCHEDULER)
    grandchild = await queue.request(a_job(parent_job=child))
    assert [(await queue.job(each))["root_job"] for each in (root, child, grandchild)] == [None, root, root]


async def test_a_parent_of_another_workspace_does_not_exist(queue: Queue) -> None:
    root = await queue.request(a_job(workspace_id="theirs"))
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.request(a_job(workspace_id="mine", parent_job=root))
    assert refused.value.sqlstate == NO_PARENT


async def test_a_parent_with_a_chosen_id_is_found(queue: Queue) -> None:
    root = await queue.request(a_job(id=uuid.uuid4(), chosen_id=True))
    child = await queue.request(a_job(parent_job=root))
    assert (await queue.job(child))["root_job"] == root


async def test_a_parent_that_finished_may_still_have_children(queue: Queue) -> None:
    root = await queue.request(a_job())
    await queue.finish(await queue.claimed())
    assert await queue.state_of(await queue.request(a_job(parent_job=root))) == "queued"


@pytest.mark.parametrize("force", [False, True])
async def test_nothing_new_starts_below_a_root_that_is_canceled(queue: Queue, force: bool) -> None:
    root = await queue.request(a_job())
    await queue.claimed()
    await queue.cancel(root, force=force)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.request(a_job(parent_job=root))
    assert refused.value.sqlstate == ROOT_CANCELED


async def test_a_child_whose_answer_was_lost_is_not_refused_afterwards(queue: Queue) -> None:
    root = await queue.request(a_job())
    child = a_job(parent_job=root)
    await queue.request(child)
    await queue.cancel(root)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await queue.request(child)
    assert refused.value.sqlstate == TAKEN


async def test_a_child_that_waited_for_its_roots_cancellation_is_refused(queue: Queue) -> None:
    root = await queue.request(a_job())
    async with queue.look.acquire() as connection, connection.transaction():
        await connection.execute("SELECT * FROM queue.cancel_job('w', $1, 'bob', NULL, false, NULL)", root)
        asking = asyncio.create_task(queue.request(a_job(parent_job=root)))
        await queue.until_somebody_waits()
    with pytest.raises(asyncpg.PostgresError) as refused:
        await asking
    assert refused.value.sqlstate == ROOT_CANCELED


async def test_a_job_for_a_day_without_partitions_makes_them(queue: Queue) -> None:
    born = datetime.now(UTC) + timedelta(days=400)
    job = uuid.UUID(int=(int(born.timestamp() * 1000) << 80) | 0x7 << 76 | 0x2 << 62 | uuid.uuid4().int >> 66)
    await asyncio.gather(queue.request(a_job(id=job)), queue.request(a_job(id=uuid.UUID(int=job.int + 1))))
    assert await queue.state_of(job) == "queued"


async def test_only_those_who_may_ask_can(queue: Queue) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await queue.request(a_job(), by=Service.WORKER)
