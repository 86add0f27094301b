"""What runs beside a block: it ends with the block, and the block's own error stays itself."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tidemill.chassis.errors import StartRefused
from tidemill.chassis.service import background


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(StartRefused, match="the port is taken"):
        async with background(for_ever()):
            raise StartRefused("the port is taken")


async def test_work_ends_with_its_block() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await for_ever()
        finally:
            ended.set()

    async with background(work()):
        await begun.wait()
    assert ended.is_set()


async def test_work_that_fails_ends_the_block() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as several:
        await beside(broken())
    assert isinstance(several.value.exceptions[0], ZeroDivisionError)


async def beside(work: Coroutine[Any, Any, None]) -> None:
    async with background(work):
        await for_ever()


async def test_a_cancel_reaches_the_block_and_its_work() -> None:
    begun = asyncio.Event()

    async def block() -> None:
        async with background(for_ever()):
            begun.set()
            await for_ever()

    task = asyncio.create_task(block())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
