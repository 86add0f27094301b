"""What can be run of a flow's value, and how it is said that something can't."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from tidemill.api.flows import check, rules
from tidemill.api.flows.schemas import EditFlow, NewFlow
from tidemill.api.http.errors import BadRequest, HttpError, Unprocessable

DOCUMENTED = """
    summary description value schema on_behalf_of_email on_behalf_of path tag ws_error_handler_muted priority
    dedicated_worker timeout visible_to_runner_only preserve_on_behalf_of labels deployment_message skip_draft_deletion
"""
"""The fields of a new flow that clients know."""


def test_every_documented_field_is_supported_refused_or_tolerated_and_only_one_of_them() -> None:
    for kind in (NewFlow, EditFlow):
        supported = {field.name for field in msgspec.structs.fields(kind)}
        assert supported | rules.REFUSES.keys() | rules.TOLERATES.keys() >= set(DOCUMENTED.split())
        assert not supported & rules.REFUSES.keys()
        assert not (supported | rules.REFUSES.keys()) & rules.TOLERATES.keys()


def read(*modules: Any, **flow: Any) -> check.Checked:
    return check.read(json.dumps({"modules": list(modules), **flow}).encode())


def said(*modules: Any, error: type[HttpError] = Unprocessable, **flow: Any) -> str:
    with pytest.raises(error) as refused:
        read(*modules, **flow)
    return str(refused.value)


def code(name: str = "a", *, module: Mapping[str, Any] | None = None, **value: Any) -> dict[str, Any]:
    """Return a module of Bash code."""
    of = {"type": "rawscript", "language": "bash", "content": "echo", **value}
    return {"id": name, "value": of, **(module or {})}


def with_(**module: Any) -> dict[str, Any]:
    return code(module=module)


def loop(*modules: Any, name: str = "l", **value: Any) -> dict[str, Any]:
    iterator = {"type": "javascript", "expr": "flow_input.list"}
    return {"id": name, "value": {"type": "forloopflow", "iterator": iterator, "modules": list(modules), **value}}


def of_type(kind: str, **value: Any) -> dict[str, Any]:
    return {"id": "a", "value": {"type": kind, **value}}


def javascript(text: str) -> dict[str, str]:
    return {"type": "javascript", "expr": text}


def static(value: Any) -> dict[str, Any]:
    return {"type": "static", "value": value}


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (code("a b"), ("'a b'", "id")),
        (code(""), ("id",)),
        (code("failure"), ("'failure'", "id", "reserved")),
        (code("Input"), ("'Input'", "id", "reserved")),
        (code("__proto__"), ("id", "reserved")),
        (of_type("widget"), ("'a'", "value.type", "widget")),
        (of_type("aiagent"), ("'a'", "value.type", "AI agents are not there yet")),
        ({"id": "a", "value": {}}, ("'a'", "value", "type")),
        ({"id": "a"}, ("value",)),
        ({"value": {"type": "identity"}}, ("id",)),
        (of_type("rawscript", language="bash"), ("'a'", "value", "content")),
        (code(language="bun"), ("'a'", "value.language", "bun", "python3, bash")),
        (code(tag="a b"), ("'a'", "value.tag")),
        (code(tag="flow"), ("'a'", "value.tag")),
        ({**loop(code()), "timeout": 5}, ("'l'", "timeout")),
        ({**loop(code(), parallel=True), "stop_after_if": {"expr": "true"}}, ("'l'", "stop_after_if")),
        (of_type("whileloopflow", modules=[code("b")], parallel=True), ("'a'", "value.parallel")),
        (code(path="x"), ("'a'", "value.path")),
        (code(concurrent_limit=-1), ("'a'", "value.concurrent_limit")),
        (code(concurrency_time_window_s=5), ("'a'", "value.concurrency_time_window_s")),
        (code(language="python3", content="# requirements:\n# -r x\n"), ("'a'", "value.content", "-r x")),
        (code(input_transforms={"x": {"type": "ai"}}), ("'a'", "value.input_transforms.x")),
        (code(input_transforms={"x": {"type": "magic"}}), ("'a'", "value.input_transforms", "magic")),
        (code(input_transforms={"x": {"type": "javascript"}}), ("'a'", "value.input_transforms", "expr")),
        (of_type("script", path="hub/1/x"), ("'a'", "value.path", "hub")),
        (of_type("script", path="x/y"), ("'a'", "value.path")),
        (of_type("script", path="u/a/b", hash="zz"), ("'a'", "value.hash")),
        (of_type("script", path="u/a/b", tag_override="a b"), ("'a'", "value.tag_override")),
        (of_type("flow", path="hub/1/x"), ("'a'", "value.path", "hub")),
        (with_(retry={"constant": {"attempts": -1}}), ("'a'", "retry.constant.attempts")),
        (with_(retry={"constant": {"seconds": 10**9}}), ("'a'", "retry.constant.seconds")),
        (with_(retry={"exponential": {"attempts": 10**6}}), ("'a'", "retry.exponential.attempts")),
        (with_(retry={"exponential": {"multiplier": -1}}), ("'a'", "retry.exponential.multiplier")),
        (with_(retry={"exponential": {"seconds": -1}}), ("'a'", "retry.exponential.seconds")),
        (with_(retry={"exponential": {"random_factor": 101}}), ("'a'", "retry.exponential.random_factor")),
        (with_(suspend={"required_events": -1}), ("'a'", "suspend.required_events")),
        (with_(suspend={"timeout": 10**9}), ("'a'", "suspend.timeout")),
        (with_(suspend={"user_groups_required": {"type": "ai"}}), ("'a'", "suspend.user_groups_required")),
        (with_(timeout=-1), ("'a'", "timeout")),
        (with_(timeout=static("soon")), ("'a'", "timeout", "number")),
        (with_(timeout=static(10**9)), ("'a'", "timeout")),
        (with_(sleep=static(-1)), ("'a'", "sleep")),
        (with_(sleep=static(True)), ("'a'", "sleep")),
        (with_(priority=101), ("'a'", "priority")),
        (with_(cache_ttl=-1), ("'a'", "cache_ttl")),
        ({**loop(), "cache_ttl": 5}, ("'l'", "cache_ttl")),
        (with_(delete_after_secs=-1), ("'a'", "delete_after_secs")),
        (with_(debouncing={"debounce_delay_s": 1}), ("'a'", "debouncing")),
        (with_(skip_if={"expr": 7}), ("'a'", "skip_if.expr")),
        (loop(parallelism=-1), ("'l'", "value.parallelism")),
        (loop(parallelism=static("many")), ("'l'", "value.parallelism")),
        (loop(iterator={"type": "ai"}), ("'l'", "value.iterator")),
        (loop(code("x", language="bun")), ("'x'", "value.language")),
        (loop(with_(retry=7), name="out"), ("'a'", "retry")),
        (of_type("branchone", branches=[{"modules": []}], default=[]), ("'a'", "value.branches[0]", "expr")),
        (of_type("branchone", branches=[]), ("'a'", "value", "default")),
        (of_type("branchall", branches=[{"modules": [code("y", tag=7)]}]), ("'y'", "value.tag")),
    ],
)
def test_a_module_that_can_not_be_run_is_named_with_its_field(module: Any, names: tuple[str, ...]) -> None:
    sentence = said(module)
    assert all(name in sentence for name in names), sentence


@pytest.mark.parametrize(
    ("flow", "names"),
    [
        ({"failure_module": code("f")}, ("'f'", "id", "failure")),
        ({"failure_module": loop(name="failure")}, ("'failure'", "value.type", "rawscript or script")),
        ({"preprocessor_module": code("f")}, ("'f'", "id", "preprocessor")),
        ({"preprocessor_module": {"id": "preprocessor", "value": {"type": "flow", "path": "u/a/b"}}}, ("value.type",)),
        ({"failure_module": code("failure", language="bun")}, ("'failure'", "value.language")),
        ({"concurrency_time_window_s": 5}, ("concurrency_time_window_s",)),
        ({"concurrent_limit": -1}, ("concurrent_limit",)),
        ({"debounce_delay_s": 5}, ("debounce_delay_s",)),
        ({"debounce_key": "x"}, ("debounce_key",)),
        ({"chat_input_enabled": True}, ("chat_input_enabled",)),
        ({"priority": 101}, ("priority",)),
        ({"cache_ttl": -1}, ("cache_ttl",)),
        ({"same_worker": "yes"}, ("same_worker",)),
        ({"modules": {}}, ("modules",)),
    ],
)
def test_a_flow_that_can_not_be_run_says_which_field(flow: dict[str, Any], names: tuple[str, ...]) -> None:
    modules = flow.pop("modules", [])
    with pytest.raises(Unprocessable) as refused:
        check.read(json.dumps({"modules": modules, **flow}).encode())
    assert all(name in str(refused.value) for name in names), str(refused.value)


@pytest.mark.parametrize("value", [b"", b"null", b"[]", b"7", b"{}", b'{"modules": [', b'{"modules": null}'])
def test_what_is_no_flow_at_all_is_refused(value: bytes) -> None:
    with pytest.raises((BadRequest, Unprocessable)):
        check.read(value)


def test_one_id_may_not_stand_in_two_places() -> None:
    assert "'a'" in said(code(), loop(code()))
    assert "'l'" in said(loop(), of_type("branchall", branches=[{"modules": [loop()]}]))
    read(code(), failure_module=code("failure"), preprocessor_module=code("preprocessor"))


@pytest.mark.parametrize(
    ("expression", "is_refused"),
    [("results.a", True), ("[results['a']]", True), ("1 + results?.a", True), ("flow_input.results.a", False)],
)
def test_a_preprocessor_does_not_see_results(expression: str, is_refused: bool) -> None:
    transforms = {"x": {"type": "javascript", "expr": expression}}
    before = code("preprocessor", input_transforms=transforms)
    if is_refused:
        with pytest.raises(Unprocessable, match=r"input_transforms\.x"):
            read(preprocessor_module=before)
    else:
        read(preprocessor_module=before)


def test_one_worker_does_one_thing_at_a_time() -> None:
    every = of_type("branchall", branches=[], parallel=True)
    for module in (loop(parallel=True), every):
        assert "value.parallel" in said(module, same_worker=True)
        read(module, same_worker=False)
        read(module)


def test_nothing_is_nested_without_end() -> None:
    module = code("in")
    for depth in range(check.MOST_NESTED - 1):
        module = loop(module, name=f"l{depth}")
    read(module)
    assert "nested too deeply" in said(loop(module, name="out"))
    deep: Any = 1
    for _ in range(check.DEEPEST - 6):
        deep = [deep]
    read(code(input_transforms={"x": static(deep)}))
    assert "nested too deeply" in said(code(input_transforms={"x": static([[[deep]]])}), error=BadRequest)
    with pytest.raises(BadRequest, match="nested too deeply"):
        check.read(b'{"modules": ' + b"[" * 100_000)


def test_what_steps_name_stands_with_the_first_that_names_it() -> None:
    checked = read(
        of_type("script", path="u/a/s"),
        {**of_type("script", path="u/a/s"), "id": "b"},
        loop({"id": "c", "value": {"type": "flow", "path": "u/a/f"}}),
        {"id": "d", "value": {"type": "script", "path": "u/a/s", "hash": "00ff"}},
        failure_module={"id": "failure", "value": {"type": "script", "path": "u/a/other"}},
    )
    assert checked.scripts == {"u/a/s": "a", "u/a/other": "failure"}
    assert checked.versions == {"00ff": "d"}
    assert checked.flows == {"u/a/f": "c"}


def test_every_expression_is_found() -> None:
    module = with_(
        stop_after_if={"expr": "1"},
        stop_after_all_iters_if={"expr": "2"},
        skip_if={"expr": "3"},
        retry={"retry_if": {"expr": "4"}},
        sleep=javascript("5"),
        timeout=javascript("6"),
        suspend={"user_groups_required": javascript("7")},
    )
    module["value"]["input_transforms"] = {"x": javascript("8"), "y": static(1)}
    one = {"id": "o", "value": {"type": "branchone", "branches": [{"expr": "9", "modules": []}], "default": []}}
    ways = loop(name="l", iterator=javascript("10"), parallelism=javascript("11"))
    turns = {"id": "w", "value": {"type": "whileloopflow", "modules": [], "parallelism": javascript("12")}}
    checked = read(module, one, ways, turns, skip_expr="13", early_return="14")
    assert sorted(int(each.text) for each in checked.expressions) == list(range(1, 15))
    where = {each.text: (each.module, each.field) for each in checked.expressions}
    assert where["4"] == ("a", "retry.retry_if.expr")
    assert where["8"] == ("a", "value.input_transforms.x")
    assert where["9"] == ("o", "value.branches[0].expr")
    assert where["13"] == (None, "skip_expr")


def test_locks_that_are_to_be_found_are_told_from_those_that_are_there() -> None:
    python: dict[str, Any] = {"language": "python3", "content": "import tinyone"}
    checked = read(
        code("a"), code("b", **python), code("c", lock="", **python), code("d", language="python3", content="import os")
    )
    assert checked.locks == {"a": "", "b": None, "d": ""}
    assert rules.locks_text(checked.locks) is None
    assert rules.locks_text({"a": ""}) == '{"a":""}'


def test_what_much_code_wants_is_left_to_the_job() -> None:
    long = {"language": "python3", "content": "x = 1\n" * (check.MOST_READ // 8)}
    assert read(code("a", module=None, **long), code("b", module=None, **long)).locks == {"a": "", "b": None}


def test_a_version_keeps_what_the_value_says_of_its_limits() -> None:
    new = NewFlow(path="u/a/f", value=msgspec.Raw(b'{"modules": []}'), priority=None, timeout=0, tag="")
    flow = read(concurrent_limit=2, concurrency_key="k", priority=7).flow
    kept = rules.columns(new, flow)
    assert (kept["concurrent_limit"], kept["concurrency_key"], kept["priority"]) == (2, "k", 7)
    assert (kept["timeout_s"], kept["tag"], kept["schema"]) == (None, None, None)
    assert rules.columns(msgspec.structs.replace(new, priority=3), flow)["priority"] == 3
