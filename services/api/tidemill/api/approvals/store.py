"""Approvals in the queue."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from asyncpg.exceptions import InvalidTextRepresentationError

from tidemill.api.approvals.rules import Verdict
from tidemill.api.approvals.schemas import ApprovalConditions, Approver
from tidemill.api.http.errors import BadRequest
from tidemill.chassis.database import Executor
from tidemill.chassis.sql import load
from tidemill.shared import flow as flows
from tidemill.shared.flow import Flow

QUERIES = load(__package__, "queries.sql")


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """What an approval URL names; without a signature, the flow itself, for who owns it."""

    job_id: UUID
    resume_id: int = 0
    signature: str | None = None
    approver: str | None = None


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who has logged in."""

    username: str
    email: str
    is_admin: bool
    groups: list[str]
    in_person: bool


class Conditions(ApprovalConditions, frozen=True, kw_only=True):
    """What the step that waits demands, and what it asks for."""

    resume_form: msgspec.Raw = msgspec.Raw(b"null")
    """The schema of the form."""
    hide_cancel: bool | None = None
    description: msgspec.Raw = msgspec.Raw(b"null")
    """What a workflow tells who approves."""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What an approval URL is about."""

    flow_id: UUID
    step_job: UUID | None
    module: str | None
    stands: str
    said: bool | None
    lacks: str | None
    needed: int | None
    until: datetime | None
    conditions: Conditions
    told: bool
    """Whether the queue knows what is demanded, as it does where it waits."""
    approvers: list[Approver]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Where a flow comes from, and the keys of what the step before its wait has answered."""

    created_by: str
    path: str | None
    summary: str | None
    answered: Mapping[str, Any]


async def sign(
    db: Executor, workspace: str, job_id: UUID, resume_id: int, approver: str | None, *, flow_level: bool
) -> tuple[UUID, str] | None:
    """Return what a URL names and its signature, or None for a job that is no step of a flow."""
    row = await db.fetchrow(QUERIES.sign, workspace, job_id, flow_level, resume_id, approver)
    return None if row is None or row["answer"] != "signed" else (row["job_id"], row["signature"])


async def sign_key(
    db: Executor, workspace: str, job_id: UUID, key: str, approver: str | None
) -> tuple[int, str] | None:
    """Return the resume id and the signature in URLs for one key of a workflow, or None when the job is not there."""
    row = await db.fetchrow(QUERIES.sign_key, workspace, job_id, key, approver)
    return None if row is None else (row["resume_id"], row["signature"])


async def read(db: Executor, workspace: str, url: Url, person: Person | None) -> Approval | None:
    """Return what a URL is about and what is missing for who asks, or None when its signature is not ours."""
    row = await db.fetchrow(QUERIES.read, workspace, msgspec.json.encode(_asking(url, person)).decode())
    if row is None:
        return None
    return Approval(
        **{
            **row,
            "told": row["conditions"] is not None or row["stands"] == "waiting",
            "conditions": msgspec.json.decode(row["conditions"] or "{}", type=Conditions),
            "approvers": msgspec.json.decode(row["approvers"], type=list[Approver]),
        }
    )


async def decide(
    db: Executor,
    workspace: str,
    url: Url,
    person: Person | None,
    *,
    approved: bool,
    may_be_early: bool,
    value: str,
    also: str,
) -> tuple[Verdict, str | None]:
    """Write down an approval or a refusal; return what the queue says to it, and what was said."""
    decision = {**_asking(url, person), "approved": approved, "may_be_early": may_be_early}
    try:
        row = await db.fetchrow(QUERIES.decide, workspace, msgspec.json.encode(decision).decode(), value, also)
    except InvalidTextRepresentationError as error:
        raise BadRequest("What is said with an approval is not valid JSON.") from error
    assert row is not None
    return Verdict(row["answer"]), row["said"]


async def asked_by(db: Executor, workspace: str, found: Approval) -> Asked | None:
    """Return who has started the flow, and what the step before its wait has answered; None when it is gone."""
    row = await db.fetchrow(QUERIES.asked_by, workspace, found.flow_id, found.step_job)
    if row is None:
        return None
    answered = msgspec.json.decode(row["result"] or "null")
    return Asked(
        created_by=row["created_by"],
        path=row["path"],
        summary=row["summary"] or None,
        answered=answered if isinstance(answered, dict) else {},
    )


async def flow_of(db: Executor, workspace: str, flow_id: UUID) -> Flow | None:
    """Return the flow that a job walks through, or None where that can't be read any more."""
    value: str | None = await db.fetchval(QUERIES.flow_value, workspace, flow_id)
    try:
        return None if value is None else flows.read(value)
    except msgspec.DecodeError:
        return None


def _asking(url: Url, person: Person | None) -> Mapping[str, Any]:
    return {**msgspec.structs.asdict(url), **({} if person is None else msgspec.structs.asdict(person))}
