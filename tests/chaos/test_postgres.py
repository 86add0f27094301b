"""Postgres restarted under load, again and again."""

import asyncio

import pytest

from tests.chaos.load import Load
from tests.chaos.site import FINDINGS, SLOTS, Site

AWAY = (0, 6, 0)
"""Seconds without Postgres, once for longer than a lease."""

pytestmark = pytest.mark.slow


async def test_postgres_is_restarted_under_load(site: Site) -> None:
    long = Load()
    running = [await site.ask(long, seconds=14) for _ in range(2)]
    for job in running:
        await site.running(job)
    async with site.clients() as load:
        for seconds in AWAY:
            await site.until_accepted(load, len(load.accepted) + 8)
            await site.postgres.stop()
            await asyncio.sleep(seconds)
            await site.postgres.start()
            site.hurts()
            await site.recovered(f"Postgres back after {seconds} s under load")
    account = await site.kept(load)
    lasting = await site.kept(long)
    FINDINGS.append(
        f"{site.shape}: Postgres restarted {len(AWAY)} times: {account.jobs} jobs, {account.rerun} claimed again,"
        f" {load.repeated} requests repeated"
    )
    # A claim or an end whose answer was on its way may be done again; what runs meanwhile keeps its lease.
    assert account.rerun <= len(AWAY) * SLOTS
    assert account.outcomes == {"success": account.jobs}
    assert lasting.claims == {1: 2}
