"""Flows that take up another run, on real Postgres and a real scheduler: what was done before is not done again."""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import pytest

from tests.support.flows import Finished, Stage, branch_all, branch_one, expr, flow, loop, step, while_loop
from tests.support.waiting import eventually

FAIL = "lambda **_: 1 / 0"
VALUE = expr("flow_input.iter.value")
INDEX = expr("flow_input.iter.index")


async def take_up(stage: Stage, old: uuid.UUID, value: Mapping[str, Any], at: int, **more: Any) -> uuid.UUID:
    """Ask for a flow that begins at a place of another run and return its id."""
    restart = {"flow_job_id": str(old), "step_id": value["modules"][at]["id"], "at": at, **more}
    return await stage.request(value, {"n": 1}, restart=restart)


async def taken_up(stage: Stage, old: uuid.UUID, value: Mapping[str, Any], at: int, **more: Any) -> Finished:
    return await stage.end_of(await take_up(stage, old, value, at, **more))


async def children(stage: Stage, flow_id: uuid.UUID, no: int) -> Sequence[Any]:
    return [
        each["job_id"]
        for each in await stage.queue.look.fetch(
            "SELECT job_id FROM queue.flow_child WHERE flow_id = $1 AND no = $2 ORDER BY index", flow_id, no
        )
    ]


async def test_the_steps_before_are_taken_over_with_their_results(stage: Stage) -> None:
    before = [
        step("ra", "lambda x: x + 1", x=expr("flow_input.n")),
        loop("rl", [1, 2], step("rb", "lambda x: x", x=VALUE)),
        branch_one("ro", ("true", [step("rc", "lambda: 1"), step("rd", "lambda: 'chosen'")])),
        step("re", FAIL, options={"continue_on_error": True}),
    ]
    last = step("rz", FAIL)
    old = await stage.run(flow(*before, last), {"n": 1})
    assert old.outcome == "failure"
    ran = dict(stage.ran)
    results = "[results.ra, results.rl, results.ro, results.re.error.name, previous_result.error.name, flow_input.n]"
    value = flow(*before, step("rz", "lambda x: x", x=expr(results)))
    new = await taken_up(stage, old.id, value, 4)
    assert (new.outcome, new.result) == ("success", [2, [1, 2], "chosen", *["ZeroDivisionError"] * 2, 1])
    assert dict(stage.ran) == {**ran, "rz": 2}
    were, are = await stage.steps(old.id), await stage.steps(new.id)
    for module in ("ra", "rl", "ro", "re"):
        assert (are[module]["job_id"], are[module]["state"]) == (were[module]["job_id"], were[module]["state"])
    assert await children(stage, new.id, 1) == await children(stage, old.id, 1)


async def test_what_is_taken_up_twice_is_taken_over_twice(stage: Stage) -> None:
    value = flow(step("ta", "lambda: 5"), step("tb", "lambda x: x + 1", x=expr("results.ta")), step("tc", FAIL))
    first = await stage.run(value, {"n": 1})
    second = await taken_up(stage, first.id, value, 1)
    fixed = flow(*value["modules"][:2], step("tc", "lambda x: x", x=expr("[results.ta, results.tb]")))
    assert (await taken_up(stage, second.id, fixed, 2)).result == [5, 6]
    assert (stage.ran["ta"], stage.ran["tb"]) == (1, 2)


async def test_the_first_step_may_be_the_one_to_begin_at(stage: Stage) -> None:
    value = flow(step("fa", "lambda x: x", x=expr("previous_result.n")), skip_expr="flow_input.n == 1")
    old = await stage.run(flow(step("fa", FAIL)), {"n": 1})
    assert (await taken_up(stage, old.id, value, 0)).result == 1


async def test_a_loop_goes_on_at_an_iteration(stage: Stage) -> None:
    body = "lambda x, i: 1 // x if i == 2 else [x, i]"
    first = step("la", "lambda: [4, 5, 0, 7]")
    old = await stage.run(flow(first, loop("ll", expr("results.la"), step("lb", body, x=VALUE, i=INDEX))), {"n": 1})
    assert (old.outcome, stage.ran["lb"]) == ("failure", 3)
    after = step("lc", "lambda x: x", x=expr("results.ll"))
    value = flow(first, loop("ll", [], step("lb", "lambda x, i: {'x': x, 'i': i}", x=VALUE, i=INDEX)), after)
    new = await taken_up(stage, old.id, value, 1, branch_or_iteration_n=2)
    # The values are those that the run before went over.
    assert new.result == [[4, 0], [5, 1], {"x": 0, "i": 2}, {"x": 7, "i": 3}]
    assert stage.ran["lb"] == 5
    assert (await children(stage, new.id, 1))[:2] == (await children(stage, old.id, 1))[:2]
    whole = flow(first, loop("ll", [8], step("lb", "lambda x: x", x=VALUE)))
    assert (await taken_up(stage, old.id, whole, 1)).result == [8]


async def test_a_while_loop_and_branches_go_on_likewise(stage: Stage) -> None:
    def counting(code: str) -> dict[str, Any]:
        return flow(while_loop("ww", step("wb", code, x=INDEX), options={"stop_after_if": {"expr": "result >= 3"}}))

    old = await stage.run(counting("lambda x: 1 // (2 - x)"), {"n": 1})
    assert old.outcome == "failure"
    new = await taken_up(stage, old.id, counting("lambda x: x"), 0, branch_or_iteration_n=2)
    assert new.result == [0, 1, 2, 3]

    def branches(code: str, *more: Any) -> dict[str, Any]:
        return flow(branch_all("wa", [step("w1", "lambda: 'one'")], [step("w2", code)], *more))

    old = await stage.run(branches(FAIL), {"n": 1})
    value = branches("lambda: 'two'", [step("w3", "lambda: 'three'")])
    new = await taken_up(stage, old.id, value, 0, branch_or_iteration_n=1, total=3)
    assert (new.result, stage.ran["w1"]) == (["one", "two", "three"], 1)


async def say(stage: Stage, flow_id: uuid.UUID, *, approved: bool, value: Any = None) -> None:
    """Approve or refuse as the flow's owner, once it waits."""

    async def waits() -> bool:
        found: bool = await stage.queue.look.fetchval(
            "SELECT EXISTS (SELECT FROM queue.flow_step WHERE flow_id = $1 AND state = 'waiting')", flow_id
        )
        return found

    await eventually(waits)
    decision = {"job_id": str(flow_id), "resume_id": 1, "approved": approved, "username": "ann", "in_person": True}
    row = await stage.queue.api.fetchrow(
        "SELECT answer, said FROM queue.resume_flow('w', $1, $2, NULL)", json.dumps(decision), json.dumps(value)
    )
    assert row is not None
    assert row["answer"] == "noted"
    stage.publish(json.loads(row["said"]))


def approved_then(code: str) -> dict[str, Any]:
    return flow(
        step("sa", "lambda: 1", options={"suspend": {"required_events": 1, "timeout": 600}}),
        step("sb", code, x=expr("[resume, approvers, results.sa]")),
    )


async def test_an_approval_that_was_given_is_not_asked_for_again(stage: Stage) -> None:
    old = await stage.request(approved_then(FAIL), {"n": 1})
    await say(stage, old, approved=True, value={"ok": "yes"})
    assert (await stage.end_of(old)).outcome == "failure"
    new = await taken_up(stage, old, approved_then("lambda x: x"), 1, keeps_approvals=True)
    assert new.result[0] == {"ok": "yes"}
    assert new.result[2] == 1
    beyond = flow(*approved_then(FAIL)["modules"], step("sc", "lambda x: x", x=expr("results.sb")))
    again = await taken_up(stage, new.id, beyond, 2, keeps_approvals=True)
    spent = await stage.queue.look.fetch("SELECT spent_on FROM queue.flow_resume WHERE flow_id = $1", again.id)
    assert (again.result, [each["spent_on"] for each in spent]) == (new.result, [1])


async def test_a_refusal_is_no_approval_for_the_run_that_takes_it_up(stage: Stage) -> None:
    old = await stage.request(approved_then("lambda x: x"), {"n": 1})
    await say(stage, old, approved=False)
    assert (await stage.end_of(old)).outcome == "failure"
    new = await take_up(stage, old, approved_then("lambda x: x[0]"), 1, keeps_approvals=True)
    await say(stage, new, approved=True, value="now")
    assert (await stage.end_of(new)).result == "now"


async def test_an_approval_counts_only_for_whom_it_was_given(stage: Stage) -> None:
    old = await stage.request(approved_then(FAIL), {"n": 1})
    await say(stage, old, approved=True, value="then")
    assert (await stage.end_of(old)).outcome == "failure"
    restart = {"flow_job_id": str(old), "step_id": "sb", "at": 1, "keeps_approvals": True}
    bobs = await stage.request(
        approved_then("lambda x: x[0]"), restart=restart, created_by="bob", permissioned_as="u/bob"
    )
    await say(stage, bobs, approved=True, value="now")
    assert (await stage.end_of(bobs)).result == "now"


async def test_an_approval_counts_only_for_what_was_to_run_then(stage: Stage) -> None:
    old = await stage.request(approved_then(FAIL), {"n": 1})
    await say(stage, old, approved=True, value="then")
    assert (await stage.end_of(old)).outcome == "failure"
    new = await take_up(stage, old, approved_then("lambda x: x[0]"), 1)
    await say(stage, new, approved=True, value="now")
    assert (await stage.end_of(new)).result == "now"
    # Nor by a detour over a run that did not need it.
    beyond = flow(*approved_then(FAIL)["modules"], step("sc", "lambda: 1"))
    between = await taken_up(stage, new, beyond, 2)
    last = await take_up(stage, between.id, approved_then("lambda x: x[0]"), 1, keeps_approvals=True)
    await say(stage, last, approved=True, value="last")
    assert (await stage.end_of(last)).result == "last"


async def test_a_run_that_is_erased_leaves_what_it_took_over(stage: Stage) -> None:
    value = flow(step("ka", "lambda: 1"), step("kb", "lambda: 2"))
    old = await stage.run(value, {"n": 1})
    new = await stage.end_of(
        await stage.request(value, restart={"flow_job_id": str(old.id), "step_id": "kb", "at": 1}, erase_after_s=0)
    )
    steps = await stage.steps(new.id)
    due = "UPDATE queue.erasure SET due_at = now() WHERE job_id = ANY ($1)"
    jobs = [new.id, steps["ka"]["job_id"], steps["kb"]["job_id"]]

    async def erased() -> set[uuid.UUID]:
        await stage.queue.look.execute(due, jobs)
        await stage.queue.look.execute("SELECT queue.erase_due(10)")
        rows = await stage.queue.look.fetch("SELECT id FROM queue.finished_job WHERE deleted AND id = ANY ($1)", jobs)
        return {row["id"] for row in rows} if len(rows) > 1 else set()

    assert await eventually(erased) == {new.id, steps["kb"]["job_id"]}


async def test_what_was_erased_answers_null(stage: Stage) -> None:
    value = flow(step("ea", "lambda: 1"), step("eb", "lambda x: [x]", x=expr("results.ea")))
    old = await stage.run(value, {"n": 1})
    job = (await stage.steps(old.id))["ea"]["job_id"]
    assert await stage.queue.api.fetchval("SELECT answer FROM queue.forget_job('w', $1, NULL)", job) == "forgotten"
    assert (await taken_up(stage, old.id, value, 1)).result == [None]


async def test_what_is_not_there_is_not_taken_up(stage: Stage) -> None:
    value = flow(step("na", "lambda: 1"), step("nb", FAIL), step("nc", "lambda: 1"))
    old = await stage.run(value, {"n": 1})
    refused: Sequence[tuple[uuid.UUID, int, Mapping[str, Any]]] = (
        (uuid.uuid4(), 0, {}),
        (old.id, 3, {}),
        (old.id, 1, {"branch_or_iteration_n": 1}),
    )
    four = flow(*value["modules"], step("nd", "lambda: 1"))
    for job, at, more in refused:
        with pytest.raises(asyncpg.PostgresError) as error:
            await take_up(stage, job, four, at, **more)
        assert error.value.sqlstate == "TM011"
    stage.held.clear()
    try:
        running = await stage.request(value, {"n": 1})
        with pytest.raises(asyncpg.PostgresError):
            await take_up(stage, running, value, 0)
    finally:
        stage.held.set()
    await stage.end_of(running)


async def test_a_list_of_what_is_to_be_erased_is_not_copied(stage: Stage) -> None:
    body = step("ga", "lambda x: x", x=VALUE, options={"delete_after_secs": 3600})
    last = step("gb", "lambda x: x", x=expr("results.gl"))
    value = flow(loop("gl", [1, 2], body), last)
    old = await stage.run(value, {"n": 1})
    assert old.result == [1, 2]
    new = await taken_up(stage, old.id, value, 1)
    assert (await stage.steps(new.id))["gl"]["result"] is None
    assert new.result is None
