"""Whether the expressions of a flow are JavaScript at all; nothing of them is executed."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from datetime import timedelta

from tidemill.api.flows.check import Expression, wrong_expression
from tidemill.api.http.errors import Unavailable, Unprocessable
from tidemill.chassis.javascript import JavaScript, JavaScriptUnavailable

MOST = 10_000
"""Expressions of one flow."""
LONGEST = 64 * 1024
"""Characters of one expression."""
LONGEST_READING = timedelta(seconds=30)
"""How long one request may have its expressions read."""
_REMEMBERED = 4096
_SHORT = 1 << 10
"""A longer expression is not remembered."""


class Expressions:
    """Reads expressions, and remembers what it has found."""

    def __init__(self, javascript: JavaScript, *, longest_reading: timedelta = LONGEST_READING) -> None:
        self._javascript = javascript
        self._longest_reading = longest_reading
        self._known: OrderedDict[str, str | None] = OrderedDict()

    async def check(self, expressions: Sequence[Expression]) -> None:
        """Raise Unprocessable for the first that can't be read, naming the module, or Unavailable when none can be."""
        _check_size(expressions)
        try:
            async with asyncio.timeout(self._longest_reading.total_seconds()):
                # One after the other: so a flow of many lets others have their turn in between.
                for each in expressions:
                    if (why := await self._why_not(each.text)) is not None:
                        raise wrong_expression(each, why)
        except JavaScriptUnavailable as error:
            raise Unavailable("Expressions can't be read at the moment; try again.") from error
        except TimeoutError as error:
            raise Unavailable(
                f"The expressions of the flow could not be read within {self._longest_reading.total_seconds():g} s:"
                " try again, or write shorter ones."
            ) from error

    async def _why_not(self, text: str) -> str | None:
        if text in self._known:
            self._known.move_to_end(text)
            return self._known[text]
        why = await self._javascript.check(text)
        if len(text) <= _SHORT:
            self._known[text] = why
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return why


def _check_size(expressions: Sequence[Expression]) -> None:
    for each in expressions:
        if len(each.text) > LONGEST:
            raise Unprocessable(f"{_place(each)} is longer than {LONGEST // 1024} KiB, the most of an expression.")
    if len(expressions) > MOST:
        raise Unprocessable(f"{_place(expressions[MOST])} is one expression too many: a flow may have {MOST}.")


def _place(expression: Expression) -> str:
    of = "of the flow" if expression.module is None else f"of the module {expression.module!r}"
    return f"The field {expression.field} {of}"
