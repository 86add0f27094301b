"""Taking up runs of flows over HTTP: what is asked for, by whom, and where it is refused."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tests.support.suspended import a_module, advance, end, finish, start

A, B, C = a_module("a"), a_module("b"), a_module("c")


@pytest.fixture(scope="module")
async def open_house(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.person("op", operator=True)
        yield it


@pytest.fixture
async def api(open_house: House) -> House:
    await open_house.queue.empty()
    await open_house.queue.look.execute("DELETE FROM platform.flow")
    return open_house


def a_loop(module: str, *, kind: str = "forloopflow", **more: Any) -> dict[str, Any]:
    iterator = {"type": "static", "value": [1, 2, 3]}
    value = {"type": kind, "iterator": iterator, "modules": [a_module("i")], "skip_failures": False, **more}
    return {"id": module, "value": value}


async def a_run(api: House, path: str = "f/u/ann/f", args: Any = None, **query: Any) -> uuid.UUID:
    return uuid.UUID((await api.post("ann", f"jobs/run/{path}", args or {"x": 1}, status=201, **query)).text)


async def walked(api: House, run: uuid.UUID, *modules: str) -> Sequence[uuid.UUID]:
    """Let each of the steps end well but the last, which fails and with it the flow."""
    jobs = []
    for no, module in enumerate(modules):
        jobs.append(await start(api.queue, run, no, module))
        await end(api.queue, jobs[-1], module)
        state = "failure" if no == len(modules) - 1 else "success"
        row = {"no": no, "module": module, "state": state, "job_id": jobs[-1]}
        await advance(api.queue, run, at_step=no, steps=[row])
    await advance(api.queue, run, end={"outcome": "failure", "result": 1})
    return jobs


async def restart(
    api: House, run: uuid.UUID | str, step: str, *, who: str = "ann", status: int = 201, **body: Any
) -> str:
    return (await api.post(who, f"jobs/restart/f/{run}", {"step_id": step, **body}, status=status)).text


async def row(api: House, job: str) -> Mapping[str, Any]:
    found = await api.queue.look.fetchrow(
        "SELECT j.*, l.at_step, l.state FROM queue.job j JOIN queue.live_job l USING (id) WHERE id = $1::text::uuid",
        job,
    )
    assert found is not None
    return dict(found)


async def test_a_run_is_taken_up_at_a_step(api: House) -> None:
    version = await api.flow("u/ann/f", [A, B, C], priority=4)
    run = await a_run(api)
    first, _ = await walked(api, run, "a", "b")
    await api.flow("u/ann/g", [A])
    await api.post("ann", "flows/update/u/ann/f", {"summary": "", "value": {"modules": [C]}})
    await api.queue.look.execute("DELETE FROM bus.outbox")
    new = await restart(api, run, "b")
    job = await row(api, new)
    assert {name: job[name] for name in ("kind", "path", "hash", "at_step", "state", "priority", "entrypoint")} == {
        "kind": "flow",
        "path": "u/ann/f",
        "hash": str(version),
        "at_step": 1,
        "state": "queued",
        "priority": 4,
        "entrypoint": None,
    }
    assert json.loads(job["args"]) == {"x": 1}
    status = (await api.get("ann", f"jobs_u/get/{new}")).json["flow_status"]
    assert status["restarted_from"] == {"flow_job_id": str(run), "step_id": "b"}
    assert status["step"] == 1
    assert [each["type"] for each in status["modules"]] == ["Success", *["WaitingForPriorSteps"] * 2]
    assert status["modules"][0]["job"] == str(first)
    assert (await api.get("ann", f"jobs/result_by_id/{new}/a")).json == "a"
    (audit,) = await api.audited()
    assert (audit["operation"], audit["resource"], audit["span"]) == ("jobs.run.flow", "u/ann/f", new)


async def test_a_run_is_taken_up_as_its_request_says(api: House) -> None:
    await api.flow("u/ann/f", [A, B])
    run = await a_run(api)
    await walked(api, run, "a", "b")
    query: dict[str, Any] = {"tag": "special", "scheduled_in_secs": "60", "invisible_to_owner": "true"}
    body = {"step_id": "b", "branch_or_iteration_n": 0, "nested_path": [], "flow_version": None}
    reply = await api.call(
        "ann",
        "POST",
        f"jobs/restart/f/{run}",
        body,
        status=201,
        **query,
    )
    job = await row(api, reply.text)
    assert (job["tag"], job["state"], job["visible_to_owner"]) == ("special", "scheduled", False)
    assert json.loads(job["args"]) == {"x": 1}
    key = {"Idempotency-Key": "once"}
    once = [
        (await api.call("ann", "POST", f"jobs/restart/f/{run}", {"step_id": "b"}, headers=key, status=201)).text
        for _ in range(2)
    ]
    assert once[0] == once[1]
    await api.call("ann", "POST", f"jobs/restart/f/{run}", {"step_id": "a"}, headers=key, status=422)


async def test_another_version_takes_a_run_up_if_the_steps_before_are_the_same(api: House) -> None:
    await api.flow("u/ann/f", [A, B])
    run = await a_run(api)
    await walked(api, run, "a", "b")

    async def deployed(*modules: Any) -> int:
        await api.post("ann", "flows/update/u/ann/f", {"summary": "", "value": {"modules": list(modules)}})
        found: int = (await api.get("ann", "flows/get_latest_version/u/ann/f")).json["id"]
        return found

    fitting, other = await deployed(A, C, B), await deployed(C, B)
    new = await restart(api, run, "c", flow_version=fitting)
    assert (await row(api, new))["hash"] == str(fitting)
    status = (await api.get("ann", f"jobs_u/get/{new}")).json["flow_status"]
    assert status["restarted_from"]["flow_version"] == fitting
    assert "c" in await restart(api, run, "b", flow_version=other, status=422)
    await restart(api, run, "c", flow_version=other)
    foreign = await api.flow("u/ann/g", [A, B])
    assert "flow_version" in await restart(api, run, "b", flow_version=foreign, status=422)
    await restart(api, run, "b", flow_version=10**17, status=404)


async def test_what_stands_in_the_way_is_named(api: House) -> None:
    await api.flow("u/ann/f", [A, B, C])
    run = await a_run(api)
    assert str(run) in await restart(api, run, "a", status=409)
    await walked(api, run, "a", "b")
    assert "'nowhere'" in await restart(api, run, "nowhere", status=422)
    assert "before it comes b" in await restart(api, run, "c", status=422)
    assert "branch_or_iteration_n" in await restart(api, run, "b", status=422, branch_or_iteration_n=1)
    assert "nested_path" in await restart(api, run, "b", status=422, nested_path=[{"step_id": "i"}])
    for step in (await api.queue.look.fetch("SELECT job_id FROM queue.flow_step WHERE flow_id = $1", run))[:1]:
        await restart(api, step["job_id"], "a", status=422)
    await restart(api, uuid.uuid4(), "a", status=404)
    await restart(api, "nothing", "a", status=404)
    never = await a_run(api)
    await api.post("ann", f"jobs_u/queue/cancel/{never}", {})
    assert "No step" in await restart(api, never, "a", status=422)
    await api.post("root", f"jobs/completed/delete/{run}")
    assert "erased" in await restart(api, run, "b", status=422)


async def test_a_run_whose_arguments_were_never_made_is_not_taken_up(api: House) -> None:
    await api.flow("u/ann/f", value={"modules": [A], "preprocessor_module": a_module("preprocessor")})
    run = await a_run(api)
    failed = {"no": -1, "module": "preprocessor", "state": "failure"}
    await advance(api.queue, run, at_step=-1, steps=[failed], end={"outcome": "failure", "result": 1})
    assert "preprocessor" in await restart(api, run, "a", status=422)


async def looped(api: House, module: Mapping[str, Any], **done: Any) -> uuid.UUID:
    """Let a run of one loop fail at its third iteration."""
    await api.flow(f"u/ann/{module['id']}", [module])
    run = await a_run(api, f"f/u/ann/{module['id']}")
    step = {"no": 0, "module": module["id"], "state": "failure", "started": 3, "ended": 3, "failed": 1, **done}
    await advance(api.queue, run, at_step=0, steps=[step])
    for index in range(3):
        await api.queue.look.execute(
            "INSERT INTO queue.flow_child (flow_id, born, no, attempt, index, job_id, state)"
            " SELECT id, born, 0, 0, $2, gen_random_uuid(), $3 FROM queue.job WHERE id = $1",
            run,
            index,
            "failure" if index == 2 else "success",
        )
    await finish(api.queue, run)
    return run


async def test_approvals_stay_only_where_the_same_runs_and_they_demand_nothing(api: House) -> None:
    async def keeps(run: uuid.UUID | str, **body: Any) -> bool:
        new = await restart(api, run, "b", **body)
        return bool(json.loads((await row(api, new))["restarted_from"]).get("keeps_approvals"))

    suspends: Sequence[Mapping[str, Any]] = ({}, {"self_approval_disabled": True}, {"user_auth_required": True})
    for at, suspend in enumerate(suspends):
        path = f"u/ann/kept{at}"
        modules = [a_module("a", suspend=suspend), a_module("b")]
        await api.flow(path, modules)
        run = await a_run(api, f"f/{path}")
        await walked(api, run, "a", "b")
        assert await keeps(run) is (not suspend)
        body = {"path": path, "summary": "", "value": {"modules": [*modules, a_module("c")]}}
        await api.post("ann", f"flows/update/{path}", body)
        newer = (await api.get("ann", f"flows/get/{path}")).json["version_id"]
        assert not await keeps(run, flow_version=newer)


async def test_a_run_is_taken_up_with_the_arguments_that_it_had(api: House) -> None:
    await api.flow("u/ann/f", [a_module("a")])
    run = await a_run(api)
    await walked(api, run, "a")
    for name in ("include_query", "include_header"):
        answer = await api.post("ann", f"jobs/restart/f/{run}", {"step_id": "a"}, status=422, **{name: "x", "x": "9"})
        assert name in answer.text


async def test_a_loop_behind_an_approval_is_taken_up_as_a_whole(api: House) -> None:
    await api.flow("u/ann/f", [a_module("a", suspend={}), a_loop("l")])
    run = await a_run(api)
    await walked(api, run, "a", "l")
    assert "approval" in await restart(api, run, "l", branch_or_iteration_n=2, status=422)


async def test_a_loop_is_taken_up_at_an_iteration(api: House) -> None:
    run = await looped(api, a_loop("l"), total=3, items=[1, 2, 3])
    new = await restart(api, run, "l", branch_or_iteration_n=2)
    children = await api.queue.look.fetchval(
        "SELECT count(*) FROM queue.flow_child WHERE flow_id = $1::text::uuid", new
    )
    step = await api.queue.look.fetchrow("SELECT * FROM queue.flow_step WHERE flow_id = $1::text::uuid", new)
    assert step is not None
    assert (children, step["started"], step["ended"], step["total"], step["items"]) == (2, 2, 2, 3, "[1, 2, 3]")
    status = (await api.get("ann", f"jobs_u/get/{new}")).json["flow_status"]
    assert status["restarted_from"]["branch_or_iteration_n"] == 2
    assert len(status["modules"][0]["flow_jobs"]) == 2
    assert "has done 2 of 3" in await restart(api, run, "l", branch_or_iteration_n=3, status=422)
    whole = await restart(api, run, "l", branch_or_iteration_n=0)
    assert (await row(api, whole))["at_step"] == 0


async def test_what_runs_at_the_same_time_has_no_place_to_begin_at(api: House) -> None:
    run = await looped(api, a_loop("p", parallel=True), total=3, items=[1, 2, 3])
    assert "same time" in await restart(api, run, "p", branch_or_iteration_n=1, status=422)
    run = await looped(api, a_loop("w", kind="whileloopflow"))
    await restart(api, run, "w", branch_or_iteration_n=1)
    branches = [{"modules": [a_module(f"m{no}")], "skip_failure": False} for no in range(3)]
    run = await looped(api, {"id": "v", "value": {"type": "branchall", "branches": branches}}, total=3)
    assert (await row(api, await restart(api, run, "v", branch_or_iteration_n=2)))["at_step"] == 0


async def test_a_preview_takes_a_run_up_with_the_value_it_brings(api: House) -> None:
    version = await api.flow("u/ann/f", [A, B])
    run = await a_run(api)
    await walked(api, run, "a", "b")

    async def tried(asked: Any, *modules: Any, status: int = 201) -> str:
        body = {"value": {"modules": list(modules or (A, B))}, "args": {"y": 2}, "restarted_from": asked}
        return (await api.post("ann", "jobs/run/preview_flow", body, status=status)).text

    asked = {"flow_job_id": str(run), "step_id": "b", "branch_or_iteration_n": None, "nested": None}
    job = await row(api, new := await tried(asked, A, {**B, "summary": "changed"}))
    assert (job["kind"], job["at_step"], json.loads(job["args"])) == ("flowpreview", 1, {"y": 2})
    assert "before it comes c" in await tried(asked, C, B, status=422)
    for field, value in (("flow_version", version), ("branch_chosen", {"type": "default"}), ("nested", {})):
        assert f"restarted_from.{field}" in await tried({**asked, field: value}, status=422)
    assert "flow_job_id" in await tried({"step_id": "b"}, status=422)
    await tried({**asked, "flow_job_id": str(uuid.uuid4())}, status=404)
    await tried({**asked, "flow_job_id": new}, status=409)
    nothings: Sequence[dict[str, str] | None] = (None, {})
    for nothing in nothings:
        assert (await row(api, await tried(nothing)))["at_step"] is None
    # A preview that has ended is taken up as well, as it was.
    await api.queue.look.execute("DELETE FROM queue.live_job")
    await api.queue.look.execute(
        "INSERT INTO queue.finished_job (id, born, outcome, finished_at, claims)"
        " SELECT id, born, 'failure', now(), 0 FROM queue.job WHERE id = $1::text::uuid",
        new,
    )
    job = await row(api, await restart(api, new, "b"))
    assert (job["kind"], job["at_step"], json.loads(job["code"])["modules"][1]["summary"]) == (
        "flowpreview",
        1,
        "changed",
    )
    await restart(api, new, "b", flow_version=version, status=422)


async def test_who_may_take_up_what(api: House) -> None:
    await api.flow("u/ann/f", [A, B])
    run = await a_run(api)
    await walked(api, run, "a", "b")
    await restart(api, run, "b", who="bob", status=404)
    await restart(api, run, "b", who="root")
    body = {"value": {"modules": [A]}, "args": {}, "restarted_from": {"flow_job_id": str(run), "step_id": "a"}}
    await api.post("bob", "jobs/run/preview_flow", body, status=404)
    await api.post("op", "jobs/run/preview_flow", body, status=403)
    # An operator may run flows, but no code that is not deployed; not even their own from earlier days.
    tried = (await api.post("ann", "jobs/run/preview_flow", {"value": {"modules": [A]}, "args": {}}, status=201)).text
    await walked(api, uuid.UUID(tried), "a")
    await api.queue.look.execute("UPDATE queue.job SET created_by = 'op' WHERE id = $1::text::uuid", tried)
    await restart(api, tried, "a", who="op", status=403)
