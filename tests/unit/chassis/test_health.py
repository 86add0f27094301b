"""A stalled loop is named, a missing neighbour makes us not ready, and neither answer hangs."""

import asyncio
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web

from tidemill.chassis.health import PATIENCE, Health, health_routes, serve_health
from tidemill.chassis.telemetry import Metric, count, telemetry

MINUTE = timedelta(minutes=1)


class Watch:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, span: timedelta) -> None:
        self.seconds += span.total_seconds()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def health(watch: Watch) -> Health:
    return Health(watch)


async def yes() -> bool:
    return True


async def get(health: Health, path: str) -> tuple[int, str]:
    async with (
        serve_health(health, "127.0.0.1", 0) as port,
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        assert answer.content_type == "text/plain"
        return answer.status, await answer.text()


async def test_without_loops_it_is_alive(health: Health) -> None:
    assert await get(health, "/livez") == (200, "ok\n")


async def test_a_loop_that_beats_is_alive(health: Health, watch: Watch) -> None:
    health.beat("tick", within=MINUTE)
    watch.advance(MINUTE)
    assert await get(health, "/livez") == (200, "tick: ok\n")


async def test_a_stalled_loop_is_named_first(health: Health, watch: Watch) -> None:
    health.beat("beat", within=MINUTE * 5)
    health.beat("tick", within=MINUTE)
    watch.advance(timedelta(seconds=75))
    assert await get(health, "/livez") == (503, "tick: no progress for 75 s, expected every 60 s\nbeat: ok\n")


async def test_a_loop_that_goes_on_is_alive_again(health: Health, watch: Watch) -> None:
    health.beat("tick", within=MINUTE)
    watch.advance(MINUTE * 2)
    health.beat("tick")
    assert (await get(health, "/livez"))[0] == 200


async def test_a_loop_that_never_began_is_stalled(health: Health, watch: Watch) -> None:
    health.expect("tick", MINUTE)
    watch.advance(MINUTE * 2)
    assert (await get(health, "/livez"))[0] == 503


async def test_a_beat_without_a_bound_keeps_the_one_it_has(health: Health, watch: Watch) -> None:
    health.expect("slow", PATIENCE * 10)
    health.beat("slow")
    watch.advance(PATIENCE * 9)
    assert (await get(health, "/livez"))[0] == 200


async def test_a_loop_that_has_ended_is_not_missed(health: Health, watch: Watch) -> None:
    health.expect("once", MINUTE)
    health.forget("once")
    watch.advance(MINUTE * 2)
    assert (await get(health, "/livez"))[0] == 200


async def test_it_is_ready_when_every_check_says_yes(health: Health) -> None:
    health.check("postgres", yes)
    health.check("broker", yes)
    assert await get(health, "/readyz") == (200, "broker: ok\npostgres: ok\n")


async def test_a_check_that_says_no_or_raises_or_hangs_is_named(health: Health) -> None:
    async def no() -> bool:
        return False

    async def raises() -> bool:
        raise ConnectionError("postgresql://u:hunter2@db/x")

    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    health.check("broker", no)
    health.check("database", raises)
    health.check("disk", hangs, timeout=timedelta(milliseconds=20))
    health.check("well", yes)
    assert await get(health, "/readyz") == (
        503,
        "broker: not now\ndatabase: failed with ConnectionError\ndisk: no answer in 0.02 s\nwell: ok\n",
    )


async def test_a_missing_neighbour_is_no_reason_to_restart(health: Health) -> None:
    async def no() -> bool:
        return False

    health.check("postgres", no)
    assert (await get(health, "/livez"))[0] == 200


async def test_metrics_are_those_of_the_service_it_belongs_to() -> None:
    with telemetry("worker"):
        health = Health()
        count(Metric.JOBS_FINISHED, 7, outcome="success")
        with telemetry("api"):
            count(Metric.JOBS_FINISHED, 1, outcome="success")
            status, text = await get(health, "/metrics")
    assert status == 200
    assert 'tidemill_jobs_finished_total{outcome="success"} 7.0' in text


async def test_the_routes_can_be_mounted_in_an_application(health: Health) -> None:
    app = web.Application()
    app.add_routes(health_routes(health))
    paths = {resource.canonical for resource in app.router.resources()}
    assert paths == {"/livez", "/readyz", "/metrics"}


async def test_nothing_is_served_after_the_block(health: Health) -> None:
    async with serve_health(health, "127.0.0.1", 0) as port:
        pass
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
