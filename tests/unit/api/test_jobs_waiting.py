"""Who waits for jobs, and when they are looked at."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import pytest

from tidemill.api.http.errors import NotFound
from tidemill.api.jobs.ports import Ended
from tidemill.api.jobs.waiting import WaitingRoom
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.memory import MemoryBroker
from tidemill.chassis.outbox import hint_of
from tidemill.chassis.service import background
from tidemill.shared.catalog import replica_inbox
from tidemill.shared.ids import ReplicaId
from tidemill.shared.message import Message
from tidemill.shared.messages import JobAnswered, JobProgressed
from tidemill.shared.messages.jobs import Progress
from tidemill.shared.script import Outcome

HERE = ReplicaId("here")
DONE = Ended(outcome=Outcome.SUCCESS, result="1")
LONG = timedelta(seconds=30)
SHORT = timedelta(milliseconds=30)


class Rows:
    """What has ended, and what was asked of it."""

    def __init__(self) -> None:
        self.ended: set[UUID] = set()
        self.gone: set[UUID] = set()
        self.looks: list[list[UUID]] = []
        self.away = False
        self.looked = asyncio.Event()

    async def look(self, ids: Sequence[UUID]) -> Mapping[UUID, Ended | None]:
        self.looks.append(list(ids))
        self.looked.set()
        if self.away:
            raise DatabaseUnavailable("away")
        return {each: DONE if each in self.ended else None for each in ids if each in self.ended | self.gone}


class World:
    """A waiting room with its inbox."""

    def __init__(self, rows: Rows, broker: MemoryBroker, room: WaitingRoom) -> None:
        self.rows = rows
        self.broker = broker
        self.room = room

    def say(self, message: Message, **also: str) -> None:
        self.broker.hint(hint_of(message, "/tidemill/worker", **also))


@asynccontextmanager
async def world(poll: timedelta = LONG, linger: timedelta = SHORT) -> AsyncIterator[World]:
    rows, broker = Rows(), MemoryBroker()
    room = WaitingRoom(HERE, rows.look, poll=poll, linger=linger)
    ready = asyncio.Event()

    async def on_ready() -> None:
        await room.look_at_all()
        ready.set()

    async with broker.subscribe(replica_inbox(HERE), room.hear, on_ready=on_ready) as subscription:
        room.subscription = subscription
        await ready.wait()
        async with background(room.run(), room.unbind_left()):
            yield World(rows, broker, room)


async def test_a_message_makes_one_look_and_the_row_answers() -> None:
    async with world() as it:
        job_id = uuid.uuid4()
        with it.room.expect(job_id) as answer:
            it.rows.ended.add(job_id)
            it.say(JobAnswered(job_id=job_id), replica=HERE)
            assert await asyncio.wait_for(answer, 5) == DONE
        assert it.rows.looks == [[job_id]]


async def test_a_lost_message_costs_one_poll_for_all_who_wait() -> None:
    async with world(poll=SHORT) as it:
        ids = [uuid.uuid4() for _ in range(20)]
        it.rows.ended.update(ids)
        with it.room.expect(ids[0]) as first:
            for each in ids[1:]:
                # Registered and left again: nobody is asked for in vain.
                with it.room.expect(each):
                    pass
            assert await asyncio.wait_for(first, 5) == DONE
        assert it.rows.looks == [[ids[0]]]


async def test_a_job_that_is_gone_ends_the_wait_for_it_and_one_that_is_still_to_come_does_not() -> None:
    async with world(poll=SHORT) as it:
        job_id = uuid.uuid4()
        it.rows.gone.add(job_id)
        with it.room.expect(job_id) as answer:
            for _ in range(2):
                it.rows.looked.clear()
                await asyncio.wait_for(it.rows.looked.wait(), 20)
            assert not answer.done()
            it.room.requested(job_id)
            with pytest.raises(NotFound, match="was deleted"):
                await asyncio.wait_for(answer, 20)


async def test_nobody_waiting_means_no_look() -> None:
    async with world(poll=timedelta(milliseconds=5)) as it:
        it.say(JobAnswered(job_id=uuid.uuid4()), replica=HERE)
        with it.room.expect(uuid.uuid4()):
            pass
        await asyncio.sleep(0.05)
        assert it.rows.looks == []
        assert it.room.count == 0


async def test_an_outage_is_waited_out() -> None:
    async with world(poll=SHORT) as it:
        job_id = uuid.uuid4()
        it.rows.away = True
        it.rows.ended.add(job_id)
        with it.room.expect(job_id) as answer:
            await it.rows.looked.wait()
            it.rows.away = False
            assert await asyncio.wait_for(answer, 5) == DONE


async def test_two_may_wait_for_one_job() -> None:
    async with world() as it:
        job_id = uuid.uuid4()
        it.rows.ended.add(job_id)
        with it.room.expect(job_id) as one:
            with it.room.expect(job_id):
                pass
            it.say(JobAnswered(job_id=job_id), replica=HERE)
            assert await asyncio.wait_for(one, 5) == DONE


async def test_what_came_while_the_queue_was_away_is_looked_at() -> None:
    async with world() as it:
        job_id = uuid.uuid4()
        it.rows.ended.add(job_id)
        with it.room.expect(job_id) as answer:
            await it.room.look_at_all()
            assert await asyncio.wait_for(answer, 5) == DONE


async def test_a_follower_is_woken_by_its_own_job_only() -> None:
    async with world() as it:
        mine, other = uuid.uuid4(), uuid.uuid4()
        async with it.room.follow(mine) as following:
            it.say(JobProgressed(job_id=other, what=Progress.LOGGED))
            began = time.monotonic()
            await following.wait(timedelta(milliseconds=100))
            assert time.monotonic() - began > 0.09
            it.say(JobProgressed(job_id=mine, what=Progress.LOGGED))
            began = time.monotonic()
            await following.wait(LONG)
            assert time.monotonic() - began < 5


async def test_a_job_is_bound_while_it_is_followed_and_a_little_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as it:
        job_id, keys = uuid.uuid4(), []
        subscription = it.room.subscription
        assert subscription is not None
        bind, unbind = subscription.bind, subscription.unbind

        async def noted_bind(key: str) -> None:
            keys.append(f"+{key}")
            await bind(key)

        unbound = asyncio.Event()

        async def noted_unbind(key: str) -> None:
            keys.append(f"-{key}")
            await unbind(key)
            unbound.set()

        monkeypatch.setattr(subscription, "bind", noted_bind)
        monkeypatch.setattr(subscription, "unbind", noted_unbind)
        for _ in range(3):
            async with it.room.follow(job_id), it.room.follow(job_id):
                pass
        assert keys == [f"+follow.{job_id}"]
        await asyncio.wait_for(unbound.wait(), 5)
        assert keys == [f"+follow.{job_id}", f"-follow.{job_id}"]
        async with it.room.follow(job_id) as following:
            it.say(JobProgressed(job_id=job_id, what=Progress.LOGGED))
            began = time.monotonic()
            await following.wait(LONG)
            assert time.monotonic() - began < 5


async def test_what_nobody_can_read_is_buried() -> None:
    async with world() as it:
        job_id = uuid.uuid4()
        broken = hint_of(JobAnswered(job_id=job_id), "/tidemill/worker", replica=HERE)
        it.broker.hint(type(broken)(exchange=broken.exchange, key=broken.key, body=b"{", message_id=""))
        it.say(JobAnswered(job_id=job_id), replica=HERE)
        it.rows.ended.add(job_id)
        with it.room.expect(job_id) as answer:
            it.say(JobAnswered(job_id=job_id), replica=HERE)
            assert await asyncio.wait_for(answer, 5) == DONE
        assert len(await it.broker.dead_letters()) == 1
