"""A handler that raises is forgiven; a message that never works while others do is buried."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random

import pytest

from tidemill.chassis import handling
from tidemill.chassis.broker import BrokerUnavailable, Delivery
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.handling import PATIENCE, Handling

DEADLINE = 10


class Parcel:
    """A delivery that remembers what was done with it."""

    def __init__(self, message_id: str, *, grave_is_open: bool = True) -> None:
        self.message_id = message_id
        self.body = b"{}"
        self.key = "key"
        self.traceparent = None
        self.settled = False
        self.done: list[str] = []
        self.changed = asyncio.Event()
        self.grave_is_open = grave_is_open

    async def ack(self) -> None:
        self._note("ack")

    async def give_back(self) -> None:
        self._note("give back")

    async def send_to_end(self) -> None:
        self._note("send to end")

    async def bury(self, reason: str) -> None:
        if not self.grave_is_open:
            raise BrokerUnavailable("no connection")
        self._note(reason)

    async def outcome(self) -> str:
        async with asyncio.timeout(DEADLINE):
            await self.changed.wait()
        return self.done[0]

    def _note(self, what: str) -> None:
        self.settled = True
        self.done.append(what)
        self.changed.set()


@pytest.fixture
async def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling, "FIRST_PAUSE", timedelta(0))


async def bad_fails(delivery: Delivery) -> None:
    if delivery.message_id == "bad":
        raise LookupError("always")
    await delivery.ack()


@pytest.fixture
async def running() -> AsyncIterator[Handling]:
    one = Handling("queue", bad_fails, Random(1))
    yield one
    await one.stop()


async def attempt(running: Handling, parcel: Parcel) -> str:
    running.take(parcel)
    return await parcel.outcome()


async def test_a_handler_that_raises_has_its_message_sent_to_the_end(impatient: None, running: Handling) -> None:
    assert await attempt(running, Parcel("bad")) == "send to end"


async def test_a_message_that_fails_while_others_work_is_buried_in_the_end(impatient: None, running: Handling) -> None:
    outcomes = [await attempt(running, Parcel("bad"))]
    assert await attempt(running, Parcel("good")) == "ack"
    outcomes += [await attempt(running, Parcel("bad")) for _ in range(PATIENCE - 1)]
    assert set(outcomes[:-1]) == {"send to end"}
    assert outcomes[-1] == f"its handler failed {PATIENCE} times, last with LookupError"


async def test_nothing_is_buried_while_nothing_works_at_all(impatient: None, running: Handling) -> None:
    outcomes = {await attempt(running, Parcel("bad")) for _ in range(PATIENCE * 3)}
    assert outcomes == {"send to end"}


async def test_a_message_that_can_not_be_buried_now_comes_again(impatient: None, running: Handling) -> None:
    await attempt(running, Parcel("bad"))
    await attempt(running, Parcel("good"))
    for _ in range(PATIENCE - 2):
        await attempt(running, Parcel("bad"))
    assert await attempt(running, Parcel("bad", grave_is_open=False)) == "send to end"
    assert await attempt(running, Parcel("bad")) == f"its handler failed {PATIENCE + 1} times, last with LookupError"


@pytest.mark.parametrize("away", [DatabaseUnavailable, BrokerUnavailable])
async def test_an_outage_of_a_neighbour_is_no_failure_of_the_message(impatient: None, away: type[Exception]) -> None:
    error: Exception = LookupError("the first time")

    async def fails(delivery: Delivery) -> None:
        if delivery.message_id == "bad":
            raise error
        await delivery.ack()

    one = Handling("queue", fails, Random(1))
    await attempt(one, Parcel("bad"))
    await attempt(one, Parcel("good"))
    error = away("for a long time")
    assert {await attempt(one, Parcel("bad")) for _ in range(PATIENCE * 3)} == {"send to end"}
    error = LookupError("again")
    assert {await attempt(one, Parcel("bad")) for _ in range(PATIENCE - 2)} == {"send to end"}
    assert await attempt(one, Parcel("bad")) == f"its handler failed {PATIENCE} times, last with LookupError"
    await one.stop()


async def test_success_forgets_earlier_failures(impatient: None) -> None:
    failures = PATIENCE - 1

    async def heals(delivery: Delivery) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise LookupError("not yet")
        await delivery.ack()

    one = Handling("queue", heals, Random(1))
    for _ in range(PATIENCE - 1):
        assert await attempt(one, Parcel("slow")) == "send to end"
    assert await attempt(one, Parcel("slow")) == "ack"
    failures = 1
    assert await attempt(one, Parcel("slow")) == "send to end"
    await one.stop()


async def test_a_handler_that_raises_after_its_verb_changes_nothing(running: Handling) -> None:
    async def acks_and_raises(delivery: Delivery) -> None:
        await delivery.ack()
        raise LookupError("afterwards")

    one, parcel = Handling("queue", acks_and_raises, Random(1)), Parcel("any")
    assert await attempt(one, parcel) == "ack"
    await one.stop()
    assert parcel.done == ["ack"]


async def test_pausing_gives_back_what_waits_for_its_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling, "FIRST_PAUSE", timedelta(hours=1))
    monkeypatch.setattr(handling, "LONGEST_PAUSE", timedelta(hours=1))
    failed = asyncio.Event()

    async def fails(_: Delivery) -> None:
        failed.set()
        raise LookupError("always")

    one, parcel = Handling("queue", fails, Random(1)), Parcel("bad")
    one.take(parcel)
    await failed.wait()
    one.pause()
    assert await parcel.outcome() == "send to end"
    await one.stop()


async def test_what_arrives_while_paused_goes_back_without_its_handler(running: Handling) -> None:
    running.pause()
    assert await attempt(running, Parcel("good")) == "give back"
    running.resume()
    assert await attempt(running, Parcel("good")) == "ack"


async def test_after_the_end_a_delivery_is_left_alone() -> None:
    one, parcel = Handling("queue", bad_fails, Random(1)), Parcel("good")
    await one.stop()
    before = asyncio.all_tasks()
    one.take(parcel)
    assert asyncio.all_tasks() == before
    assert parcel.done == []
