"""How the expressions of flows are read beside each other, by a real process."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tidemill.api.flows.check import Expression
from tidemill.api.flows.expressions import Expressions
from tidemill.api.http.errors import Unavailable, Unprocessable
from tidemill.chassis.javascript import JavaScript, JavaScriptSettings

MANY = [Expression(module="a", field=f"k{no}", text=f"{no}" + " + 1" * 1_000) for no in range(10_000)]


@pytest.fixture
async def javascript() -> AsyncIterator[JavaScript]:
    async with JavaScript(JavaScriptSettings(processes=1)) as javascript:
        yield javascript


async def test_one_flow_of_many_expressions_keeps_no_other_from_being_read(javascript: JavaScript) -> None:
    expressions = Expressions(javascript, longest_reading=timedelta(minutes=5))
    many = asyncio.create_task(expressions.check(MANY))
    try:
        for no in range(5):
            await expressions.check([Expression(module="b", field="skip_if.expr", text=f"flow_input.a == {no}")])
        assert not many.done()
    finally:
        many.cancel()
        await asyncio.wait([many])


async def test_nothing_is_read_behind_the_first_that_is_wrong(javascript: JavaScript) -> None:
    wrong = Expression(module="first", field="skip_if.expr", text="a b")
    with pytest.raises(Unprocessable, match="'first'"):
        await Expressions(javascript, longest_reading=timedelta(minutes=5)).check([wrong, *MANY[1:]])


async def test_a_request_has_its_expressions_read_for_so_long(javascript: JavaScript) -> None:
    with pytest.raises(Unavailable, match="could not be read within"):
        await Expressions(javascript, longest_reading=timedelta(milliseconds=100)).check(MANY)
    await Expressions(javascript).check([Expression(module="b", field="skip_if.expr", text="true")])
