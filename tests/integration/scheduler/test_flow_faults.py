"""What happens to schedulers and messages on the way changes nothing in what a flow comes to."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, cast

import asyncpg
import msgspec
import pytest

from tests.support.database import Databases, DatabaseUrls
from tests.support.flows import Stage, branch_all, branch_one, expr, flow, loop, stage_on, step, while_loop
from tests.support.queue import Queue, queue_of
from tests.support.services import running
from tests.support.waiting import eventually
from tidemill.chassis.broker import Broker, Fate, Outgoing
from tidemill.chassis.database import Database
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.memory import MemoryBroker
from tidemill.chassis.service import Frame, ServiceSpec
from tidemill.scheduler.service import SERVICE, open_scheduler
from tidemill.shared.catalog import SCHEDULER_FLOWS

FLOW_READY = SCHEDULER_FLOWS.keys[0]
ITEM, INDEX = expr("flow_input.iter.value"), expr("flow_input.iter.index")
BEFORE = expr("previous_result")
SEEN = ("two", "wide", "way", "more")
RETRY = {"retry": {"constant": {"attempts": 2, "seconds": 0}}}

MIXED = flow(
    step("first", "lambda n: n + 1", n=expr("flow_input.n")),
    loop("two", [1, 2, 3], step("one", "lambda x: x", x=ITEM), step("other", "lambda x: -x", x=expr("results.one"))),
    loop("wide", list(range(12)), step("w", "lambda x: x * x", x=ITEM), parallel=True, parallelism=4),
    loop("bad", [1, 0], step("b", "lambda x: 1 // x", x=ITEM), parallel=True, skip_failures=True),
    branch_one(
        "way",
        ("results.first == 2", [step("yes", "lambda: 'yes'"), step("twice", "lambda x: x * 2", x=BEFORE)]),
    ),
    branch_all("all", [step("l", "lambda: 'l'")], [], [step("r", "lambda: 1 // 0")], parallel=True, skip=True),
    while_loop("more", step("m", "lambda x: x", x=INDEX), options={"stop_after_if": {"expr": "result == 2"}}),
    step("again", "lambda: 1 // 0", options={**RETRY, "continue_on_error": True}),
    step("last", "lambda *of, **named: list(named.values())", **{each: expr(f"results.{each}") for each in SEEN}),
)
RESULT = [[-1, -2, -3], [x * x for x in range(12)], "yesyes", [0, 1, 2]]
_ONCE = ("first", "yes", "twice", "l", "r", "last")
RUNS = {"one": 3, "other": 3, "w": 12, "b": 2, "m": 3, "again": 3} | dict.fromkeys(_ONCE, 1)


class Mischief(MemoryBroker):
    """Loses, repeats and reorders what it is told of flows."""

    def __init__(self) -> None:
        super().__init__()
        self.luck = Random(4)
        self.loses = False
        self.repeats = False
        self.lost = 0

    async def publish(self, messages: Sequence[Outgoing]) -> Sequence[Fate]:
        """Confirm all; what is said of flows may never arrive, or late and more than once."""
        rest = [each for each in messages if each.key != FLOW_READY or not (self.loses or self.repeats)]
        ready = [] if self.loses else [each for each in messages if each not in rest]
        self.lost += len(messages) - len(rest) if self.loses else 0
        copies = [msgspec.structs.replace(each, message_id=uuid.uuid4().hex) for each in ready for _ in range(3)]
        await asyncio.gather(super().publish(rest), *(self._late(each) for each in copies))
        return [Fate.CONFIRMED] * len(messages)

    async def _late(self, message: Outgoing) -> None:
        await asyncio.sleep(self.luck.uniform(0, 0.02))
        await super().publish([message])

    async def deliver(self, said: Sequence[Mapping[str, Any]]) -> None:
        """Let these messages arrive."""
        names = ("exchange", "key", "message_id")
        await super().publish(
            [Outgoing(**{name: each[name] for name in names}, body=each["body"].encode()) for each in said]
        )


class Cut:
    """A database whose answers to what schedulers write of flows are lost now and then, or whose questions are."""

    def __init__(self, database: Database, before: float, after: float) -> None:
        self._database = database
        self._before, self._after = before, after
        self._luck = Random(2)
        self.cuts: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def fetchrow(self, query: str, *values: Any) -> asyncpg.Record | None:
        """Ask as the database does."""
        self._cut("before", query, self._before)
        answer = await self._database.fetchrow(query, *values)
        self._cut("after", query, self._after)
        return answer

    def _cut(self, moment: str, query: str, chance: float) -> None:
        if "advance_flow" in query and self._luck.random() < chance:
            self.cuts[moment] += 1
            raise DatabaseUnavailable("the connection was cut")


def cutting(before: float = 0, after: float = 0) -> tuple[ServiceSpec, list[Cut]]:
    """Return a scheduler with such a database, and where that will be."""
    made: list[Cut] = []

    def opened(frame: Frame) -> AbstractAsyncContextManager[None]:
        made.append(Cut(frame.database, before, after))
        database = cast("Database", made[-1])
        return open_scheduler(Frame(**{**vars(frame), "database": database}))

    return ServiceSpec(name=SERVICE.name, settings=SERVICE.settings, open=opened), made


@pytest.fixture(scope="module")
async def queue(database_urls: DatabaseUrls) -> AsyncIterator[Queue]:
    """The queue of one database."""
    async with queue_of(database_urls) as queue:
        yield queue


@asynccontextmanager
async def troubled(queue: Queue) -> AsyncIterator[tuple[Stage, Mischief]]:
    """A worker and a broker that can make trouble; no scheduler yet."""
    await queue.empty()
    broker = Mischief()
    async with broker, stage_on(queue, cast("Broker", broker)) as stage:
        yield stage, broker


async def ended_well(stage: Stage, flow_id: uuid.UUID, flows: int = 1) -> None:
    """Wait for the end of a mixed flow, which is what it always is; each step was run and recorded as often as ever."""
    ended = await stage.end_of(flow_id)
    assert (ended.outcome, ended.result) == ("success", RESULT)
    assert stage.ran == {name: flows * runs for name, runs in RUNS.items()}
    recorded = await stage.queue.look.fetch(
        "SELECT j.step_id, count(*), count(*) FILTER (WHERE f.outcome = 'success') AS good,"
        " count(DISTINCT (j.parent_job, c.no, c.index)) FILTER (WHERE f.outcome = 'success') AS places"
        " FROM queue.job j JOIN queue.finished_job f USING (id) LEFT JOIN queue.flow_child c ON c.job_id = j.id"
        " WHERE j.root_job = $1 AND j.kind = 'flowscript' GROUP BY 1",
        flow_id,
    )
    assert {row["step_id"]: row["count"] for row in recorded} == RUNS
    assert all(row["good"] == row["places"] for row in recorded)
    assert await stage.queue.look.fetchval("SELECT count(*) FROM queue.live_job WHERE root_job = $1", flow_id) == 0
    assert await unheard(stage) == 0


async def unheard(stage: Stage) -> int:
    """Return how many ends no flow has heard of."""
    count: int = await stage.queue.look.fetchval(
        "SELECT (SELECT count(*) FROM queue.flow_step WHERE state = 'ended')"
        " + (SELECT count(*) FROM queue.flow_child WHERE state = 'ended')"
    )
    return count


async def test_the_undisturbed_run(queue: Queue, database_urls: DatabaseUrls) -> None:
    async with troubled(queue) as (stage, broker), running(database_urls, SERVICE, broker=cast("Broker", broker)):
        await ended_well(stage, await stage.request(MIXED, {"n": 1}))


async def test_two_schedulers_and_messages_repeated_and_reordered(queue: Queue, database_urls: DatabaseUrls) -> None:
    async with troubled(queue) as (stage, broker):
        broker.repeats = True
        between = cast("Broker", broker)
        async with running(database_urls, SERVICE, broker=between), running(database_urls, SERVICE, broker=between):
            flows = [await stage.request(MIXED, {"n": 1}) for _ in range(3)]
            for flow_id in flows:
                await stage.end_of(flow_id)
            for flow_id in flows:
                await ended_well(stage, flow_id, len(flows))


async def test_every_message_of_flows_lost(queue: Queue, database_urls: DatabaseUrls) -> None:
    async with troubled(queue) as (stage, broker):
        broker.loses = True
        async with running(database_urls, SERVICE, broker=cast("Broker", broker)):
            flow_id = await stage.request(MIXED, {"n": 1})

            async def sweep() -> bool:
                said = await queue.scheduler.fetchval("SELECT queue.wake_flows('0 seconds', 100)")
                await broker.deliver([*json.loads(said), *await queue.rehint("flow")])
                return await queue.state_of(flow_id) == "success"

            await eventually(sweep, 60)
            await ended_well(stage, flow_id)
            assert broker.lost > sum(RUNS.values()), "nothing was lost"


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_connection_is_cut_at_the_commit(queue: Queue, database_urls: DatabaseUrls, moment: str) -> None:
    spec, made = cutting(**{moment: 0.1})
    async with troubled(queue) as (stage, broker), running(database_urls, spec, broker=cast("Broker", broker)):
        await ended_well(stage, await stage.request(MIXED, {"n": 1}))
        assert made[0].cuts[moment] > 1


async def test_all_connections_are_cut_again_and_again(queue: Queue, database_urls: DatabaseUrls) -> None:
    async with troubled(queue) as (stage, broker), running(database_urls, SERVICE, broker=cast("Broker", broker)):
        flow_id = await stage.request(MIXED, {"n": 1})
        cuts = 0

        async def cut() -> bool:
            nonlocal cuts
            cuts += await queue.look.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'tidemill-scheduler' AND datname = current_database()"
            )
            return await queue.state_of(flow_id) == "success"

        await eventually(cut, 60, 0.2)
        await ended_well(stage, flow_id)
        assert cuts > 0


@pytest.mark.parametrize("seed", range(3))
async def test_schedulers_come_and_go(queue: Queue, database_urls: DatabaseUrls, seed: int) -> None:
    luck = Random(seed)
    async with troubled(queue) as (stage, broker):
        flow_id: uuid.UUID | None = None
        for _ in range(5):
            async with running(database_urls, SERVICE, broker=cast("Broker", broker)):
                flow_id = flow_id or await stage.request(MIXED, {"n": 1})
                until = stage.ran.total() + luck.randint(0, 8)

                async def far_enough() -> bool:
                    return stage.ran.total() >= min(until, sum(RUNS.values()))  # noqa: B023

                await eventually(far_enough)
        async with running(database_urls, SERVICE, broker=cast("Broker", broker)):
            assert flow_id is not None
            await ended_well(stage, flow_id)


# ---- cancel at every state


HOUR = {"constant": {"attempts": 3, "seconds": 3600}}
NEXT = step("next", "lambda: 1")
JOB_IS = "SELECT count(*) FROM queue.live_job WHERE root_job = $1 AND step_no IS NOT NULL AND state = "
STATES = {
    "a step waits for a worker": (flow(step("a", "lambda: 1")), f"{JOB_IS} 'queued'"),
    "a step runs": (flow(step("a", "lambda: 1")), f"{JOB_IS} 'running'"),
    "in a loop": (flow(loop("l", [1, 2, 3], step("a", "lambda: 1"), NEXT)), f"{JOB_IS} 'running'"),
    "in a parallel loop of loops": (
        flow(loop("l", [1] * 20, loop("k", [1, 2], step("a", "lambda: 1"), NEXT, parallel=True), parallel=True)),
        f"{JOB_IS} 'running'",
    ),
    "in a nested branch": (flow(branch_one("b", default=[step("a", "lambda: 1"), NEXT])), f"{JOB_IS} 'running'"),
    "before a retry": (flow(step("a", "lambda: 1 // 0", options={"retry": HOUR})), f"{JOB_IS} 'scheduled'"),
    "while it waits for an approval": (
        flow(step("a", "lambda: 1", options={"suspend": {"required_events": 1}}), NEXT),
        "SELECT count(*) FROM queue.flow_step WHERE flow_id = $1 AND state = 'waiting'",
    ),
    "while it sleeps": (
        flow(step("a", "lambda: 1", options={"sleep": {"type": "static", "value": 3600}}), NEXT),
        f"{JOB_IS} 'scheduled'",
    ),
}  # fmt: skip
STATES["a step waits for a worker"][0]["modules"][0]["value"]["tag"] = "nobody"
RUN_NOW = {"before a retry", "while it waits for an approval", "while it sleeps"}


@pytest.fixture(scope="module")
async def stage(databases: Databases) -> AsyncIterator[Stage]:
    """A stage without trouble."""
    async with (
        databases.copy() as urls,
        queue_of(urls) as queue,
        running(urls, SERVICE) as broker,
        stage_on(queue, broker) as stage,
    ):
        yield stage


async def canceled_for_good(stage: Stage, flow_id: uuid.UUID) -> None:
    """Wait until it has ended as canceled, with nothing below that lives on or comes later."""
    ended = await stage.end_of(flow_id)
    assert (ended.outcome, ended.result["error"]["name"]) == ("canceled", "Canceled")
    assert await stage.queue.look.fetchval("SELECT count(*) FROM queue.live_job WHERE root_job = $1", flow_id) == 0
    assert (await stage.queue.cancel(flow_id)).answer == "finished"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_flow_is_canceled(stage: Stage, state: str, times: int) -> None:
    value, reached = STATES[state]
    if state not in RUN_NOW:
        stage.held.clear()
    try:
        flow_id = await stage.request(value)
        await eventually(lambda: stage.queue.look.fetchval(reached, flow_id))
        answers = await asyncio.gather(*(stage.queue.cancel(flow_id) for _ in range(times)))
        for each in answers:
            assert each.answer in ("requested", "canceled", "finished")
            stage.publish(each.said)
    finally:
        stage.held.set()
    await canceled_for_good(stage, flow_id)
    assert stage.ran["next"] == 0


async def test_a_flow_is_canceled_before_it_begins(queue: Queue) -> None:
    async with troubled(queue) as (stage, _):
        flow_id = await stage.request(MIXED, {"n": 1})
        assert (await queue.cancel(flow_id)).answer == "canceled"
        await canceled_for_good(stage, flow_id)
        assert not stage.ran
