"""Approving and refusing: by a signed URL, or as one who owns the flow."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from aiohttp import web

from tidemill.api.approvals import rules, store
from tidemill.api.approvals.rules import Verdict
from tidemill.api.approvals.schemas import ApproverQuery, ResumeQuery, ResumeSuspended, ResumeUrls, UrlsQuery
from tidemill.api.approvals.store import Approval, Person, Url
from tidemill.api.http import policy
from tidemill.api.http.answer import json, text
from tidemill.api.http.errors import BadRequest, Forbidden, MethodNotAllowed
from tidemill.api.http.route import Action, Call, Viewer
from tidemill.api.jobs import look
from tidemill.api.jobs import store as jobs
from tidemill.chassis.outbox import to_say

_DECIDING: Sequence[Action] = ("write", "run")
RESUME, REFUSE = "jobs", "jobs.disapproval"
"""The operations that are audited; clients know no name of its own for an approval."""


async def resume_urls(call: Call) -> web.StreamResponse:
    """Answer the addresses of one approval."""
    query: UrlsQuery = call.query
    number = rules.resume_id(call.params["resume_id"])
    job_id, signature = await _signed(call, number, query.label, flow_level=query.flow_level)
    base = call.ctx.settings.public_url
    urls: ResumeUrls = rules.urls(base, call.workspace, job_id, number, signature, query.label)
    return json(urls)


async def workflow_urls(call: Call) -> web.StreamResponse:
    """Answer the addresses of what a workflow waits for under one key."""
    query: ApproverQuery = call.query
    await _may_ask(call)
    job_id = look.job_id_of(call)
    signed = await store.sign_key(call.ctx.database, call.workspace, job_id, call.params["step_key"], query.label)
    if signed is None:
        raise look.missing(call)
    number, signature = signed
    urls: ResumeUrls = rules.urls(call.ctx.settings.public_url, call.workspace, job_id, number, signature, query.label)
    return json(urls)


async def job_signature(call: Call) -> web.StreamResponse:
    """Answer the signature of one approval."""
    query: ApproverQuery = call.query
    number = rules.resume_id(call.params["resume_id"])
    _, signature = await _signed(call, number, query.label, flow_level=False)
    return text(signature)


async def resume(call: Call) -> web.StreamResponse:
    """Approve."""
    return await _by_url(call, approved=True)


async def cancel(call: Call) -> web.StreamResponse:
    """Refuse."""
    return await _by_url(call, approved=False)


async def resume_as_owner(call: Call) -> web.StreamResponse:
    """Approve for what the flow waits for now, as one who owns it."""
    value = rules.payload(call.body)
    await _owned(call)
    return _told(await say(call, Url(job_id=look.job_id_of(call)), value, call.viewer, approved=True), approved=True)


async def resume_suspended(call: Call) -> web.StreamResponse:
    """Approve or refuse with an approval token, or as one who owns the flow."""
    body: ResumeSuspended = call.body
    viewer = await policy.recognise(call.ctx, call.route, call.params, call.request)
    value = rules.payload(body.payload)
    url = Url(job_id=look.job_id_of(call))
    if body.approval_token:
        number, signature, approver = rules.approval_token(body.approval_token)
        url = Url(job_id=url.job_id, resume_id=number, signature=signature, approver=approver)
    elif viewer is None:
        raise look.missing(call)
    else:
        await _owned(replace(call, viewer=viewer))
    return _told(await say(call, url, value, viewer, approved=body.approved), approved=body.approved)


async def say(call: Call, url: Url, value: str, viewer: Viewer | None, *, approved: bool) -> Verdict:
    """Write down what is said of an approval and return what the queue says to it."""
    ctx = call.ctx
    person = await person_of(call, viewer)
    found = await store.read(ctx.database, call.workspace, url, person)
    if found is None:
        return Verdict.FORGED
    said_as = call if viewer is None else replace(call, viewer=viewer)
    audit = said_as.audit(
        "Execute",
        str(found.flow_id),
        {
            "decision": "approved" if approved else "refused",
            "resume_id": str(url.resume_id),
            "approver": (person.username if person else None) or url.approver or "anonymous",
        },
        operation=RESUME if approved else REFUSE,
        span=str(found.flow_id),
    )
    verdict, said = await store.decide(
        ctx.database,
        call.workspace,
        url,
        person,
        approved=approved,
        may_be_early=url.signature is not None and await _may_be_early(call, found),
        value=value,
        also=to_say([audit]),
    )
    ctx.outbox.publish_soon(said)
    return verdict


def url_of(call: Call) -> Url:
    """Return the approval that a path and its query name; raises NotFound or Forbidden."""
    query: ApproverQuery = call.query
    return Url(
        job_id=look.job_id_of(call),
        resume_id=rules.resume_id(call.params["resume_id"]),
        signature=call.params["signature"],
        approver=query.label,
    )


async def _by_url(call: Call, *, approved: bool) -> web.StreamResponse:
    if call.request.method == "HEAD":
        # What only looks at where a link leads must not decide anything.
        raise MethodNotAllowed(frozenset({"GET", "POST"}))
    query: ApproverQuery = call.query
    value = rules.payload_in_url(query.payload) if isinstance(query, ResumeQuery) else rules.payload(call.body)
    viewer = await policy.recognise(call.ctx, call.route, call.params, call.request)
    return _told(await say(call, url_of(call), value, viewer, approved=approved), approved=approved)


def _told(verdict: Verdict, *, approved: bool) -> web.StreamResponse:
    if verdict is not Verdict.NOTED:
        rules.refuse(verdict)
    return text("approved" if approved else "refused", 201)


async def _may_be_early(call: Call, found: Approval) -> bool:
    """Return whether an approval counts before the flow waits; only then the flow's value is read."""
    if found.stands != "early":
        return False
    flow = await store.flow_of(call.ctx.database, call.workspace, found.flow_id)
    return flow is not None and rules.may_be_early(flow, found.module)


async def _signed(call: Call, number: int, approver: str | None, *, flow_level: bool) -> tuple[UUID, str]:
    await _may_ask(call)
    signed = await store.sign(
        call.ctx.database, call.workspace, look.job_id_of(call), number, approver, flow_level=flow_level
    )
    if signed is None:
        raise BadRequest(f"The job {call.params['id']} is no step of a flow: nothing waits for its approval.")
    return signed


async def _may_ask(call: Call) -> None:
    """Raise NotFound or Forbidden unless the viewer may ask for approvals of the job in the path."""
    brief = await jobs.brief(call.ctx.database, call.workspace, look.job_id_of(call), call.viewer)
    if brief is None:
        raise look.missing(call)
    if not brief.may_cancel:
        raise Forbidden("You may look at this job but not ask for its approval.")
    if not await _may_decide(call, brief.root_job):
        raise Forbidden("This token may not decide anything of this job, and so not ask for its approval either.")


async def _may_decide(call: Call, root: UUID | None) -> bool:
    """Return whether the token may do more than read: with an approval's address, anybody may decide."""
    viewer = call.viewer
    if viewer.job_id is not None and await _is_of_its_flow(call, root):
        # Who may run a flow may have it ask for approvals, whatever its steps are.
        return True
    abouts = [call.params] if root is None else [call.params, {**call.params, "id": str(root)}]
    for params in abouts:
        for action in _DECIDING:
            if await policy.may(call.ctx, call.route, params, viewer, action):
                return True
    return False


async def _is_of_its_flow(call: Call, root: UUID | None) -> bool:
    job_id = look.job_id_of(call)
    if job_id == call.viewer.job_id:
        return True
    own = await jobs.brief(call.ctx.database, call.workspace, call.viewer.job_id or job_id, call.viewer)
    return own is not None and own.root_job is not None and own.root_job in (root, job_id)


async def _owned(call: Call) -> None:
    """Raise NotFound or Forbidden unless the viewer owns the flow in the path."""
    brief = await jobs.brief(call.ctx.database, call.workspace, look.job_id_of(call), call.viewer)
    if brief is None:
        raise look.missing(call)
    if not brief.may_cancel:
        raise Forbidden("You may look at this flow but not approve or refuse its steps.")


async def person_of(call: Call, viewer: Viewer | None) -> Person | None:
    """Return who asks as the queue knows them."""
    if viewer is None:
        return None
    groups = await call.ctx.groups.of(call.ctx.database, call.workspace, viewer.username)
    return Person(
        username=viewer.username,
        email=viewer.email,
        is_admin=viewer.is_admin,
        groups=list(groups),
        in_person=viewer.job_id is None,
    )
