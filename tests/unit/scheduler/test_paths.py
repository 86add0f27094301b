"""Plain paths: which expressions are some, and where they lead."""

import pytest
from msgspec import Raw

from tidemill.scheduler.domain.paths import (
    Key,
    Literal,
    NoProperty,
    Path,
    Reference,
    Undecided,
    follow,
    parse,
    truthy,
    written,
)


@pytest.mark.parametrize(
    ("expression", "path"),
    [
        ("flow_input", Path("flow_input")),
        (" previous_result ;\n", Path("previous_result")),
        ("flow_input.x.y[0]['k-y']", Path("flow_input", (Key("x"), Key("y"), Key("0"), Key("k-y")))),
        ('results["x-y"] . b', Path("results", (Key("x-y"), Key("b")))),
        ("results.a?.b?.[0]\n  .c", Path("results", (Key("a"), Key("b", True), Key("0", True), Key("c")))),
        ("flow_input.iter.value", Path("flow_input", (Key("iter"), Key("value")))),
        ("flow_env.KEY", Path("flow_env", (Key("KEY"),))),
    ],
)
def test_a_plain_path_is_read(expression: str, path: Path) -> None:
    assert parse(expression) == path


@pytest.mark.parametrize(
    ("expression", "json"),
    [("true", b"true"), ("-1.50;", b"-1.50"), ("'a b'", b'"a b"'), ('"it\'s"', b'"it\'s"'), ("undefined", b"null")],
)
def test_a_literal_is_its_own_value(expression: str, json: bytes) -> None:
    literal = parse(expression)
    assert isinstance(literal, Literal)
    assert bytes(literal.value) == json


def test_a_variable_or_resource_alone_is_a_reference() -> None:
    assert parse("variable('f/a/b')") == Reference("$var:f/a/b")
    assert parse(' await resource( "u/ann/db" ) ;') == Reference("$res:u/ann/db")


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "results",
        "x.y",
        "flow_input.",
        "flow_input.[0]",
        "flow_input x",
        "flow_input.a()",
        "flow_input[a]",
        "flow_input[01]",
        "flow_input[-1]",
        "flow_input['a\\n']",
        "flow_input ? .5 : 1",
        "flow_input.a + 1",
        "flow_input.a // b",
        "flow_input.é",
        "flow_input\u00a0.a",
        "`a`",
        "010",
        "1e3",
        "variable('a').b",
        "variable('a' + 'b')",
        "variable(x)",
    ],
)
def test_all_else_is_left_to_javascript(expression: str) -> None:
    assert parse(expression) is None


@pytest.mark.parametrize(
    ("expression", "json"),
    [
        ("result", b' {"b": 1.0} '),
        ("result.b", b"1.0"),
        ("result.c", b"null"),
    ],
)
def test_what_a_path_leads_to_stays_as_it_was_written(expression: str, json: bytes) -> None:
    path = parse(expression)
    assert isinstance(path, Path)
    assert bytes(written(follow(path.keys, Raw(b' {"b": 1.0} ')))) == json


def test_nothing_has_no_properties_unless_one_asks_kindly() -> None:
    with pytest.raises(NoProperty, match="TypeError: cannot read property 'b' of null"):
        follow((Key("a"), Key("b")), Raw(b'{"a": null}'))
    with pytest.raises(NoProperty, match="TypeError: cannot read property '0' of undefined"):
        follow((Key("0"),), None)
    assert follow((Key("a"), Key("b", optional=True), Key("c")), Raw(b'{"a": null}')) is None


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString"])
def test_what_may_be_inherited_is_javascripts_business_unless_it_is_there(name: str) -> None:
    with pytest.raises(Undecided):
        follow((Key(name),), Raw(b"{}"))
    assert follow((Key(name),), Raw(b'{"%b": 1}' % name.encode())) == Raw(b"1")
    with pytest.raises(Undecided):
        follow((Key("map"),), Raw(b"[]"))


@pytest.mark.parametrize("json", [b"0", b"-0.0", b"0e5", b'""', b"null", b"false", b"1e-400"])
def test_few_things_are_false(json: bytes) -> None:
    assert not truthy(Raw(json))
    assert not truthy(None)


@pytest.mark.parametrize("json", [b"1", b"-1e-5", b'"0"', b"{}", b"[]", b"true", b"1e400"])
def test_and_all_else_is_true(json: bytes) -> None:
    try:
        assert truthy(Raw(json))
    except Undecided:  # a number that only JavaScript knows
        assert json == b"1e400"
