"""The expressions of flows: plain paths at once, all else by JavaScript."""

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from tidemill.chassis.javascript import EvaluationFailed, JavaScript, JavaScriptSettings, Refused, Scope
from tidemill.scheduler.domain import paths
from tidemill.scheduler.domain.paths import Literal, NoProperty, Path, Reference, Undecided

JAVASCRIPT = JavaScriptSettings(objects=(paths.STEPS,), functions=tuple(paths.REFERENCES))
_REMEMBERED = 4096
_SHORT = 1 << 10  # a longer expression is no path


class Expressions:
    """Evaluates what flows compute; the values are JSON, `known` by name or asked of the scope.

    Everything raises EvaluationFailed with one sentence, or what the scope raised other than Refused.
    """

    def __init__(self, javascript: JavaScript) -> None:
        self._javascript = javascript
        self._parse = lru_cache(_REMEMBERED)(paths.parse)

    async def argument(self, expression: str, known: Mapping[str, msgspec.Raw], scope: Scope) -> msgspec.Raw:
        """Return the value for a job's argument: `variable('x')` alone stays a reference, which the job resolves."""
        if isinstance(plain := self._plain(expression), Reference):
            return msgspec.Raw(msgspec.json.encode(plain.text))
        return await self.value(expression, known, scope)

    async def value(self, expression: str, known: Mapping[str, msgspec.Raw], scope: Scope) -> msgspec.Raw:
        """Return the expression's value."""
        try:
            return paths.written(await self._at_once(expression, known, scope))
        except Undecided:
            return await self._javascript.evaluate(expression, known, scope)

    async def truth(self, expression: str, known: Mapping[str, msgspec.Raw], scope: Scope) -> bool:
        """Return whether JavaScript takes the expression's value for true."""
        try:
            return paths.truthy(await self._at_once(expression, known, scope))
        except Undecided:
            return await self._javascript.test(expression, known, scope)

    async def _at_once(self, expression: str, known: Mapping[str, msgspec.Raw], scope: Scope) -> msgspec.Raw | None:
        """Return the value of a plain expression; raises Undecided when it is none."""
        plain = self._plain(expression)
        try:
            match plain:
                case Literal(value):
                    return value
                case Path(paths.STEPS, (step, *keys)):
                    return paths.follow(keys, await scope.get(paths.STEPS, step.name))
                case Path(root, keys) if root in known:
                    return paths.follow(keys, known[root])
                case _:
                    raise Undecided
        except NoProperty as error:
            raise EvaluationFailed(str(error)) from None
        except Refused as error:
            raise EvaluationFailed(f"Error: {error}") from None

    def _plain(self, expression: str) -> Path | Literal | Reference | None:
        return self._parse(expression) if len(expression) <= _SHORT else None
