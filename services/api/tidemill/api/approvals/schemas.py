"""Approvals as they travel."""

from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.jobs.schemas import Job, Raw

Name = Annotated[str, msgspec.Meta(max_length=255, description="whom the URL is for; part of what is signed")]

ApprovalToken = Annotated[
    str,
    msgspec.Meta(
        max_length=400,
        description="the resume id and the signature of a URL, and whom it is for if that is in it, with dots",
    ),
]


class ApproverQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Whom an approval URL is for."""

    approver: Name | None = None

    @property
    def label(self) -> str | None:
        """The name, or None where it is left out or empty, as some clients send it."""
        return self.approver or None


class UrlsQuery(ApproverQuery, frozen=True, kw_only=True):
    """Whom approval URLs are for, and for what."""

    flow_level: Annotated[
        bool, msgspec.Meta(description="for whichever step of the flow waits next, not for the job's own step")
    ] = False


class ResumeQuery(ApproverQuery, frozen=True, kw_only=True):
    """Whom the URL is for, and what the approver says."""

    payload: Annotated[str, msgspec.Meta(description="JSON in base64, for GET")] | None = None


class ResumeUrls(msgspec.Struct, frozen=True, kw_only=True):
    """Three addresses for one approval; the first that is used counts."""

    approvalPage: str  # noqa: N815 - as clients know it
    resume: str
    cancel: str


class Approver(msgspec.Struct, frozen=True, kw_only=True):
    """Who has approved."""

    resume_id: int
    approver: str


class SuspendedFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow as whoever holds an approval URL sees it."""

    job: Job
    approvers: list[Approver]


class ResumeSuspended(msgspec.Struct, frozen=True, kw_only=True):
    """What an approver says."""

    payload: Raw = msgspec.Raw(b"null")
    approval_token: ApprovalToken | None = None
    approved: bool = True


class InfoQuery(msgspec.Struct, frozen=True, kw_only=True):
    """By which right the caller asks, when it is not a login."""

    token: ApprovalToken | None = None


class ApprovalConditions(msgspec.Struct, frozen=True, kw_only=True):
    """What a step demands of those who approve."""

    user_auth_required: bool = False
    user_groups_required: list[str] = []
    self_approval_disabled: bool = False


class ApprovalInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a flow waits for."""

    flow_id: UUID
    can_approve: bool
    user_auth_required: bool
    skin: Literal["detailed"] = "detailed"
    approvers: list[Approver]
    approval_conditions: ApprovalConditions | UnsetType = UNSET
    form_schema: Raw | UnsetType = UNSET
    description: Raw | UnsetType = UNSET
    hide_cancel: bool | UnsetType = UNSET
    step_summary: str | UnsetType = UNSET
    flow_summary: str | UnsetType = UNSET
