"""What may be approved, and how the answers are told. Pure.

A URL may be used before its flow has come to wait, but only for a step that demands nothing of who approves: nobody
could tell afterwards whether they were allowed to.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NoReturn
from urllib.parse import quote, urlencode
from uuid import UUID

import msgspec

from tidemill.api.approvals.schemas import ResumeUrls
from tidemill.api.http.errors import BadRequest, Conflict, Forbidden, HttpError, NotFound, TooLarge, Unauthorized
from tidemill.shared.flow import Flow, Static, Transform, every_module

LONGEST_PAYLOAD = 1024 * 1024
LARGEST_ID = 2**32 - 1
"""Clients draw resume ids from as many numbers."""
NOTHING = "null"
PAGES = "/approve"
"""Where approval pages lie, beside the API."""


class Verdict(StrEnum):
    """What the queue says of an approval or a refusal."""

    NOTED = "noted"
    FORGED = "forged"
    REPEATED = "repeated"
    SAID = "said"
    ENDED = "ended"
    NOT_YET = "not_yet"
    LOGIN = "login"
    OWN = "own"
    NOT_IN_GROUP = "not_in_group"
    TOO_MANY = "too_many"


WHY: Mapping[Verdict, tuple[type[HttpError], str]] = {
    Verdict.FORGED: (Forbidden, "This URL is not one of ours, or something in it was changed."),
    Verdict.REPEATED: (Conflict, "This was used before: each approval URL counts once."),
    Verdict.SAID: (Conflict, "You have decided here before: each person who has logged in counts once."),
    Verdict.ENDED: (
        Conflict,
        "The flow does not wait for this any more: it was decided, or it took too long, or the flow has ended.",
    ),
    Verdict.NOT_YET: (Conflict, "The flow does not wait for this yet, and it can't be approved in advance."),
    Verdict.LOGIN: (Unauthorized, "Only somebody who has logged in may approve or refuse this: log in first."),
    Verdict.OWN: (Forbidden, "Whoever has started the flow may not approve or refuse this step themselves."),
    Verdict.NOT_IN_GROUP: (Forbidden, "Only members of certain groups may approve or refuse this step."),
    Verdict.TOO_MANY: (Conflict, "Too many have approved or refused steps of this flow already."),
}
"""Each verdict but the good one, as it is told."""


def refuse(verdict: Verdict) -> NoReturn:
    """Raise what tells a verdict that is not the good one."""
    kind, sentence = WHY[verdict]
    raise kind(sentence)


def resume_id(text: str) -> int:
    """Return the number in a path; raises NotFound for what can't be one."""
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(LARGEST_ID)) or int(text) > LARGEST_ID:
        raise NotFound(f"{text} is no resume id: a whole number up to {LARGEST_ID}.")
    return int(text)


def approval_token(text: str) -> tuple[int, str, str | None]:
    """Return the resume id, the signature and the approver in a token; raises Forbidden."""
    number, _, rest = text.partition(".")
    signature, _, approver = rest.partition(".")
    try:
        return resume_id(number), signature, approver or None
    except NotFound:
        refuse(Verdict.FORGED)


def payload(said: msgspec.Raw | None) -> str:
    """Return what an approver says, JSON as it was written; raises BadRequest or TooLarge."""
    body = b"" if said is None else bytes(said)
    if len(body) > LONGEST_PAYLOAD:
        raise TooLarge(f"What is said with an approval must not be longer than {LONGEST_PAYLOAD} bytes.")
    if not body.strip():
        return NOTHING
    try:
        text = body.decode()
        msgspec.json.decode(text)
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError):
        raise BadRequest("What is said with an approval is not valid JSON.") from None
    return text


def payload_in_url(text: str | None) -> str:
    """Return what an approver says in base64, url-safe or not, padded or not; raises BadRequest or TooLarge."""
    letters = (text or "").strip().replace("+", "-").replace("/", "_").replace(" ", "-").rstrip("=")
    try:
        body = base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("The parameter payload is not base64.") from None
    return payload(msgspec.Raw(body))


def urls(base: str, workspace: str, job_id: UUID, number: int, signature: str, approver: str | None) -> ResumeUrls:
    """Return the addresses of one approval."""
    rest = f"{job_id}/{number}/{signature}" + ("" if approver is None else f"?{urlencode({'approver': approver})}")
    where = quote(workspace, safe="")
    return ResumeUrls(
        approvalPage=f"{base}{PAGES}/{where}/{rest}",
        resume=f"{base}/api/w/{where}/jobs_u/resume/{rest}",
        cancel=f"{base}/api/w/{where}/jobs_u/cancel/{rest}",
    )


def demanded(flow: Flow | None, module_id: str | None) -> tuple[bool, Sequence[str], bool]:
    """Return whether a module, or any of them, demands a login, of which groups, and whether that is known."""
    if flow is None:
        return False, (), False
    waits = [each.suspend for each in every_module(flow) if each.suspend and module_id in (None, each.id)]
    asked = [each.user_groups_required for each in waits if each.user_groups_required is not None]
    lists = [_groups(each) for each in asked]
    return (
        any(each.user_auth_required for each in waits),
        [name for each in lists for name in each or ()],
        None not in lists,
    )


def _groups(asked: Transform) -> Sequence[str] | None:
    """Return the groups that are asked for, or None where only the run tells."""
    if not isinstance(asked, Static):
        return None
    value = msgspec.json.decode(asked.value)
    return [str(each) for each in value] if isinstance(value, list) else [] if not value else [str(value)]


def may_be_early(flow: Flow, module_id: str | None) -> bool:
    """Return whether a module may be approved before the flow waits; without one, whichever comes to wait."""
    waits = [each.suspend for each in every_module(flow) if each.suspend and module_id in (None, each.id)]
    return bool(waits) and all(each.demands_nothing for each in waits)
