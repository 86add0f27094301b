"""Tasks end, also those that swallow a cancel."""

import asyncio

from tidemill.chassis.ending import end


async def test_a_task_that_swallows_its_first_cancel_ends_all_the_same() -> None:
    swallowed = 0
    begun = asyncio.Event()

    async def stubborn() -> None:
        nonlocal swallowed
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await begun.wait()
    async with asyncio.timeout(10):
        await end(task)
    assert swallowed == 1
    assert task.cancelled()


async def test_what_a_task_raised_stays_with_it() -> None:
    async def broken() -> None:
        raise ValueError("of no interest here")

    task = asyncio.create_task(broken())
    await asyncio.sleep(0)
    await end(task)
    assert isinstance(task.exception(), ValueError)
