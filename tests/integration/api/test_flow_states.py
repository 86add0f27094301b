"""What steps keep with their flow, and how far jobs say they are."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.suspended import a_flow, a_module, finish, start
from tidemill.api.flow_states.store import LONGEST, MOST

VALUES: list[Any] = ["text", 0, None, [1, {"a": None}], {"nested": {"é": "ÿ"}}, True, 1.5]


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        yield it


@pytest.fixture(autouse=True)
async def clean(api: House) -> None:
    await api.queue.empty()
    await api.queue.start_worker("bash")


@pytest.fixture
async def flow(api: House) -> uuid.UUID:
    flow: uuid.UUID = await a_flow(api.queue, {"modules": [a_module("a")]})
    return flow


def state(flow: uuid.UUID, key: str = "k") -> str:
    return f"jobs/flow/user_states/{flow}/{key}"


@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_what_is_kept_is_read_back(api: House, flow: uuid.UUID, value: Any) -> None:
    await api.post("ann", state(flow), value)
    assert (await api.get("ann", state(flow))).json == value


async def test_the_last_value_counts_and_each_key_has_its_own(api: House, flow: uuid.UUID) -> None:
    for key, value in (("a", 1), ("b", 2), ("a", 3)):
        await api.post("ann", state(flow, key), value)
    assert [(await api.get("ann", state(flow, key))).json for key in "abc"] == [3, 2, None]


async def test_an_empty_body_is_null(api: House, flow: uuid.UUID) -> None:
    await api.post("ann", state(flow), 1)
    await api.call("ann", "POST", state(flow), headers={"Content-Type": "application/json"}, status=200)
    assert (await api.get("ann", state(flow))).json is None
    assert await api.queue.look.fetchval("SELECT count(*) FROM queue.flow_state WHERE flow_id = $1", flow) == 1


async def test_a_job_that_is_no_flow_keeps_nothing(api: House) -> None:
    job = await api.preview()
    await api.post("ann", state(job), 1, status=404)
    await api.get("ann", state(job), status=404)


async def test_nobody_keeps_anything_with_a_flow_of_others_or_one_that_has_ended(api: House, flow: uuid.UUID) -> None:
    await api.post("bob", state(flow), 1, status=404)
    await api.get("bob", state(flow), status=404)
    await api.post("ann", state(flow), 1)
    await finish(api.queue, flow)
    await api.post("ann", state(flow), 2, status=409)
    assert (await api.get("ann", state(flow))).json == 1


async def test_what_is_kept_is_bounded(api: House, flow: uuid.UUID) -> None:
    await api.post("ann", state(flow, "x" * 256), 1, status=400)
    await api.post("ann", state(flow, "large"), "x" * LONGEST, status=413)
    await api.post("ann", state(flow, "large"), "x" * (LONGEST - 10))
    await api.post("ann", state(flow, "other"), "0123456789", status=413)
    await api.post("ann", state(flow, "large"), 1)
    for number in range(MOST - 1):
        await api.post("ann", state(flow, str(number)), number)
    await api.post("ann", state(flow, "more"), 1, status=413)
    await api.post("ann", state(flow, "large"), 2)


async def test_a_step_finds_its_flow_and_keeps_a_value_with_it(api: House, flow: uuid.UUID) -> None:
    """As the clients' set_flow_user_state does."""
    job = await start(api.queue, flow, 0, "a")
    api.tokens["job"] = (await api.queue.claimed("bash")).row["token"]
    root = (await api.get("job", f"jobs_u/get_root_job_id/{job}")).json
    assert root == str(flow)
    await api.post("job", state(flow), {"from": "a step"})
    assert (await api.get("job", state(flow))).json == {"from": "a step"}


async def test_what_was_kept_is_forgotten_with_the_flow(api: House, flow: uuid.UUID) -> None:
    await api.post("ann", state(flow), "secret")
    await finish(api.queue, flow)
    await api.post("root", f"jobs/completed/delete/{flow}")
    assert (await api.get("ann", state(flow))).json is None


async def test_a_job_tells_how_far_it_is_and_only_its_own(api: House) -> None:
    mine, other = await api.preview(), await api.preview()
    claim = await api.queue.claimed("bash")
    assert claim.job_id == mine
    api.tokens["job"] = claim.row["token"]
    assert (await api.get("ann", f"job_metrics/get_progress/{mine}")).json is None
    await api.post("job", f"job_metrics/set_progress/{mine}", {"percent": 40, "flow_job_id": None})
    await api.post("job", f"job_metrics/set_progress/{other}", {"percent": 40}, status=403)
    assert (await api.get("ann", f"job_metrics/get_progress/{mine}")).json == 40
    update = (await api.get("ann", f"jobs_u/getupdate/{mine}", running=False, get_progress="true")).json
    assert update["progress"] == 40
    assert "progress" not in (await api.get("ann", f"jobs_u/getupdate/{mine}", running=False)).json


@pytest.mark.parametrize("percent", [-1, 101, 1.5, "x", None])
async def test_what_is_no_percent_is_refused(api: House, percent: Any) -> None:
    job = await api.preview()
    await api.post("ann", f"job_metrics/set_progress/{job}", {"percent": percent}, status=422)


async def test_a_job_that_has_ended_makes_no_progress_and_tells_its_memory(api: House) -> None:
    job = await api.preview()
    claim = await api.queue.claimed("bash")
    nothing: dict[str, list[Any]] = {"metrics_metadata": [], "scalar_metrics": [], "timeseries_metrics": []}
    assert (await api.post("ann", f"job_metrics/get/{job}", {})).json == nothing
    await api.queue.finish(claim, memory_peak_kb=77)
    await api.post("ann", f"job_metrics/set_progress/{job}", {"percent": 100}, status=409)
    measured = (await api.post("ann", f"job_metrics/get/{job}", {})).json
    assert measured["scalar_metrics"] == [{"metric_id": "memory_peak_kb", "value": 77}]
    await api.post("bob", f"job_metrics/get/{job}", {}, status=404)
