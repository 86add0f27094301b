"""Scripts over HTTP: versions, lineage, visibility."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.database import DatabaseUrls
from tests.support.house import House, house
from tidemill.api.scripts import rules, store
from tidemill.api.scripts.schemas import NewScript


@pytest.fixture(scope="module")
async def api(database_urls: DatabaseUrls) -> AsyncIterator[House]:
    async with house(database_urls) as it:
        await it.person("root", is_admin=True)
        await it.person("ann")
        await it.person("bob")
        await it.person("op", operator=True)
        yield it


async def refused(api: House, status: int, who: str = "ann", **fields: Any) -> str:
    body = {"path": "u/ann/refused", "content": "x", "language": "python3", "summary": "", **fields}
    reply = await api.post(who, "scripts/create", body, status=status)
    assert reply.content_type == "text/plain"
    return reply.text


async def test_a_deployed_script_comes_back_as_it_was_sent(api: House) -> None:
    schema = {"$schema": "x", "type": "object", "properties": {"b": {"default": None}, "a": {"type": "number"}}}
    sent = {
        "path": "u/ann/full",
        "content": "def main(a: float): return a  # grüße 😀",
        "language": "python3",
        "summary": "Sum",
        "description": "Desc",
        "kind": "trigger",
        "schema": schema,
        "lock": "",
        "tag": "gpu",
        "envs": ["A=b"],
        "labels": ["l"],
        "timeout": 7,
        "priority": 3,
        "concurrent_limit": 2,
        "concurrency_key": "k-$args[a]",
        "is_template": True,
        "visible_to_runner_only": True,
        "auto_kind": "lib",
        "dedicated_worker": True,
        "cache_ttl": 60,
        "delete_after_secs": 0,
        "deployment_message": "first",
        "skip_draft_deletion": True,
        "ws_error_handler_muted": False,
    }
    created = await api.post("ann", "scripts/create", sent, status=201)
    assert created.content_type == "text/plain"
    assert len(created.text) == 16
    assert "Tidemill-Ignored" not in created.headers
    got = (await api.get("ann", "scripts/get/p/u/ann/full")).json
    kept = {name: value for name, value in sent.items() if name not in ("skip_draft_deletion", "deployment_message")}
    assert {name: got[name] for name in kept} == kept
    assert (got["hash"], got["created_by"], got["archived"]) == (created.text, "ann", False)
    assert got == (await api.get("ann", f"scripts/get/h/{created.text}")).json
    assert list(got["schema"]["properties"]) == ["b", "a"]


async def test_what_was_not_set_is_left_out_and_what_clients_need_is_there(api: House) -> None:
    await api.script("u/ann/small")
    got = (await api.get("ann", "scripts/get/p/u/ann/small")).json
    assert None not in got.values()
    assert got["ws_error_handler_muted"] is False
    assert not {"dedicated_worker", "auto_kind", "tag", "envs", "labels", "timeout", "lock_error_logs"} & got.keys()
    assert got["lock"] == ""
    assert {
        "hash", "path", "summary", "description", "content", "created_by", "created_at", "archived", "deleted",
        "is_template", "extra_perms", "language", "kind", "starred", "has_preprocessor", "is_draft",
    } <= got.keys()  # fmt: skip


async def test_a_schema_that_was_not_sent_is_read_off_the_content(api: House) -> None:
    await api.script("u/ann/inferred", content="def main(b: int, a: str = 'x'): pass")
    got = (await api.get("ann", "scripts/get/p/u/ann/inferred")).json
    assert got["schema"] == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"b": {"type": "integer"}, "a": {"type": "string", "default": "x"}},
        "required": ["b"],
        "order": ["b", "a"],
    }
    assert list(got["schema"]["properties"]) == ["b", "a"]
    assert (await api.get("ann", "scripts/list", path_exact="u/ann/inferred")).json[0]["schema"] == got["schema"]
    await api.script("u/ann/inferred_bash", content='name="$1"', language="bash")
    assert (await api.get("ann", "scripts/get/p/u/ann/inferred_bash")).json["schema"]["required"] == ["name"]


async def test_a_script_without_main_is_kept_as_a_library(api: House) -> None:
    body = {"path": "u/ann/library", "content": "def helper(): pass", "language": "python3", "summary": ""}
    reply = await api.post("ann", "scripts/create", body, status=201)
    assert "Tidemill-Note" not in reply.headers
    got = (await api.get("ann", "scripts/get/p/u/ann/library")).json
    assert got["auto_kind"] == "lib"
    assert "schema" not in got


async def test_content_that_cannot_be_read_is_deployed_with_a_note_and_without_a_schema(api: House) -> None:
    for name, content in (("syntax", "def main(:"), ("depth", "-" * 50_000 + "1"), ("length", "#" * 100_000)):
        body = {"path": f"u/ann/unread_{name}", "content": content, "language": "python3", "summary": ""}
        reply = await api.post("ann", "scripts/create", body, status=201)
        assert reply.headers["Tidemill-Note"].startswith("There is no schema: ")
        assert "schema" not in (await api.get("ann", f"scripts/get/p/u/ann/unread_{name}")).json
        reply = await api.post("ann", "scripts/create", {**body, "schema": {}, "parent_hash": reply.text}, status=201)
        assert "Tidemill-Note" not in reply.headers
        assert (await api.get("ann", f"scripts/get/p/u/ann/unread_{name}")).json["schema"] == {}


async def test_the_same_without_a_schema_is_recognised_whether_or_not_one_was_read_before(api: House) -> None:
    body: dict[str, Any] = {
        "path": "u/ann/recognised",
        "content": "def main(a): pass",
        "language": "python3",
        "summary": "",
    }
    first = (await api.post("ann", "scripts/create", body, status=201)).text
    assert first == rules.hash_of(rules.fingerprint(store.values_of(NewScript(**body))), None)
    schema = (await api.get("ann", "scripts/get/p/u/ann/recognised")).json["schema"]
    for again in (body, {**body, "schema": None}):
        assert (await api.post("ann", "scripts/create", again, status=201, skip_if_noop="true")).text == first
        assert first in (await api.post("ann", "scripts/create", {**again, "auto_parent": True}, status=400)).text
    await api.queue.look.execute("UPDATE platform.script SET schema = NULL WHERE hash = $1", first)
    assert (await api.post("ann", "scripts/create", body, status=201, skip_if_noop="true")).text == first
    own = {**body, "schema": {**schema, "properties": {"a": {"description": "d"}}}, "parent_hash": first}
    second = (await api.post("ann", "scripts/create", own, status=201)).text
    assert second != first
    assert (await api.get("ann", "scripts/get/p/u/ann/recognised")).json["schema"] == own["schema"]


async def test_a_new_version_archives_the_one_it_follows(api: House) -> None:
    first = await api.script("u/ann/line")
    second = await api.script("u/ann/line", content="2", parent_hash=first, deployment_message="why")
    assert (await api.get("ann", "scripts/get/p/u/ann/line")).json["parent_hashes"] == [first]
    assert (await api.get("ann", f"scripts/get/h/{first}")).json["archived"]
    history = (await api.get("ann", "scripts/history/p/u/ann/line")).json
    assert [(each["script_hash"], each.get("deployment_msg")) for each in history] == [(second, "why"), (first, None)]
    assert (await api.get("ann", "scripts/get_latest_version/u/ann/line")).json["script_hash"] == second
    assert "lineage" in await refused(api, 400, path="u/ann/line", content="3", parent_hash=first)
    assert second in await refused(api, 400, path="u/ann/line", content="3")
    third = await api.script("u/ann/line", content="3", parent_hash=first, auto_parent=True)
    assert (await api.get("ann", "scripts/get/p/u/ann/line")).json["parent_hashes"] == [second, first]
    assert third not in (first, second)


async def test_deploying_the_same_again_is_refused_or_answers_the_head(api: House) -> None:
    first = await api.script("u/ann/same", content="1")
    again = {"path": "u/ann/same", "content": "1", "language": "python3", "summary": "", "parent_hash": first}
    assert first in (await api.post("ann", "scripts/create", again, status=400)).text
    assert (await api.post("ann", "scripts/create", again, status=201, skip_if_noop="true")).text == first
    changed = {**again, "content": "2"}
    assert (await api.post("ann", "scripts/create", changed, status=201, skip_if_noop="true")).text != first


async def test_an_archived_script_can_be_deployed_again_unchanged(api: House) -> None:
    first = await api.script("u/ann/again")
    await api.post("ann", "scripts/archive/p/u/ann/again")
    await api.get("ann", "scripts/get/p/u/ann/again", status=404)
    second = await api.script("u/ann/again")
    assert second != first
    assert (await api.get("ann", "scripts/get/p/u/ann/again")).json["hash"] == second


async def test_a_script_moves_to_a_free_path(api: House) -> None:
    before = await api.script("u/ann/before")
    after = await api.script("u/ann/after", parent_hash=before)
    assert (await api.get("ann", "scripts/get/p/u/ann/after")).json["parent_hashes"] == [before]
    assert (await api.get("ann", "scripts/exists/p/u/ann/before")).json is False
    await api.script("u/ann/taken")
    assert "taken" in await refused(api, 400, path="u/ann/taken", parent_hash=after)


async def test_scripts_with_a_dedicated_worker_can_be_listed(api: House) -> None:
    await api.script("u/ann/cold_one")
    await api.script("u/ann/warm_one", dedicated_worker=True)
    for wanted, path in (("true", "u/ann/warm_one"), ("false", "u/ann/cold_one")):
        found = (await api.get("ann", "scripts/list", path_start=path[:10], dedicated_worker=wanted)).json
        assert [each["path"] for each in found] == [path]


async def test_archiving_twice_changes_nothing_the_second_time(api: House) -> None:
    version = await api.script("u/ann/gone")
    for _ in range(2):
        assert (await api.post("ann", "scripts/archive/p/u/ann/gone")).content_type == "text/plain"
    for _ in range(2):
        assert (await api.post("ann", f"scripts/archive/h/{version}")).json["archived"]
    await api.post("ann", "scripts/archive/p/u/ann/never", status=404)
    await api.post("ann", "scripts/archive/h/0000000000000000", status=404)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"delete_after_use": True}, 0),
        ({"delete_after_use": True, "delete_after_secs": 60}, 60),
        ({"delete_after_use": False}, None),
    ],
)
async def test_when_runs_are_erased_may_be_said_as_older_clients_do(api: House, sent: Any, kept: int | None) -> None:
    version = await api.script(f"u/ann/erased_{kept}", **sent)
    assert (await api.get("ann", f"scripts/get/h/{version}")).json.get("delete_after_secs") == kept


async def test_what_is_not_supported_is_refused_by_name(api: House) -> None:
    unsupported: dict[str, Any] = {
        "ws_error_handler_muted": True,
        "modules": {"a": {}},
        "concurrency_time_window_s": 10,
        "codebase": "x",
        "has_preprocessor": True,
    }
    nothing: Any = None
    for field, value in unsupported.items():
        assert field in await refused(api, 422, **{field: value})
        assert await api.script(f"u/ann/harmless_{field}", **{field: nothing})
    assert "bun" in await refused(api, 422, language="bun")
    wrong: dict[str, Any] = {"path": "../x", "kind": "widget", "envs": ["x"], "tag": "a b", "schema": []}
    for field, value in wrong.items():
        assert field in await refused(api, 400, **{field: value})
    mistyped: dict[str, Any] = dict.fromkeys(("path", "content", "language"), 7)
    for field, value in mistyped.items():
        assert field in await refused(api, 422, **{field: value})


async def test_unknown_fields_are_accepted_and_named(api: House) -> None:
    body = {"path": "u/ann/unknown", "content": "x", "language": "bash", "summary": "", "from_the_future": 1}
    reply = await api.post("ann", "scripts/create", body, status=201)
    assert reply.headers["Tidemill-Ignored"] == "from_the_future"


async def test_people_deploy_below_their_own_path_and_admins_everywhere(api: House) -> None:
    await refused(api, 403, who="bob", path="u/ann/foreign")
    await refused(api, 403, who="bob", path="f/team/foreign")
    await refused(api, 403, who="op", path="u/op/own")
    assert await api.script("f/team/by_root", who="root")
    assert await api.script("u/ann/by_root", who="root")


async def test_what_one_may_not_see_is_not_there(api: House) -> None:
    version = await api.script("u/ann/private")
    for path in ("get/p/u/ann/private", f"get/h/{version}", "raw/p/u/ann/private", f"raw/h/{version}",
                 "get_latest_version/u/ann/private"):  # fmt: skip
        await api.get("root", f"scripts/{path}")
        seen = await api.get("bob", f"scripts/{path}", status=404)
        absent = await api.get(
            "bob", f"scripts/{path.replace('private', 'nowhere').replace(version, '0' * 16)}", status=404
        )
        assert seen.text.replace("private", "nowhere").replace(version, "0" * 16) == absent.text
    assert (await api.get("bob", "scripts/exists/p/u/ann/private")).json is False
    assert (await api.get("bob", "scripts/history/p/u/ann/private")).json == []
    assert "u/ann/private" not in (await api.get("bob", "scripts/list_paths")).json
    assert "u/ann/private" in (await api.get("ann", "scripts/list_paths")).json
    await api.post("bob", "scripts/archive/p/u/ann/private", status=404)
    assert (await api.get("bob", "scripts/list", per_page=1000)).json == []


async def test_the_source_alone_with_and_without_an_extension(api: House) -> None:
    version = await api.script("u/ann/source", content="print('ü')\n")
    for path in ("p/u/ann/source", "p/u/ann/source.py", f"h/{version}", f"h/{version}.py"):
        reply = await api.get("ann", f"scripts/raw/{path}")
        assert (reply.text, reply.content_type) == ("print('ü')\n", "text/plain")
    await api.script("u/ann/source.py", content="its own")
    assert (await api.get("ann", "scripts/raw/p/u/ann/source.py")).text == "its own"


async def test_lists_are_filtered_ordered_and_paged(api: House) -> None:
    for name in "abc":
        await api.script(f"u/ann/list/{name}", language="bash" if name == "b" else "python3", labels=[name])
    await api.post("ann", "scripts/archive/p/u/ann/list/c")

    async def listed(**query: Any) -> list[str]:
        return [
            each["path"][-1] for each in (await api.get("ann", "scripts/list", path_start="u/ann/list/", **query)).json
        ]

    assert await listed() == ["b", "a"]
    assert await listed(order_desc="false") == ["a", "b"]
    assert await listed(page=0, per_page=1) == await listed(page=1, per_page=1) == ["b"]
    assert await listed(page=2, per_page=1) == ["a"]
    assert await listed(languages="bash,deno") == ["b"]
    assert await listed(kinds="trigger") == []
    assert await listed(label="a") == ["a"]
    assert await listed(show_archived="true") == ["c"]
    assert await listed(path_exact="u/ann/list/a") == ["a"]
    assert await listed(created_by="bob") == []
    assert await listed(include_draft_only="true", starred_only="false") == ["b", "a"]
    await api.get("ann", "scripts/list", starred_only="true", status=422)


async def test_one_of_many_deployments_at_once_wins_and_the_line_stays_one(api: House) -> None:
    body = {"path": "u/ann/race", "language": "bash", "summary": ""}
    replies = await asyncio.gather(
        *(api.post("ann", "scripts/create", {**body, "content": str(n)}, status=None) for n in range(8))
    )
    assert sorted(each.status for each in replies) == [201] + [400] * 7
    replies = await asyncio.gather(
        *(
            api.post("ann", "scripts/create", {**body, "content": f"a{n}", "auto_parent": True}, status=201)
            for n in range(8)
        )
    )
    lineage = (await api.get("ann", "scripts/get/p/u/ann/race")).json["parent_hashes"]
    assert len({each.text for each in replies}) == 8
    assert len(set(lineage)) == 8


async def test_every_change_is_audited_once_and_nothing_else_is(api: House) -> None:
    version = await api.script("u/ann/audited")
    await refused(api, 400, path="u/ann/audited")
    for _ in range(2):
        await api.post("ann", "scripts/archive/p/u/ann/audited")
    said = [each for each in await api.audited() if each["resource"] == "u/ann/audited"]
    assert [(each["operation"], each["action_kind"], each["username"]) for each in said] == [
        ("scripts.create", "Created", "ann"),
        ("scripts.archive", "Delete", "ann"),
    ]
    assert said[0]["parameters"] == {"hash": version}
