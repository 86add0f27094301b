"""One turn of a flow after the other: read, decide, write down, publish; again while something can be done at once."""

import logging
import re
from collections.abc import Generator
from random import Random
from typing import Any
from uuid import UUID

import msgspec

from tidemill.chassis.broker import Broker
from tidemill.chassis.database import Database, passes
from tidemill.chassis.javascript import JavaScriptUnavailable
from tidemill.chassis.outbox import Outbox, hint_of
from tidemill.scheduler.domain.flow.asks import Ask, Unanswered
from tidemill.scheduler.domain.flow.changes import Changes, End
from tidemill.scheduler.domain.flow.engine import next_steps
from tidemill.scheduler.domain.flow.jobs import error
from tidemill.scheduler.expressions import Expressions
from tidemill.scheduler.ports import Secrets
from tidemill.scheduler.store import flows, workflows
from tidemill.scheduler.store.flows import HEARD_AT_ONCE, Answer, Loaded
from tidemill.scheduler.walking.answers import Answers
from tidemill.scheduler.walking.definitions import Definitions
from tidemill.shared.ids import new_job_id
from tidemill.shared.messages import JobAnswered, JobProgressed
from tidemill.shared.messages.jobs import Progress as Told
from tidemill.shared.script import Outcome

log = logging.getLogger(__name__)

_LUCK = Random()  # noqa: S311 - for pauses between tries
_SAYS = "/tidemill/scheduler"
_WALKS = ("queued", "suspended")
"""The states in which a flow goes on; a scheduled or blocked one is told when its turn has come."""
_UNSPEAKABLE = re.compile(r"[^ -~]|\\")
_LONGEST_WHY = 1000


class Walks:
    """The flows that this scheduler is at; any number of schedulers may be at the same flow."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        outbox: Outbox,
        expressions: Expressions,
        secrets: Secrets,
        longest_result: int,
    ) -> None:
        self._database = database
        self._broker = broker
        self._outbox = outbox
        self._expressions = expressions
        self._secrets = secrets
        self._longest = longest_result
        self._definitions = Definitions(database)
        self._stirred: dict[UUID, bool] = {}

    async def walk(self, flow_id: UUID) -> None:
        """Let a flow go on as far as it can; a call for one that is being walked only makes that look once more."""
        if flow_id in self._stirred:
            self._stirred[flow_id] = True
            return
        self._stirred[flow_id] = True
        try:
            while self._stirred[flow_id]:
                self._stirred[flow_id] = False
                while await self._turn(flow_id):
                    pass
        finally:
            del self._stirred[flow_id]

    async def _turn(self, flow_id: UUID) -> bool:
        """Make one decision and write it down; return whether the next one can follow at once."""
        loaded = await flows.load(self._database, flow_id)
        if loaded is None:
            await self._resume(flow_id)
            return False
        if loaded.standing.state not in _WALKS:
            return False
        changes = await self._decided(loaded)
        if changes == Changes():
            return False
        changes, answer, said = await self._written(loaded, changes)
        if answer is not Answer.DONE:
            return answer is Answer.STALE
        self._outbox.publish_soon(said)
        self._tell(loaded, changes)
        due = changes.wake_at is not None and changes.wake_at <= loaded.happened.now
        return changes.end is None and changes.stop is None and (due or len(loaded.happened.ended) >= HEARD_AT_ONCE)

    async def _resume(self, workflow_id: UUID) -> None:
        """Let a workflow written as code go on: what comes next is for its own code to say."""
        resumed = await workflows.resume(self._database, workflow_id)
        if resumed is None:
            return
        self._outbox.publish_soon(resumed.said)
        if resumed.ended:
            self._tell_of_the_end(workflow_id, resumed.reply_to)

    async def _written(self, loaded: Loaded, changes: Changes) -> tuple[Changes, Answer, str | None]:
        """Write down what was decided; what can't be written down, a result that Postgres refuses, ends the flow."""
        try:
            answer, said = await self._advance(loaded, changes)
            if answer is Answer.TOO_LARGE:
                happened = msgspec.structs.replace(loaded.happened, too_large=True)
                changes = await self._decided(msgspec.structs.replace(loaded, happened=happened))
                answer, said = await self._advance(loaded, changes)
        except JavaScriptUnavailable:
            raise
        except Exception as wrong:
            if passes(wrong):
                raise
            changes = _given_up(loaded, wrong)
            answer, said = await self._advance(loaded, changes)
        return changes, answer, said

    async def _advance(self, loaded: Loaded, changes: Changes) -> tuple[Answer, str | None]:
        return await flows.advance(self._database, loaded.progress.id, loaded.standing.version, changes, self._longest)

    async def _decided(self, loaded: Loaded) -> Changes:
        happened = msgspec.structs.replace(loaded.happened, luck=_LUCK.random())
        try:
            walk = await self._definitions.walk(loaded.progress)
            answers = Answers(self._database, self._expressions, self._secrets, walk, loaded)
            return await answered(next_steps(walk, loaded.progress, happened, new_job_id), answers)
        except JavaScriptUnavailable:
            raise
        except Exception as wrong:
            if passes(wrong):
                raise
            return _given_up(loaded, wrong)

    def _tell(self, loaded: Loaded, changes: Changes) -> None:
        flow_id = loaded.progress.id
        if changes.end is None:
            if changes.early is not msgspec.UNSET and (replica := loaded.standing.reply_to) is not None:
                self._broker.hint(hint_of(JobAnswered(job_id=flow_id), _SAYS, replica=replica))
            self._broker.hint(hint_of(JobProgressed(job_id=flow_id, what=Told.LOGGED), _SAYS))
            return
        self._tell_of_the_end(flow_id, loaded.standing.reply_to)

    def _tell_of_the_end(self, flow_id: UUID, replica: str | None) -> None:
        if replica is not None:
            self._broker.hint(hint_of(JobAnswered(job_id=flow_id), _SAYS, replica=replica))
        self._broker.hint(hint_of(JobProgressed(job_id=flow_id, what=Told.ENDED), _SAYS))


def _given_up(loaded: Loaded, wrong: Exception) -> Changes:
    """Return the end of a flow that can't go on, in words that can always be written down.

    Raised instead, the same would come again and again, and the flow would stand for ever without a word.
    """
    log.error("flow can't go on", exc_info=wrong, extra={"job_id": str(loaded.progress.id)})
    if loaded.happened.children_live:
        return Changes(stop="the flow around it can't go on")
    why = _UNSPEAKABLE.sub("?", str(wrong))[:_LONGEST_WHY]
    return Changes(end=End(outcome=Outcome.FAILURE, result=error("FlowError", f"the flow can't go on: {why}")))


async def answered(decision: Generator[Ask, Any, Changes], answers: Answers) -> Changes:
    """Drive a decision to its end, answering what it asks."""
    try:
        ask = next(decision)
        while True:
            try:
                answer = await answers.answer(ask)
            except Unanswered as wrong:
                ask = decision.throw(wrong)
            else:
                ask = decision.send(answer)
    except StopIteration as made:
        changes: Changes = made.value
        return changes
