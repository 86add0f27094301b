"""Flows over HTTP: versions, their values kept as they were sent, visibility, and what can't be run."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.person("op", operator=True)
        yield it


def code(name: str = "a", content: str = "def main(): return 1", **more: Any) -> dict[str, Any]:
    """Return a module of Python code."""
    return {"id": name, "value": {"type": "rawscript", "language": "python3", "content": content, **more}}


def step(name: str, kind: str, path: str, **more: Any) -> dict[str, Any]:
    """Return a module that names a script or a flow."""
    return {"id": name, "value": {"type": kind, "path": path, "input_transforms": {}, **more}}


async def refused(api: House, status: int, who: str = "ann", **fields: Any) -> str:
    body = {"path": "u/ann/refused", "summary": "", "value": {"modules": []}, **fields}
    reply = await api.post(who, "flows/create", body, status=status)
    assert reply.content_type == "text/plain"
    return reply.text


VALUE = {
    "modules": [
        {
            "id": "a",
            "summary": "grüße 😀",
            "value": {
                "type": "rawscript",
                "language": "bash",
                "content": "echo hi",
                "lock": "",
                "input_transforms": {
                    "x": {"type": "javascript", "expr": "flow_input.x"},
                    "y": {"type": "static", "value": {"z": [1, 2.50, None, "$res:u/ann/r"], "b": 12345678901234567890}},
                },
                "assets": [],
                "is_trigger": False,
            },
            "stop_after_if": {"expr": "result == 1", "skip_if_stopped": True, "error_message": None},
            "from_the_future": {"k": 1},
        },
        {
            "id": "b",
            "value": {
                "type": "forloopflow",
                "iterator": {"type": "javascript", "expr": "results.a"},
                "skip_failures": False,
                "parallelism": {"type": "static", "value": 3},
                "modules": [{"id": "c", "value": {"type": "identity"}}],
            },
            "suspend": {"required_events": 1, "timeout": 1800},
        },
    ],
    "same_worker": False,
    "notes": [{"id": "n", "text": "only for editors"}],
    "groups": [],
}


async def test_a_deployed_flow_comes_back_as_it_was_sent(api: House) -> None:
    schema = {"$schema": "x", "type": "object", "properties": {"b": {"default": None}, "a": {"type": "number"}}}
    sent = {
        "path": "u/ann/full",
        "summary": "Sum",
        "description": "Desc",
        "value": VALUE,
        "schema": schema,
        "tag": "gpu",
        "labels": ["l"],
        "timeout": 7,
        "priority": 3,
        "visible_to_runner_only": True,
        "deployment_message": "first",
        "skip_draft_deletion": True,
        "ws_error_handler_muted": False,
        "dedicated_worker": False,
    }
    created = await api.post("ann", "flows/create", sent, status=201)
    assert (created.content_type, created.text) == ("text/plain", "u/ann/full")
    assert "Tidemill-Ignored" not in created.headers
    reply = await api.get("ann", "flows/get/u/ann/full")
    got = reply.json
    kept = {name: value for name, value in sent.items() if name not in ("skip_draft_deletion", "deployment_message")}
    assert {name: got[name] for name in kept} == kept
    assert json.dumps(VALUE).encode() in reply.body
    assert (got["edited_by"], got["archived"], got["is_draft"], got["deployment_msg"]) == ("ann", False, False, "first")
    assert got == (await api.get("ann", f"flows/get/v/{got['version_id']}")).json
    assert list(got["schema"]["properties"]) == ["b", "a"]


async def test_what_was_not_set_is_left_out(api: House) -> None:
    await api.flow("u/ann/small")
    got = (await api.get("ann", "flows/get/u/ann/small")).json
    assert None not in got.values()
    assert got.keys() == {
        "workspace_id", "path", "summary", "description", "value", "edited_by", "edited_at", "archived", "version_id",
        "ws_error_handler_muted", "dedicated_worker", "extra_perms", "starred", "is_draft",
    }  # fmt: skip


async def test_every_update_makes_a_version(api: House) -> None:
    first = await api.flow("u/ann/line")
    body = {"summary": "2", "value": {"modules": [code()]}, "deployment_message": "why"}
    assert (await api.post("ann", "flows/update/u/ann/line", body)).text == "u/ann/line"
    await api.post("ann", "flows/update/u/ann/line", {**body, "deployment_message": "the same again"})
    history = (await api.get("ann", "flows/history/p/u/ann/line")).json
    assert [each.get("deployment_msg") for each in history] == ["the same again", "why", None]
    assert history[-1]["id"] == first
    assert history[0]["created_by"] == "ann"
    assert (await api.get("ann", "flows/history/p/u/ann/line", page=2, per_page=2)).json == history[2:]
    assert (await api.get("ann", "flows/get_latest_version/u/ann/line")).json == history[0]
    assert (await api.get("ann", "flows/get/u/ann/line")).json["version_id"] == history[0]["id"]
    old = (await api.get("ann", f"flows/get/v/{first}")).json
    assert (old["summary"], old["value"]) == ("", {"modules": []})
    await api.post("ann", f"flows/history_update/v/{first}", {"deployment_msg": "told later"})
    assert (await api.get("ann", "flows/history/p/u/ann/line")).json[-1]["deployment_msg"] == "told later"
    await api.post("ann", "flows/update/u/ann/nowhere", body, status=404)
    await api.post("ann", "flows/history_update/v/999999999", {"deployment_msg": ""}, status=404)


async def test_a_flow_moves_to_a_free_path_with_its_history(api: House) -> None:
    first = await api.flow("u/ann/before")
    body = {"path": "u/ann/after", "summary": "", "value": {"modules": []}}
    assert (await api.post("ann", "flows/update/u/ann/before", body)).text == "u/ann/after"
    await api.get("ann", "flows/get/u/ann/before", status=404)
    assert [each["id"] for each in (await api.get("ann", "flows/history/p/u/ann/after")).json][-1] == first
    assert (await api.get("ann", f"flows/get/v/{first}")).json["path"] == "u/ann/after"
    await api.flow("u/ann/before")
    moved = {**body, "path": "u/ann/before"}
    assert "taken" in (await api.post("ann", "flows/update/u/ann/after", moved, status=400)).text
    await api.post("ann", "flows/update/u/ann/after", {**body, "path": "u/bob/after"}, status=403)


async def test_a_token_for_one_flow_moves_it_nowhere_else(api: House) -> None:
    await api.flow("u/ann/kept")
    await api.queue.look.execute(
        "UPDATE platform.token SET scopes = ARRAY['flows:write:u/ann/kept,u/ann/also'] WHERE email = 'ann@example.com'"
    )
    try:
        new = {"summary": "", "value": {"modules": []}}
        said = await api.post("ann", "flows/update/u/ann/kept", {**new, "path": "u/ann/elsewhere"}, status=403)
        assert "flows:write:u/ann/elsewhere" in said.text
        await api.post("ann", "flows/update/u/ann/kept", {**new, "path": "u/ann/kept"}, status=200)
        await api.post("ann", "flows/update/u/ann/kept", {**new, "path": "u/ann/also"}, status=200)
    finally:
        await api.queue.look.execute("UPDATE platform.token SET scopes = NULL")


async def test_an_archived_flow_is_shown_but_not_there_until_it_is_deployed_or_fetched_again(api: House) -> None:
    await api.flow("u/ann/old")
    for _ in range(2):
        assert (await api.post("ann", "flows/archive/u/ann/old", {"archived": True})).content_type == "text/plain"
    assert (await api.get("ann", "flows/get/u/ann/old")).json["archived"]
    assert (await api.get("ann", "flows/exists/u/ann/old")).json is False
    assert [each["path"] for each in (await api.get("ann", "flows/list", show_archived="true")).json] == ["u/ann/old"]
    await api.post("ann", "flows/archive/u/ann/old", {"archived": False})
    assert (await api.get("ann", "flows/exists/u/ann/old")).json is True
    await api.post("ann", "flows/archive/u/ann/old")
    await api.post("ann", "flows/update/u/ann/old", {"summary": "", "value": {"modules": []}})
    assert (await api.get("ann", "flows/exists/u/ann/old")).json is True
    await api.post("ann", "flows/archive/u/ann/old")
    await api.flow("u/ann/old")
    assert len((await api.get("ann", "flows/history/p/u/ann/old")).json) == 3
    await api.post("ann", "flows/archive/u/ann/never", status=404)


async def test_deleting_what_is_deleted_already_is_no_error(api: House) -> None:
    version = await api.flow("u/ann/gone")
    for _ in range(2):
        assert (await api.call("ann", "DELETE", "flows/delete/u/ann/gone", status=200)).content_type == "text/plain"
    for path in ("get/u/ann/gone", f"get/v/{version}", "get_latest_version/u/ann/gone"):
        await api.get("ann", f"flows/{path}", status=404)
    again = await api.flow("u/ann/gone")
    assert [each["id"] for each in (await api.get("ann", "flows/history/p/u/ann/gone")).json] == [again]


async def test_what_is_not_supported_is_refused_by_name(api: House) -> None:
    unsupported: dict[str, Any] = {
        "ws_error_handler_muted": True,
        "dedicated_worker": True,
        "on_behalf_of": "u/bob",
        "on_behalf_of_email": "bob@example.com",
    }
    nothing: Any = None
    for field, value in unsupported.items():
        assert field in await refused(api, 422, **{field: value})
        assert await api.flow(f"u/ann/harmless_{field}", **{field: nothing})
    wrong: dict[str, Any] = {"path": "../x", "tag": "a b", "schema": []}
    for field, value in wrong.items():
        assert field in await refused(api, 400, **{field: value})
    assert "value" in (await api.post("ann", "flows/create", {"path": "u/ann/x", "summary": ""}, status=422)).text
    assert "taken" in await refused(api, 400, path="u/ann/harmless_on_behalf_of")


@pytest.mark.parametrize(
    ("modules", "names"),
    [
        ([code(), code()], ("'a'", "id", "taken")),
        ([step("b", "script", "u/ann/nowhere")], ("'b'", "value.path", "u/ann/nowhere")),
        ([step("b", "script", "u/bob/private")], ("'b'", "value.path", "u/bob/private")),
        ([step("b", "script", "u/ann/s", hash="00ff00ff")], ("'b'", "value.hash", "00ff00ff")),
        ([step("b", "flow", "u/ann/refused")], ("'b'", "value.path", "inside of itself")),
        ([{"id": "c", "value": {"type": "widget"}}], ("'c'", "value.type", "widget")),
    ],
)
async def test_what_can_not_be_run_is_refused_at_deployment_and_at_preview(
    api: House, modules: Any, names: tuple[str, ...]
) -> None:
    if (await api.get("bob", "scripts/exists/p/u/bob/private")).json is False:
        await api.script("u/bob/private", who="bob")
    value = {"modules": modules}
    said = [await refused(api, 422, value=value)]
    body = {"value": value, "path": "u/ann/refused", "args": {}}
    said += [
        (await api.post("ann", f"jobs/{route}/preview_flow", body, status=422)).text
        for route in ("run", "run_wait_result")
    ]
    for each in said:
        assert all(name in each for name in names), each
    assert (await api.get("ann", "flows/exists/u/ann/refused")).json is False


async def test_a_flow_may_name_one_that_comes_later_but_no_circle_is_closed(api: House) -> None:
    body: dict[str, Any] = {
        "path": "u/ann/circle_a",
        "summary": "",
        "value": {"modules": [step("s", "flow", "u/ann/circle_b")]},
    }
    reply = await api.post("ann", "flows/create", body, status=201)
    assert "u/ann/circle_b" in reply.headers["Tidemill-Note"]
    assert "u/ann/circle_b" in (await api.post("ann", "jobs/run/preview_flow", {**body, "args": {}}, status=422)).text
    closing = [code(), step("t", "flow", "u/ann/circle_a")]
    said = await refused(api, 422, path="u/ann/circle_b", value={"modules": closing})
    assert "'t'" in said
    assert "inside of itself" in said
    await api.flow("u/ann/circle_b", [code()])
    again = await api.post("ann", "flows/update/u/ann/circle_a", body)
    assert "Tidemill-Note" not in again.headers
    changed = {"summary": "", "value": {"modules": closing}}
    assert "inside of itself" in (await api.post("ann", "flows/update/u/ann/circle_b", changed, status=422)).text


async def test_flows_are_not_nested_without_end(api: House) -> None:
    await api.flow("u/ann/deep_0", [code()])
    for depth in range(1, 20):
        await api.flow(f"u/ann/deep_{depth}", [step("s", "flow", f"u/ann/deep_{depth - 1}")])
    said = await refused(api, 422, value={"modules": [step("s", "flow", "u/ann/deep_19")]})
    assert "20 deep" in said


async def test_steps_name_scripts_by_path_and_versions_by_hash(api: House) -> None:
    version = await api.script("u/ann/named")
    modules = [step("p", "script", "u/ann/named"), step("h", "script", "u/ann/named", hash=version)]
    await api.flow("u/ann/names", modules)
    await api.post("ann", "scripts/archive/p/u/ann/named")
    said = await refused(api, 422, value={"modules": modules})
    assert "'p'" in said
    assert await api.flow("u/ann/names_a_version", modules[1:])


async def test_people_deploy_below_their_own_path_and_admins_everywhere(api: House) -> None:
    await refused(api, 403, who="bob", path="u/ann/foreign")
    await refused(api, 403, who="bob", path="f/team/foreign")
    await refused(api, 403, who="op", path="u/op/own")
    assert await api.flow("f/team/by_root", who="root")
    assert await api.flow("u/ann/by_root", who="root")


async def test_what_one_may_not_see_is_not_there(api: House) -> None:
    version = await api.flow("u/ann/private")
    for path in ("get/u/ann/private", f"get/v/{version}", "get_latest_version/u/ann/private",
                 "deployment_status/p/u/ann/private"):  # fmt: skip
        await api.get("root", f"flows/{path}")
        seen = await api.get("bob", f"flows/{path}", status=404)
        absent = await api.get(
            "bob", f"flows/{path.replace('private', 'nowhere').replace(str(version), '999999999')}", status=404
        )
        assert seen.text.replace("private", "nowhere").replace(str(version), "999999999") == absent.text
    assert (await api.get("bob", "flows/exists/u/ann/private")).json is False
    assert (await api.get("bob", "flows/history/p/u/ann/private")).json == []
    assert "u/ann/private" not in (await api.get("bob", "flows/list_paths")).json
    assert "u/ann/private" in (await api.get("ann", "flows/list_paths")).json
    for path in ("update/u/ann/private", "archive/u/ann/private", f"history_update/v/{version}"):
        body = {"summary": "", "value": {"modules": []}, "deployment_msg": "", "archived": True}
        await api.post("bob", f"flows/{path}", body, status=404)
    await api.call("bob", "DELETE", "flows/delete/u/ann/private", status=200)
    assert (await api.get("ann", "flows/exists/u/ann/private")).json is True
    assert (await api.get("bob", "flows/list", per_page=1000)).json == []


async def test_lists_are_filtered_ordered_and_paged(api: House) -> None:
    for name in "abc":
        await api.flow(f"u/ann/list/{name}", labels=[name], description="long")
    await api.post("ann", "flows/archive/u/ann/list/c")

    async def listed(**query: Any) -> list[str]:
        return [
            each["path"][-1] for each in (await api.get("ann", "flows/list", path_start="u/ann/list/", **query)).json
        ]

    assert await listed() == ["b", "a"]
    assert await listed(order_desc="false") == ["a", "b"]
    assert await listed(page=0, per_page=1) == await listed(page=1, per_page=1) == ["b"]
    assert await listed(page=2, per_page=1) == ["a"]
    assert await listed(label="a") == ["a"]
    assert await listed(show_archived="true") == ["c"]
    assert await listed(path_exact="u/ann/list/a") == ["a"]
    assert await listed(created_by="bob") == []
    assert await listed(include_draft_only="true", starred_only="false") == ["b", "a"]
    await api.post("ann", "flows/update/u/ann/list/a", {"summary": "", "value": {"modules": []}})
    assert await listed() == ["a", "b"]
    without = (await api.get("ann", "flows/list", path_exact="u/ann/list/b", without_description="true")).json
    assert without[0]["description"] == ""
    await api.get("ann", "flows/list", starred_only="true", status=422)


async def test_one_of_many_first_deployments_at_once_wins(api: House) -> None:
    body = {"path": "u/ann/race", "summary": "", "value": {"modules": []}}
    replies = await asyncio.gather(*(api.post("ann", "flows/create", body, status=None) for _ in range(8)))
    assert sorted(each.status for each in replies) == [201] + [400] * 7
    await asyncio.gather(*(api.post("ann", "flows/update/u/ann/race", body) for _ in range(8)))
    history = (await api.get("ann", "flows/history/p/u/ann/race")).json
    assert len(history) == 9
    assert (await api.get("ann", "flows/get/u/ann/race")).json["version_id"] == history[0]["id"]


async def test_every_change_is_audited_once_and_nothing_else_is(api: House) -> None:
    version = await api.flow("u/ann/audited")
    await refused(api, 400, path="u/ann/audited")
    await api.post("ann", "flows/update/u/ann/audited", {"summary": "", "value": {"modules": []}})
    await api.post("ann", f"flows/history_update/v/{version}", {"deployment_msg": "x"})
    for _ in range(2):
        await api.post("ann", "flows/archive/u/ann/audited")
    for _ in range(2):
        await api.call("ann", "DELETE", "flows/delete/u/ann/audited", status=200)
    said = [each for each in await api.audited() if each["resource"] == "u/ann/audited"]
    assert [(each["operation"], each["action_kind"], each["username"]) for each in said] == [
        ("flows.create", "Created", "ann"),
        ("flows.update", "Updated", "ann"),
        ("flows.update", "Updated", "ann"),
        ("flows.archive", "Updated", "ann"),
        ("flows.delete", "Delete", "ann"),
    ]
    assert said[0]["parameters"] == {"version": version}


async def test_what_the_scheduler_reads_of_flows_and_scripts(api: House) -> None:
    version = await api.flow(
        "u/ann/for_scheduler",
        tag="gpu",
        timeout=7,
        priority=3,
        value={
            "modules": [code()],
            "concurrent_limit": 2,
            "concurrency_key": "k",
            "cache_ttl": 60,
            "delete_after_secs": 0,
        },
    )

    async def look(query: str, *values: Any) -> Mapping[str, Any] | None:
        row = await api.queue.scheduler.fetchrow(query, *values)
        return None if row is None else dict(row)

    flow = await look("SELECT * FROM platform.flow_to_run('w', 'u/ann/for_scheduler', 'ann', false)")
    assert flow == {
        "version": version,
        "path": "u/ann/for_scheduler",
        "tag": "gpu",
        "timeout_s": 7,
        "priority": 3,
        "concurrent_limit": 2,
        "concurrency_key": "k",
        "visible_to_runner_only": False,
        "cache_ttl_s": 60,
        "erase_after_s": 0,
    }
    definition = "SELECT * FROM platform.flow_definition($1, $2)"
    found = await look(definition, "w", version)
    assert found is not None
    assert json.loads(found["value"])["modules"] == [code()]
    assert (json.loads(found["locks"]), found["path"]) == ({"a": ""}, "u/ann/for_scheduler")
    assert await look(definition, "elsewhere", version) is None
    assert await look("SELECT * FROM platform.flow_to_run('w', 'u/ann/for_scheduler', 'bob', false)") is None
    first = await api.script("u/ann/for_scheduler", envs=["A=b"])
    second = await api.script("u/ann/for_scheduler", content="2", parent_hash=first)
    script = "SELECT hash, path, language, envs FROM platform.script_to_run($1, $2, $3, $4, false)"
    expected = {"hash": second, "path": "u/ann/for_scheduler", "language": "python3", "envs": []}
    assert await look(script, "w", "u/ann/for_scheduler", None, "ann") == expected
    assert await look(script, "w", "u/ann/for_scheduler", first, "ann") == {
        **expected,
        "hash": first,
        "envs": ["A=b"],
    }
    assert await look(script, "w", "u/ann/for_scheduler", None, "bob") is None
    assert await look(script, "w", "u/ann/for_scheduler", first, "bob") is None
    await api.call("ann", "DELETE", "flows/delete/u/ann/for_scheduler", status=200)
    assert await look("SELECT * FROM platform.flow_to_run('w', 'u/ann/for_scheduler', 'ann', false)") is None
    # Its jobs end as they began.
    assert await look(definition, "w", version) is not None


async def test_an_expression_that_is_no_javascript_is_refused_with_its_place(api: House) -> None:
    good = {**code(), "skip_if": {"expr": "results['x-y'] ?? await variable('u/ann/v')"}}
    wrong = {**code("b"), "stop_after_if": {"expr": "a b"}}
    for value, place in (
        ({"modules": [good, wrong]}, ("'b'", "stop_after_if.expr", "SyntaxError")),
        ({"modules": [good], "skip_expr": "flow_input."}, ("of the flow", "skip_expr", "SyntaxError")),
    ):
        preview = await api.post("ann", "jobs/run/preview_flow", {"value": value, "args": {}}, status=422)
        for said in (await refused(api, 422, value=value), preview.text):
            assert all(part in said for part in place), said
    # What never ends is never executed.
    assert await api.flow("u/ann/expressed", [good, {**code("b"), "skip_if": {"expr": "while (true) {}"}}])


async def test_what_is_too_much_to_be_read_is_refused_with_its_place(api: House) -> None:
    long = {**code("b"), "skip_if": {"expr": "1 + " * 16_384 + "1"}}
    said = await refused(api, 422, value={"modules": [code(), long]})
    assert all(part in said for part in ("'b'", "skip_if.expr", "64 KiB")), said
    inputs = {f"k{no}": {"type": "javascript", "expr": f"{no}"} for no in range(10_001)}
    said = await refused(api, 422, value={"modules": [code("many", input_transforms=inputs)]})
    assert "'many'" in said
    assert "10000" in said


async def test_expressions_are_not_read_where_no_process_can_be_had(
    own_database_urls: DatabaseUrls,
) -> None:
    async with house(own_database_urls) as api:
        await api.person("ann")
        await api.context.expressions._javascript.__aexit__()
        modules = [{**code(), "skip_if": {"expr": "1"}}]
        assert "Expressions" in await refused(api, 503, value={"modules": modules})
        assert await api.flow("u/ann/plain", [code()])
