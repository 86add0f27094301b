"""Workflows written as code: what is known of their steps, and what their rounds ask for."""

from enum import StrEnum

import msgspec

from tidemill.chassis.database import Database
from tidemill.chassis.sql import load
from tidemill.worker.rounds import Runnable, Step
from tidemill.worker.store.queue import Answer, Claim, Report

QUERIES = load(__package__, "workflows.sql")


class Checkpoint(msgspec.Struct, frozen=True):
    """What a round begins with, as JSON; `args` is there for a task, which runs with those of the workflow.

    `count` and `size` are those of the results of steps that ran inside earlier rounds.
    """

    checkpoint: str
    args: str | None
    count: int
    size: int


class Kept(StrEnum):
    """What became of a step that was to be kept."""

    KEPT = "kept"
    TAKEN = "taken"
    OVER = "over"


class _Identity(msgspec.Struct, frozen=True):
    username: str
    is_admin: bool


async def checkpoint(database: Database, claim: Claim) -> Checkpoint | None:
    """Return what is known of a workflow's steps, or None when the claim is over."""
    row = await database.fetchrow(QUERIES.checkpoint, claim.id, claim.key)
    return None if row is None else Checkpoint(**row)


async def keep(database: Database, claim: Claim, step: Step) -> Kept:
    """Keep what a step inside a round has come to, and return what became of that."""
    result = bytes(step.result).decode()
    answer = await database.fetchval(
        QUERIES.keep, claim.id, claim.key, step.key, result, step.started_at, step.duration_ms
    )
    return Kept(answer)


async def suspend(database: Database, claim: Claim, asked: str, report: Report) -> tuple[Answer, str | None]:
    """Write down what a round asks for; return what became of that, and what is to be published."""
    row = await database.fetchrow(QUERIES.suspend, claim.id, claim.key, asked, msgspec.json.encode(report).decode())
    assert row is not None
    return Answer(row["answer"]), row["said"]


async def target(database: Database, claim: Claim, kind: str, path: str) -> Runnable | None:
    """Return what lies at a path now, a `script` or a `flow`, or None when the job may read none there."""
    who = msgspec.json.decode(claim.permissions, type=_Identity)
    query = QUERIES.script if kind == "script" else QUERIES.flow
    row = await database.fetchrow(query, claim.workspace_id, path, who.username, who.is_admin)
    return None if row is None else Runnable(**row)
