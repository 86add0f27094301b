"""What becomes of the arguments of jobs that run again: values, and expressions over the job as it was."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

import msgspec
from msgspec import UNSET

from tidemill.api.http.errors import Unavailable, Unprocessable
from tidemill.api.jobs.schemas import InputTransform
from tidemill.chassis.javascript import EvaluationFailed, JavaScript, JavaScriptUnavailable, Refused
from tidemill.shared import flow
from tidemill.shared.flow import Static

Change = Static | flow.JavaScript
Changes = Mapping[str, Change]
"""By the name of the argument."""

PATIENCE = timedelta(seconds=30)
"""How long all expressions of one request may take."""
_NULL = msgspec.Raw(b"null")


class JobAsItWas(msgspec.Struct, frozen=True, kw_only=True):
    """What an expression sees as `job`."""

    id: UUID
    kind: str
    script_path: str
    script_hash: str | None
    scheduled_for: datetime
    input: msgspec.Raw


def read(where: str, transform: InputTransform) -> Change:
    """Return what an argument becomes; raises Unprocessable, naming where it stands."""
    value = _NULL if transform.value is UNSET else transform.value
    if transform.type == "static" and transform.expr is UNSET:
        return Static(value)
    if transform.type == "javascript" and transform.expr is not UNSET and value == _NULL:
        return flow.JavaScript(transform.expr)
    raise Unprocessable(
        f'The input transform {where} is not understood: send {{"type": "static", "value": ...}} or'
        ' {"type": "javascript", "expr": "..."}.'
    )


class Evaluation:
    """The expressions of one request."""

    def __init__(self, javascript: JavaScript) -> None:
        self._javascript = javascript
        self._spent = 0.0

    async def check(self, where: str, change: Change) -> None:
        """Raise Unprocessable when an expression can't be read, naming where it stands."""
        if not isinstance(change, flow.JavaScript):
            return
        try:
            why = await self._javascript.check(change.expr)
        except JavaScriptUnavailable as error:
            raise _unavailable() from error
        if why is not None:
            raise Unprocessable(f"The input transform {where} can't be evaluated: {why}")

    async def values(self, job: JobAsItWas, changes: Changes) -> Mapping[str, msgspec.Raw]:
        """Return what the arguments become; raises Unprocessable, naming the argument."""
        known = {"job": msgspec.Raw(msgspec.json.encode(job))} if changes else {}
        return {
            name: change.value if isinstance(change, Static) else await self._value(name, change.expr, known)
            for name, change in changes.items()
        }

    async def _value(self, name: str, source: str, known: Mapping[str, msgspec.Raw]) -> msgspec.Raw:
        if self._spent > PATIENCE.total_seconds():
            raise Unprocessable(f"The expressions took longer than {PATIENCE.total_seconds():g} s in all.")
        clock = asyncio.get_running_loop()
        began = clock.time()
        try:
            return await self._javascript.evaluate(source, known, _Nothing())
        except EvaluationFailed as error:
            raise Unprocessable(f"The input transform of {name} failed: {error}") from error
        except JavaScriptUnavailable as error:
            raise _unavailable() from error
        finally:
            self._spent += clock.time() - began


class _Nothing:
    """Whatever else an expression asks for is not there."""

    async def get(self, name: str, key: str) -> msgspec.Raw | None:
        raise Refused(f"there is no {name}('{key}') here")


def _unavailable() -> Unavailable:
    return Unavailable("Expressions can't be evaluated at the moment; try again.")
