"""The options of flows and steps on real Postgres and a real scheduler."""

import json
import uuid
from typing import Any

import pytest

from tests.support.flows import Stage, expr, flow, loop, step
from tests.support.queue import Claim, a_job
from tests.support.waiting import eventually

ADD = "lambda x, y=1: x + y"
FAIL = "lambda **_: 1 / 0"


def a_path() -> str:
    return f"u/ann/p{uuid.uuid4().hex}"


def script(module_id: str, path: str, *, options: Any = None, **inputs: Any) -> dict[str, Any]:
    value = {**step(module_id, "", **inputs)["value"], "type": "script", "path": path}
    return {"id": module_id, "value": value, **(options or {})}


def nested(module_id: str, path: str, **inputs: Any) -> dict[str, Any]:
    value = {**step(module_id, "", **inputs)["value"], "type": "flow", "path": path}
    return {"id": module_id, "value": value}


async def jobs_of(stage: Stage, flow_id: uuid.UUID) -> dict[str, Any]:
    """Return the jobs below a flow, by their steps."""
    rows = await stage.queue.look.fetch("SELECT * FROM queue.job WHERE root_job = $1 ORDER BY born, id", flow_id)
    return {row["step_id"]: row for row in rows}


# ---- results that are kept


async def test_a_step_is_answered_from_what_was_kept(stage: Stage) -> None:
    path = a_path()
    await stage.deploy_script(path, "lambda x: {'x': x}", cache_ttl_s=600)
    value = flow(script("c1", path, x=expr("flow_input.n")), step("z", "lambda x: x", x=expr("results.c1.x")))
    first, second = await stage.run(value, {"n": 1}), await stage.run(value, {"n": 1})
    assert (first.result, second.result, stage.ran["c1"]) == (1, 1, 1)
    assert (await stage.run(value, {"n": 2})).result == 2
    assert stage.ran["c1"] == 2
    job = (await jobs_of(stage, second.id))["c1"]
    assert (job["kind"], job["path"], job["cache_key"]) == ("script", path, None)
    log = await stage.queue.look.fetchval("SELECT text FROM queue.log_chunk WHERE job_id = $1", job["id"])
    assert "[cached: the result is that of the job" in log


async def test_what_fails_is_not_kept(stage: Stage) -> None:
    options = {"cache_ttl": 600, "continue_on_error": True}
    value = flow(step("c2", FAIL, options=options))
    for _ in range(2):
        await stage.run(value, path="u/ann/c2")
    assert stage.ran["c2"] == 2


async def test_iterations_are_answered_from_what_was_kept(stage: Stage) -> None:
    body = step("c3", ADD, x=expr("flow_input.iter.value"), options={"cache_ttl": 600})
    assert (await stage.run(flow(loop("l", [1, 2, 1, 1], body)))).result == [2, 3, 2, 2]
    assert stage.ran["c3"] == 2


async def test_a_nested_flow_is_answered_from_what_was_kept(stage: Stage) -> None:
    path = a_path()
    await stage.deploy_flow(path, flow(step("c4", ADD, x=expr("flow_input.n"))), cache_ttl_s=600)
    value = flow(nested("sub", path, n=expr("flow_input.n")), step("z", ADD, x=expr("results.sub")))
    assert [(await stage.run(value, {"n": n})).result for n in (1, 1, 2)] == [3, 3, 4]
    assert stage.ran["c4"] == 2


# ---- limits


async def test_a_step_and_a_direct_run_share_one_limit(stage: Stage) -> None:
    path, key = a_path(), f"k-{uuid.uuid4()}"
    await stage.deploy_script(path, "lambda x: x", concurrent_limit=1, concurrency_key=f"{key}-$args[x]")
    asked = await stage.queue.request(a_job(path=path, limit_key=f"{key}-1", limit_ceiling=1, tag="nobody"))
    flow_id = await stage.request(flow(script("lim", path, x=1)))

    async def blocked() -> Any:
        return await stage.queue.look.fetchval(
            "SELECT id FROM queue.live_job WHERE root_job = $1 AND state = 'blocked' AND limit_key = $2",
            flow_id,
            f"{key}-1",
        )

    await eventually(blocked)
    stage.publish((await stage.queue.cancel(asked)).said)
    assert (await stage.end_of(flow_id)).result == 1
    assert (await stage.run(flow(script("lim", path, x=2)))).result == 2


async def test_a_refused_tag_fails_the_step(stage: Stage) -> None:
    value = flow({**step("t1", "lambda: 1")})
    value["modules"][0]["value"]["tag"] = "gpu $args[x]"
    ended = await stage.run(value)
    assert ended.outcome == "failure"
    assert ended.result["error"]["message"].startswith("step t1, tag: 'gpu null' is none")


# ---- erasure


async def test_what_a_step_leaves_behind_is_erased_after_the_flow(stage: Stage) -> None:
    once: Any = {"delete_after_use": True}
    value = flow(
        step("e1", "lambda: 'secret'", options=once),
        loop("e2", [1, 2], step("e3", "lambda: 'secret'"), step("e4", "lambda: 'secret'"), options=once),
        step("e5", "lambda: 'kept'"),
    )
    ended = await stage.run(value)
    queued = await stage.queue.look.fetchval(
        "SELECT count(*) FROM queue.erasure e JOIN queue.job j ON j.id = e.job_id WHERE j.root_job = $1", ended.id
    )
    assert queued == 3
    await stage.queue.look.execute("UPDATE queue.erasure SET due_at = clock_timestamp()")
    for _ in range(2):
        await stage.queue.look.execute("SELECT queue.erase_due(100)")
    left = await stage.queue.look.fetch(
        "SELECT f.result::text FROM queue.finished_job f JOIN queue.job j USING (id, born) WHERE j.root_job = $1",
        ended.id,
    )
    assert [row["result"] for row in left if row["result"] is not None] == ['"kept"']
    kept = await stage.queue.look.fetch(
        "SELECT result::text, items::text FROM queue.flow_step WHERE flow_id = $1 OR flow_id IN"
        " (SELECT id FROM queue.job WHERE root_job = $1)",
        ended.id,
    )
    assert not [row for row in kept if row["result"] or row["items"]]


# ---- one worker for all


async def test_all_steps_run_on_the_worker_of_the_first_one(stage: Stage) -> None:
    line = f"@{stage.queue.run}"
    value = flow(
        step("w1", "lambda: 1"),
        loop("l", [1, 2], step("w2", "lambda: 1"), step("w3", "lambda: 1")),
        loop("m", [1], step("w4", "lambda: 1")),
        step("w5", "lambda: 1"),
        same_worker=True,
    )
    flow_id = await stage.request(value)

    async def waits() -> Claim | None:
        return await stage.queue.claim(line)

    for wanted in ("w2", "w3", "w2", "w3", "w4", "w5"):
        claim = await eventually(waits)
        assert claim is not None
        assert (claim.row["step_id"], claim.row["shares_with"]) == (wanted, flow_id)
        stage.publish((await stage.queue.finish_and_hear(claim, "success", wanted))[1])
    assert (await stage.end_of(flow_id)).result == "w5"
    assert not await stage.queue.look.fetchval("SELECT count(*) FROM queue.flow_worker WHERE flow_id = $1", flow_id)


# ---- what expressions see


async def test_rules_see_the_inputs_of_their_step(stage: Stage) -> None:
    stops = {"stop_after_if": {"expr": "params.x == flow_input.n && result == 2"}}
    value = flow(step("a", ADD, x=expr("flow_input.n"), options=stops), step("b", "lambda: 'more'"))
    assert (await stage.run(value, {"n": 1})).result == 2
    assert (await stage.run(value, {"n": 2})).result == "more"
    retry = {"retry": {"constant": {"attempts": 3, "seconds": 0}, "retry_if": {"expr": "params.n < 1"}}}
    for n, runs in ((0, 4), (1, 1)):
        before = stage.ran["pr"]
        await stage.run(flow(step("pr", FAIL, n=n, options=retry)))
        assert stage.ran["pr"] - before == runs
    skips = {"skip_if": {"expr": "params.x > 1"}}
    value = flow(step("a", "lambda: 'a'"), step("s", ADD, x=expr("flow_input.n"), options=skips))
    assert [(await stage.run(value, {"n": n})).result for n in (1, 2)] == [2, "a"]


# ---- nesting


async def test_a_flow_that_runs_itself_ends(stage: Stage) -> None:
    path = a_path()
    await stage.deploy_flow(path, flow(nested("deep", path)))
    ended = await stage.run(flow(nested("deep", path)))
    assert (ended.outcome, ended.result["error"]["message"]) == (
        "failure",
        "step deep: flows run in no more than 20 others",
    )
    assert (
        await stage.queue.look.fetchval(
            "SELECT count(*) FROM queue.job WHERE root_job = $1 AND kind = 'flow'", ended.id
        )
        == 20
    )


async def test_text_that_names_a_variable_is_left_to_the_worker(stage: Stage) -> None:
    ended = await stage.run(flow(step("v", "lambda x, y: [x, y]", x="$var:u/ann/x", y=expr("resource('u/ann/y')"))))
    assert ended.result == ["$var:u/ann/x", "$res:u/ann/y"]


# ---- what comes before the flow


@pytest.mark.parametrize("inputs", [{}, {"event": expr("flow_input.event")}])
async def test_what_the_preprocessor_makes_are_the_arguments(stage: Stage, inputs: Any) -> None:
    path = a_path()
    before = step("preprocessor", "lambda event: {'n': event['body']['x'] + 1}", **inputs)
    value = flow(step("a", ADD, x=expr("flow_input.n")), preprocessor_module=before)
    version = await stage.deploy_flow(path, value, has_preprocessor=True)
    asked = {"kind": "flow", "path": path, "hash": str(version), "code": None, "entrypoint": "preprocessor"}
    ended = await stage.run(value, {"event": {"kind": "webhook", "body": {"x": 1}}}, **asked)
    assert ended.result == 3
    assert (await stage.run(value, {"n": 5}, **{**asked, "entrypoint": None})).result == 6


# ---- an answer before the end


async def test_a_flow_answers_early_and_goes_on(stage: Stage) -> None:
    async def early(ended: Any) -> Any:
        return json.loads(await stage.queue.look.fetchval("SELECT early FROM queue.job WHERE id = $1", ended.id) or "0")

    steps = [step("a", ADD, x=1), step("b", ADD, x=2), step("c", ADD, x=3)]
    for source, wanted in (("b", 3), ("({a: results.a, b: results['b']})", {"a": 2, "b": 3}), ("nowhere", 0)):
        ended = await stage.run(flow(*steps, early_return=source))
        assert (ended.result, await early(ended)) == (4, wanted)
    ended = await stage.run(flow(*steps, early_return="results.b.x.y"))
    assert (ended.outcome, await early(ended)) == ("failure", 0)
    assert "early_return" in ended.result["error"]["message"]


async def test_a_flow_has_answered_early_while_it_runs(stage: Stage) -> None:
    line = flow(step("a", ADD, x=1), step("b", ADD, x=2), early_return="a")
    line["modules"][1]["value"]["tag"] = "nobody"
    flow_id = await stage.request(line)

    async def answered() -> Any:
        return await stage.queue.look.fetchval(
            "SELECT early FROM queue.any_job WHERE id = $1 AND outcome IS NULL", flow_id
        )

    assert await eventually(answered) == "2"
    stage.publish((await stage.queue.cancel(flow_id)).said)


async def test_the_flows_own_values_are_seen_and_references_among_them_looked_up(stage: Stage) -> None:
    env = {"plain": {"a": [1]}, "secret": "$var:u/ann/v"}
    ended = await stage.run(flow(step("a", "lambda x: x", x=expr("flow_env.plain.a[0]")), flow_env=env))
    assert ended.result == 1
    ended = await stage.run(flow(step("a", "lambda x: x", x=expr("flow_env.secret + '!'")), flow_env=env))
    assert ended.result["error"]["message"] == (
        "step a, input x: flow_env.secret: variable('u/ann/v'): a workspace has no variables yet"
    )
