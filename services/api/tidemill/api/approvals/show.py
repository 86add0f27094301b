"""What a flow waits for, as those who may approve see it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET

from tidemill.api.approvals import decide, rules, store
from tidemill.api.approvals.rules import Verdict
from tidemill.api.approvals.schemas import ApprovalConditions, ApprovalInfo, InfoQuery, SuspendedFlow
from tidemill.api.approvals.store import Approval, Person, Url
from tidemill.api.http import policy
from tidemill.api.http.answer import json, or_unset
from tidemill.api.http.errors import NotFound
from tidemill.api.http.route import Call, Viewer
from tidemill.api.jobs import look
from tidemill.api.jobs import store as jobs
from tidemill.shared.flow import Module, every_module

HOLDER = Viewer(email="", username="", is_admin=True)
"""Whoever holds a URL of a flow: they may see all of that flow."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of who approves, and where it comes from."""

    created_by: str
    path: str | None
    flow_summary: str | None
    step_summary: str | None
    description: Any
    schema: msgspec.Raw | None
    default_args: Mapping[str, Any]
    enums: Mapping[str, Any]


async def flow(call: Call) -> web.StreamResponse:
    """Answer the flow that an approval URL is about, as everybody sees it who may."""
    found = await opened(call, await policy.recognise(call.ctx, call.route, call.params, call.request))
    job = await jobs.job(call.ctx.database, call.workspace, found.flow_id, HOLDER, with_logs=True, with_code=True)
    if job is None:
        raise look.missing(call)
    return json(SuspendedFlow(job=job, approvers=found.approvers))


async def info(call: Call) -> web.StreamResponse:
    """Answer what a flow waits for."""
    query: InfoQuery = call.query
    viewer = await policy.recognise(call.ctx, call.route, call.params, call.request)
    url = Url(job_id=look.job_id_of(call))
    owns = True
    if query.token:
        number, signature, approver = rules.approval_token(query.token)
        url = Url(job_id=url.job_id, resume_id=number, signature=signature, approver=approver)
    else:
        brief = None if viewer is None else await jobs.brief(call.ctx.database, call.workspace, url.job_id, viewer)
        if brief is None:
            raise look.missing(call)
        owns = brief.may_cancel
    found = await store.read(call.ctx.database, call.workspace, url, await decide.person_of(call, viewer))
    if found is None:
        if query.token:
            rules.refuse(Verdict.FORGED)
        raise NotFound(f"The job {url.job_id} is no flow.")
    wanted = await wanted_of(call, found)
    conditions = found.conditions
    return json(
        ApprovalInfo(
            flow_id=found.flow_id,
            can_approve=owns and found.stands == "waiting" and found.lacks is None and found.said is None,
            user_auth_required=conditions.user_auth_required,
            approvers=found.approvers,
            approval_conditions=ApprovalConditions(
                user_auth_required=conditions.user_auth_required,
                user_groups_required=conditions.user_groups_required,
                self_approval_disabled=conditions.self_approval_disabled,
            ),
            form_schema=or_unset(wanted.schema),
            description=UNSET if wanted.description is None else msgspec.Raw(msgspec.json.encode(wanted.description)),
            hide_cancel=or_unset(conditions.hide_cancel),
            step_summary=or_unset(wanted.step_summary),
            flow_summary=or_unset(wanted.flow_summary),
        )
    )


async def opened(call: Call, viewer: Viewer | None) -> Approval:
    """Return what the URL in the path is about; raises Forbidden, or Unauthorized where a login is needed to see it."""
    person = await decide.person_of(call, viewer)
    found = await store.read(call.ctx.database, call.workspace, decide.url_of(call), person)
    if found is None:
        rules.refuse(Verdict.FORGED)
    await _refuse_to_show(call, found, person)
    return found


async def _refuse_to_show(call: Call, found: Approval, person: Person | None) -> None:
    """Raise Unauthorized or Forbidden for those who may not approve, whenever they ask."""
    conditions = found.conditions
    login, known = conditions.user_auth_required, True
    groups: Sequence[str] = conditions.user_groups_required
    if not found.told:
        flow = await store.flow_of(call.ctx.database, call.workspace, found.flow_id)
        login, groups, known = rules.demanded(flow, found.module)
    if (login or groups or not known) and person is None:
        rules.refuse(Verdict.LOGIN)
    if person is None or person.is_admin:
        return
    if not known or (groups and not set(groups) & set(person.groups)):
        rules.refuse(Verdict.NOT_IN_GROUP)


async def wanted_of(call: Call, found: Approval) -> Wanted:
    """Return what is asked of who approves; raises NotFound when the flow is gone."""
    asked = await store.asked_by(call.ctx.database, call.workspace, found)
    if asked is None:
        raise look.missing(call)
    module = await _module(call, found)
    return Wanted(
        created_by=asked.created_by,
        path=asked.path,
        flow_summary=asked.summary,
        step_summary=None if module is None else module.summary,
        description=asked.answered.get("description") or msgspec.json.decode(found.conditions.description),
        schema=None if bytes(found.conditions.resume_form) == b"null" else found.conditions.resume_form,
        default_args=_object(asked.answered.get("default_args")),
        enums=_object(asked.answered.get("enums")),
    )


async def _module(call: Call, found: Approval) -> Module | None:
    flow = await store.flow_of(call.ctx.database, call.workspace, found.flow_id)
    if flow is None or found.module is None:
        return None
    return next((each for each in every_module(flow) if each.id == found.module), None)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
