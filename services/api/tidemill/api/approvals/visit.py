"""The approval page, opened in a browser by whoever holds its address."""

from collections.abc import Mapping
from dataclasses import replace

import msgspec
from aiohttp import web

from tidemill.api.approvals import decide, form, page, rules, show
from tidemill.api.approvals.form import Field, WrongForm
from tidemill.api.approvals.rules import WHY, Verdict
from tidemill.api.approvals.schemas import ApproverQuery
from tidemill.api.approvals.store import Approval
from tidemill.api.http import policy
from tidemill.api.http.errors import HttpError, Unauthorized
from tidemill.api.http.route import Call
from tidemill.api.users import sessions
from tidemill.api.users.schemas import Login

_TITLES = {401: "Log in to approve", 403: "This can't be approved by you", 409: "There is nothing to decide here"}
_DONE = {
    True: (
        "Approved",
        "Your approval is noted, and the flow goes on when enough have approved. You may close this page.",
    ),
    False: ("Refused", "Your refusal is noted. You may close this page."),
}


async def look_at(call: Call) -> web.StreamResponse:
    """Answer the page on which a person decides, or what there is to say instead."""
    try:
        viewer = await policy.recognise(call.ctx, call.route, call.params, call.request)
        found = await show.opened(call, viewer)
        _refuse_in_vain(found)
        asked, _ = await _asked(call, found)
    except HttpError as error:
        return _told(error)
    return _html(page.question(asked), posts=True)


async def decide_on(call: Call) -> web.StreamResponse:
    """Log a person in, or write down what they have decided; answer a page that says what happened."""
    try:
        said = form.sent(await call.raw_body())
        viewer = await policy.recognise(call.ctx, call.route, call.params, call.request)
        try:
            found = await show.opened(call, viewer)
            _refuse_in_vain(found)
        except Unauthorized:
            # Only whoever holds a URL of ours that wants it gets to try a password here.
            if said.get("do") != "log in":
                raise
            return await _log_in(call, said.get("email", ""), said.get("password", ""))
        asked, fields = await _asked(call, found)
        approved = _approved(said, asked)
        value = form.filled_in(fields, said) if approved else rules.NOTHING
        verdict = await decide.say(
            call, decide.url_of(call), rules.payload(msgspec.Raw(value.encode())), viewer, approved=approved
        )
        if verdict is not Verdict.NOTED:
            rules.refuse(verdict)
    except WrongForm as wrong:
        return await _again(call, str(wrong))
    except HttpError as error:
        return _told(error)
    return _html(page.told(*_DONE[approved]))


def _approved(said: Mapping[str, str], asked: page.Asked) -> bool:
    """Return which button was pressed; raises WrongForm."""
    pressed = said.get("do")
    if pressed == "approve":
        return True
    if pressed == "refuse" and not asked.hide_refuse:
        return False
    raise WrongForm("Say whether you approve or refuse.")


async def _again(call: Call, wrong: str) -> web.StreamResponse:
    """Answer the page once more, with what was wrong."""
    try:
        viewer = await policy.recognise(call.ctx, call.route, call.params, call.request)
        asked, _ = await _asked(call, await show.opened(call, viewer))
    except HttpError as error:
        return _told(error)
    return _html(page.question(asked, wrong), 400, posts=True)


async def _log_in(call: Call, email: str, password: str) -> web.StreamResponse:
    try:
        session = await sessions.log_in(replace(call, body=Login(email=email, password=password)))
    except Unauthorized as error:
        return _html(page.login(error.message, wrong=True), 401, posts=True)
    response = web.Response(status=303, headers={"Location": call.request.rel_url.raw_path_qs})
    response.cookies.update(session.cookies)
    return response


def _refuse_in_vain(found: Approval) -> None:
    """Raise why nothing that a person could say would count, before they fill in anything."""
    if found.said is not None:
        rules.refuse(Verdict.REPEATED)
    if found.stands == "ended":
        rules.refuse(Verdict.ENDED)
    if found.lacks is not None:
        rules.refuse(Verdict(found.lacks))


async def _asked(call: Call, found: Approval) -> tuple[page.Asked, list[Field]]:
    query: ApproverQuery = call.query
    wanted = await show.wanted_of(call, found)
    fields = list(form.fields(wanted.schema, wanted.default_args, wanted.enums))
    asked = page.Asked(
        created_by=wanted.created_by,
        path=wanted.path,
        flow=wanted.flow_summary,
        step=wanted.step_summary or found.module,
        description=wanted.description,
        approver=query.label,
        until=found.until,
        needed=found.needed,
        approvers=[each.approver for each in found.approvers],
        fields=fields,
        hide_refuse=bool(found.conditions.hide_cancel),
    )
    return asked, fields


def _told(error: HttpError) -> web.StreamResponse:
    if error.status == 401:
        return _html(page.login(WHY[Verdict.LOGIN][1], wrong=False), 401, posts=True)
    response = _html(page.told(_TITLES.get(error.status, "This can't be done"), error.message), error.status)
    response.headers.update(error.headers)
    return response


def _html(body: str, status: int = 200, *, posts: bool = False) -> web.Response:
    headers = {"Content-Security-Policy": page.POLICY}
    if posts:
        # No address leaves to others; but with no referrer at all, browsers don't say either that a form is of ours.
        headers["Referrer-Policy"] = "same-origin"
    return web.Response(text=body, status=status, content_type="text/html", charset="utf-8", headers=headers)
