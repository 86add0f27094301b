"""What the scheduler reads and writes of flows."""

import re
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec
from asyncpg import PostgresError

from tidemill.chassis.database import Database, sqlstate
from tidemill.chassis.sql import load as load_queries
from tidemill.scheduler.domain.flow.asks import Target
from tidemill.scheduler.domain.flow.changes import Changes
from tidemill.scheduler.domain.flow.progress import NULL, Happened, Progress

QUERIES = load_queries(__package__, "flows.sql")

HEARD_AT_ONCE = 50
"""The most ends of jobs that one decision hears of."""
_INLINE_BYTES = 64 << 10
"""Results and arguments up to this size come with the progress; larger ones are read when they are looked at."""
_TOO_LARGE = "TM010"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is read with the progress and is no business of the decision."""

    version: int
    state: str
    permissioned_as: str
    permissions: dict[str, Any]
    reply_to: str | None = None
    traceparent: str | None = None
    args: msgspec.Raw = NULL
    """Those of the flow around it; null when they are large."""


class Loaded(msgspec.Struct, frozen=True):
    """A flow as it stood when it was read."""

    progress: Progress
    happened: Happened
    standing: Standing


class Answer(StrEnum):
    """What became of changes."""

    DONE = "done"
    STALE = "stale"
    """The flow went on since it was read."""
    GONE = "gone"
    """The flow has ended."""
    TOO_LARGE = "too_large"
    """A list was too long; nothing was written."""


_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)
_progress = msgspec.json.Decoder(Progress)
_happened = msgspec.json.Decoder(Happened)
_standing = msgspec.json.Decoder(Standing)


async def load(database: Database, flow_id: UUID) -> Loaded | None:
    """Return where a flow stands, or None when it has ended or is none."""
    text: str | None = await database.fetchval(QUERIES.load, flow_id, HEARD_AT_ONCE, _INLINE_BYTES)
    if text is None:
        return None
    text = _whole(text)
    return Loaded(_progress.decode(text), _happened.decode(text), _standing.decode(text))


async def advance(
    database: Database, flow_id: UUID, version: int, changes: Changes, longest: int
) -> tuple[Answer, str | None]:
    """Write down what was decided, if the flow still stands as it was read; return what has to be published."""
    text = msgspec.json.encode(changes).decode()
    try:
        row = await database.fetchrow(QUERIES.advance, flow_id, version, text, longest)
    except PostgresError as error:
        if sqlstate(error) == _TOO_LARGE:
            return Answer.TOO_LARGE, None
        raise
    assert row is not None
    return Answer(row["answer"]), row["said"]


async def definition(database: Database, workspace_id: str, version: int) -> tuple[str, str | None] | None:
    """Return a version's value and the locks that were found for it, or None when it is gone."""
    row = await database.fetchrow(QUERIES.definition, workspace_id, version)
    return None if row is None else (row["value"], row["locks"])


async def code(database: Database, job_id: UUID) -> str | None:
    """Return the value of a flow that came with its request."""
    text: str | None = await database.fetchval(QUERIES.code, job_id)
    return text


async def args(database: Database, job_id: UUID) -> msgspec.Raw:
    """Return a job's arguments."""
    return _raw(await database.fetchval(QUERIES.args, job_id))


async def job_result(database: Database, job_id: UUID) -> msgspec.Raw:
    """Return a finished job's result, or null."""
    return _raw(await database.fetchval(QUERIES.job_result, job_id))


async def cached(database: Database, key: str) -> msgspec.Raw | None:
    """Return the result that is kept under a key, or None."""
    text: str | None = await database.fetchval(QUERIES.cached, key)
    return None if text is None else _raw(text)


async def child_results(database: Database, flow_id: UUID, no: int) -> msgspec.Raw:
    """Return the results of a step's children so far, as a list."""
    return _raw(await database.fetchval(QUERIES.child_results, flow_id, no))


async def step_result(database: Database, flow_id: UUID, before: int, module: str | None) -> msgspec.Raw | None:
    """Return what a step before a place has answered, the nearest one without a name; None when there is none."""
    row = await database.fetchrow(QUERIES.step_result, flow_id, before, module)
    return None if row is None else _raw(row["result"])


async def slots(database: Database, tag: str) -> int:
    """Return how many jobs of a tag can run at once."""
    count: int = await database.fetchval(QUERIES.slots, tag)
    return count


async def script_to_run(
    database: Database, workspace_id: str, path: str, script_hash: str | None, standing: Standing
) -> Target | None:
    """Return the version of a script that a step runs, if it may be read with the flow's rights."""
    who = standing.permissions
    row = await database.fetchrow(
        QUERIES.script_to_run, workspace_id, path, script_hash, who["username"], who["is_admin"]
    )
    return None if row is None else Target(**{**row, "envs": tuple(row["envs"] or ())})


async def flow_to_run(database: Database, workspace_id: str, path: str, standing: Standing) -> Target | None:
    """Return the version of a flow that a step runs, if it may be read with the flow's rights."""
    who = standing.permissions
    row = await database.fetchrow(QUERIES.flow_to_run, workspace_id, path, who["username"], who["is_admin"])
    if row is None:
        return None
    found = dict(row)
    return Target(hash=str(found.pop("version")), **found)


def _raw(text: str | None) -> msgspec.Raw:
    return msgspec.Raw(b"null" if text is None else _whole(text).encode())


def _whole(text: str) -> str:
    """Return JSON without halves of characters: Postgres keeps them, and nothing else reads them."""
    if "\\ud" not in text and "\\uD" not in text:
        return text
    return _ESCAPE.sub(lambda found: "\\ufffd" if found["half"] else found[0], text)
