"""Answers to what a decision asks: expressions see the flow, and nothing of what is not in them is read."""

from collections.abc import Mapping

import msgspec

from tidemill.chassis.database import Database
from tidemill.chassis.javascript import EvaluationFailed, Refused
from tidemill.scheduler.domain.flow.asks import (
    ArgsOf,
    Argument,
    Ask,
    Cached,
    FindFlow,
    FindScript,
    Known,
    ListOf,
    ResultOf,
    Slots,
    Target,
    Truth,
    Unanswered,
    Value,
)
from tidemill.scheduler.domain.flow.progress import NULL, Walk
from tidemill.scheduler.domain.paths import REFERENCES
from tidemill.scheduler.expressions import Expressions
from tidemill.scheduler.ports import NotThere, Secrets
from tidemill.scheduler.store import flows
from tidemill.scheduler.store.flows import Loaded

_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Answers:
    """Answers for one flow as it was read."""

    def __init__(
        self, database: Database, expressions: Expressions, secrets: Secrets, walk: Walk, loaded: Loaded
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._expressions = expressions
        self._walk = walk
        self._loaded = loaded
        self._input: Mapping[str, msgspec.Raw] | None = None

    async def answer(self, ask: Ask) -> msgspec.Raw | bool | int | Target | None:
        """Return the answer; raises Unanswered with a sentence for the user."""
        match ask:
            case Value():
                return await self._evaluate(ask)
            case FindScript(path=path, hash=version):
                return await self._script(path, version)
            case FindFlow(path=path):
                return await self._flow(path)
            case Slots(tag=tag):
                return await flows.slots(self._database, tag)
            case Cached(key=key):
                return await flows.cached(self._database, key)

    async def _evaluate(self, ask: Value) -> msgspec.Raw | bool:
        known = await self._known(ask)
        seen = Seen(self, ask)
        try:
            if isinstance(ask, Truth):
                return await self._expressions.truth(ask.source, known, seen)
            if isinstance(ask, Argument):
                return await self._expressions.argument(ask.source, known, seen)
            return await self._expressions.value(ask.source, known, seen)
        except EvaluationFailed as wrong:
            raise Unanswered("ExpressionError", str(wrong)) from None

    async def _known(self, ask: Value) -> Mapping[str, msgspec.Raw]:
        known: dict[str, msgspec.Raw] = {}
        for name, what in ask.names.items():
            if name in ask.source:
                known[name] = await self._of(what)
        if "flow_input" in ask.source:
            known["flow_input"] = msgspec.Raw(msgspec.json.encode({**await self._flow_input(), **ask.own}))
        if "previous_result" in ask.source and "previous_result" not in known:
            known["previous_result"] = await self._previous(ask)
        if "flow_env" in ask.source:
            known["flow_env"] = await self._flow_env(ask.source)
        return known

    async def _flow_env(self, source: str) -> msgspec.Raw:
        """Return the flow's own values; of those that the expression does not name, references stay as they are."""
        values = dict(self._walk.flow.flow_env or {})
        for name, value in values.items():
            if name not in source:
                continue
            text = msgspec.json.decode(value)
            for kind, mark in REFERENCES.items():
                if isinstance(text, str) and text.startswith(mark):
                    try:
                        values[name] = await self.secret(kind, text.removeprefix(mark))
                    except Refused as wrong:
                        raise Unanswered("ExpressionError", f"flow_env.{name}: {wrong}") from None
        return msgspec.Raw(msgspec.json.encode(values))

    async def secret(self, kind: str, path: str) -> msgspec.Raw:
        """Return a variable or a resource as this flow may read it; raises Refused."""
        look = self._secrets.variable if kind == "variable" else self._secrets.resource
        try:
            return await look(self._loaded.progress.workspace_id, path, self._loaded.standing)
        except NotThere as wrong:
            raise Refused(f"{kind}('{path}'): {wrong}") from None

    async def _of(self, what: Known) -> msgspec.Raw:
        match what:
            case ResultOf(job_id=job_id):
                return await flows.job_result(self._database, job_id)
            case ArgsOf(job_id=job_id):
                return await flows.args(self._database, job_id)
            case ListOf(no=no):
                return await flows.child_results(self._database, self._loaded.progress.id, no)
            case _:
                return what

    async def _flow_input(self) -> Mapping[str, msgspec.Raw]:
        if self._input is None:
            progress, args = self._loaded.progress, self._loaded.standing.args
            if args == NULL:
                args = await flows.args(self._database, progress.scope_job)
            own = {} if progress.own_args == NULL else _objects.decode(progress.own_args)
            self._input = {**_objects.decode(args), **own}
        return self._input

    async def _previous(self, ask: Value) -> msgspec.Raw:
        if (fresh := self._fresh()) is not None and ask.before == fresh[0] + 1:
            return fresh[2]
        found = await flows.step_result(self._database, self._loaded.progress.id, ask.before, None)
        if found is None:
            return msgspec.Raw(msgspec.json.encode({**await self._flow_input(), **ask.own}))
        return found

    async def result_of_step(self, ask: Value, step: str) -> msgspec.Raw | None:
        """Return what a step that the expression sees has answered."""
        if (fresh := self._fresh()) is not None and fresh[1] == step and ask.before > fresh[0]:
            return fresh[2]
        return await flows.step_result(self._database, self._loaded.progress.id, ask.before, step)

    def _fresh(self) -> tuple[int, str, msgspec.Raw] | None:
        """Return place, name and result of the plain step that has just ended, if its result came with it."""
        step, ended = self._loaded.progress.step, self._loaded.happened.ended
        if step is None or len(ended) != 1 or ended[0].index is not None or ended[0].result == NULL:
            return None
        return step.no, step.module, ended[0].result

    async def _script(self, path: str, version: str | None) -> Target:
        workspace = self._loaded.progress.workspace_id
        found = await flows.script_to_run(self._database, workspace, path, version, self._loaded.standing)
        if found is None:
            what = f"there is no script at {path}" if version is None else f"there is no version {version} of {path}"
            raise Unanswered("NotFound", f"{what} that this flow may run")
        return found

    async def _flow(self, path: str) -> Target:
        workspace = self._loaded.progress.workspace_id
        found = await flows.flow_to_run(self._database, workspace, path, self._loaded.standing)
        if found is None:
            raise Unanswered("NotFound", f"there is no flow at {path} that this flow may run")
        return found


class Seen:
    """What an expression looks up while it is evaluated."""

    def __init__(self, answers: Answers, ask: Value) -> None:
        self._answers = answers
        self._ask = ask

    async def get(self, name: str, key: str) -> msgspec.Raw | None:
        """Return a step's result, a variable or a resource; raises Refused."""
        if name == "results":
            return await self._answers.result_of_step(self._ask, key)
        return await self._answers.secret(name, key)
