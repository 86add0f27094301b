"""A run's log in chunks that may be stored twice."""

import asyncio

from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.service import background
from tidemill.worker.logs import Chunk, Log


class Stored:
    """A store that remembers, and can be away."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.outages = 0
        self.stored = asyncio.Event()

    async def __call__(self, chunk: Chunk) -> bool:
        if self.outages:
            self.outages -= 1
            raise DatabaseUnavailable("away")
        self.chunks.append(chunk)
        return True


async def test_a_short_log_travels_with_the_end() -> None:
    stored = Stored()
    log = Log(stored, stored.stored.set)
    log.write("a")
    log.write("b\n")
    assert await log.last() == Chunk(0, "ab\n", 3)
    assert stored.chunks == []


async def test_no_log_is_no_chunk() -> None:
    assert await Log(Stored(), lambda: None).last() is None


async def test_units_are_those_that_javascript_counts() -> None:
    log = Log(Stored(), lambda: None)
    log.write("é🙂")
    assert (await log.last()) == Chunk(0, "é🙂", 3)


async def test_a_long_run_is_stored_while_it_runs_also_after_an_outage() -> None:
    stored = Stored()
    stored.outages = 1
    log = Log(stored, stored.stored.set)
    async with background(log.run()):
        log.write("early ")
        await asyncio.wait_for(stored.stored.wait(), 10)
        log.write("late")
        assert await log.last() == Chunk(1, "late", 4)
    assert stored.chunks == [Chunk(0, "early ", 6)]


async def test_a_chunk_that_may_be_stored_keeps_its_number() -> None:
    stored = Stored()
    log = Log(stored, lambda: None)
    log.write("perhaps ")
    assert await log.last() == Chunk(0, "perhaps ", 8)
    log.write("more")
    assert await log.last() == Chunk(1, "more", 4)
    assert stored.chunks == [Chunk(0, "perhaps ", 8)]


async def test_a_secret_that_comes_in_two_pieces_is_masked() -> None:
    for cut in (1, 4, 6):
        stored = Stored()
        log = Log(stored, stored.stored.set, "tmj_1_x")
        async with background(log.run()):
            log.write("it is " + "tmj_1_x"[:cut])
            await asyncio.wait_for(stored.stored.wait(), 20)
            log.write("tmj_1_x"[cut:] + "!")
            last = await log.last()
        assert last is not None
        assert [each.text for each in (*stored.chunks, last)] == ["it is ", "*****!"]


async def test_what_only_begins_as_a_secret_does_is_said_in_the_end() -> None:
    stored = Stored()
    log = Log(stored, stored.stored.set, "tmj_1_x")
    async with background(log.run()):
        log.write("a tmj_")
        await asyncio.wait_for(stored.stored.wait(), 20)
        last = await log.last()
    assert [*stored.chunks, last] == [Chunk(0, "a ", 2), Chunk(1, "tmj_", 4)]
