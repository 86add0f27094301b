"""Whether the expressions of a flow are JavaScript at all; nothing of them is executed."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from tidemill.api.flows.check import Expression, wrong_expression
from tidemill.api.http.errors import Unavailable
from tidemill.chassis.javascript import JavaScript, JavaScriptUnavailable

_REMEMBERED = 4096
_SHORT = 1 << 10
"""A longer expression is not remembered."""


class Expressions:
    """Reads expressions, and remembers what it has found."""

    def __init__(self, javascript: JavaScript) -> None:
        self._javascript = javascript
        self._known: OrderedDict[str, str | None] = OrderedDict()

    async def check(self, expressions: Sequence[Expression]) -> None:
        """Raise Unprocessable for the first that can't be read, naming the module, or Unavailable when none can be."""
        texts = list(dict.fromkeys(each.text for each in expressions))
        try:
            said = await asyncio.gather(*(self._why_not(text) for text in texts))
        except JavaScriptUnavailable as error:
            raise Unavailable("Expressions can't be read at the moment; try again.") from error
        found = dict(zip(texts, said, strict=True))
        for each in expressions:
            if (why := found[each.text]) is not None:
                raise wrong_expression(each, why)

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
