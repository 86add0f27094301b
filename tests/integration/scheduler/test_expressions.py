"""Expressions of flows: the native path and JavaScript give the same."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.chassis.javascript import EvaluationFailed, JavaScript, Refused
from tidemill.scheduler.domain.paths import INHERITED, parse
from tidemill.scheduler.expressions import JAVASCRIPT, Expressions


class Values:
    """A scope with the results of some steps."""

    def __init__(self, results: Mapping[str, object]) -> None:
        self.results = results

    async def get(self, name: str, key: str) -> msgspec.Raw | None:
        if name != "results":
            return msgspec.Raw(msgspec.json.encode(f"{name} {key}"))
        if key == "gone":
            raise Refused("the result of gone\nwas deleted")
        return msgspec.Raw(json.dumps(self.results[key]).encode()) if key in self.results else None


@pytest.fixture(scope="module")
async def javascript() -> AsyncIterator[JavaScript]:
    async with JavaScript(JAVASCRIPT) as javascript:
        yield javascript


NAMES = st.sampled_from(["a", "b", "x-y", "0", "1", "2", "length", "ü👍", "", "map", "then", *sorted(INHERITED)])
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
SPACE = st.sampled_from(["", "", "", " ", "\n"])


@st.composite
def keys(draw: st.DrawFn) -> str:
    name, space = draw(NAMES), draw(SPACE)
    optional = "?." if draw(st.booleans()) else ""
    if name.isidentifier() and name.isascii() and draw(st.booleans()):
        return space + (optional or ".") + space + name
    quote = draw(st.sampled_from("'\""))
    inner = name if name.isdigit() and draw(st.booleans()) else quote + name + quote
    return f"{space}{optional}{space}[{inner}{space}]"


@st.composite
def plain(draw: st.DrawFn) -> str:
    root = draw(st.sampled_from(["flow_input", "previous_result", "results.a", "results['b']", "results.missing"]))
    return root + "".join(draw(st.lists(keys(), max_size=4))) + draw(st.sampled_from(["", ";", " ; "]))


async def outcome(
    value: Callable[..., Awaitable[msgspec.Raw]], truth: Callable[..., Awaitable[bool]], *what: object
) -> object:
    try:
        return as_javascript_counts(await value(*what)), await truth(*what)
    except EvaluationFailed as error:
        return str(error)


def as_javascript_counts(raw: msgspec.Raw) -> object:
    return json.loads(bytes(raw), parse_int=float)


@settings(max_examples=150, deadline=None)
@given(expression=plain(), values=st.lists(VALUES, min_size=4, max_size=4))
async def test_plain_paths_lead_to_what_javascript_finds(
    javascript: JavaScript, expression: str, values: list[object]
) -> None:
    assert parse(expression) is not None
    known = {
        "flow_input": msgspec.Raw(json.dumps(values[0]).encode()),
        "previous_result": msgspec.Raw(json.dumps(values[1], ensure_ascii=False).encode()),
    }
    scope = Values({"a": values[2], "b": values[3]})
    expressions = Expressions(javascript)
    native = await outcome(expressions.value, expressions.truth, expression, known, scope)
    assert native == await outcome(javascript.evaluate, javascript.test, expression, known, scope)


@given(literal=st.none() | st.booleans() | st.integers(-(10**14), 10**14) | st.text(max_size=5))
@settings(max_examples=50, deadline=None)
async def test_literals_are_what_javascript_reads(javascript: JavaScript, literal: object) -> None:
    expression = json.dumps(literal, ensure_ascii=False)
    expected = await javascript.evaluate(expression, {}, Values({}))
    assert as_javascript_counts(await Expressions(javascript).value(expression, {}, Values({}))) == (
        as_javascript_counts(expected)
    )


async def test_an_argument_keeps_its_reference_and_every_other_value_is_looked_up(javascript: JavaScript) -> None:
    expressions, scope = Expressions(javascript), Values({})
    assert await expressions.argument("variable('f/a/b')", {}, scope) == msgspec.Raw(b'"$var:f/a/b"')
    assert await expressions.argument("resource('f/a/b');", {}, scope) == msgspec.Raw(b'"$res:f/a/b"')
    assert await expressions.argument("variable('f/a') + '!'", {}, scope) == msgspec.Raw(b'"[object Promise]!"')
    assert await expressions.value("variable('f/a/b')", {}, scope) == msgspec.Raw(b'"variable f/a/b"')
    assert await expressions.truth("resource('f/a/b')", {}, scope)


@pytest.mark.parametrize("expression", ["results.gone.x", "results.gone['x'] + 1"])
async def test_a_result_that_is_not_given_fails_the_expression_alike(javascript: JavaScript, expression: str) -> None:
    with pytest.raises(EvaluationFailed, match=r"^Error: the result of gone was deleted$"):
        await Expressions(javascript).value(expression, {}, Values({}))


async def test_a_name_that_is_not_known_here_is_none(javascript: JavaScript) -> None:
    with pytest.raises(EvaluationFailed, match=r"^ReferenceError: resume is not defined$"):
        await Expressions(javascript).value("resume.x", {}, Values({}))


async def test_the_table_of_what_is_inherited_is_the_engines(javascript: JavaScript) -> None:
    names = await javascript.evaluate("Object.getOwnPropertyNames(Object.prototype)", {}, Values({}))
    assert set(msgspec.json.decode(names)) == INHERITED
