"""Who may call what: decided from the route's policy alone, and denied unless it says otherwise."""

import uuid
from dataclasses import replace

import pytest
from aiohttp import web

from tidemill.api.app import OWN_ROUTES
from tidemill.api.http.errors import HttpError
from tidemill.api.http.policy import Asking, beyond_scopes, refusal
from tidemill.api.http.route import Action, Call, Policy, Route, Viewer, Who, answers_text
from tidemill.api.tokens.scopes import Use, scopes_of

HERE = "demo"
OUTSIDER = Asking(viewer=Viewer(email="out@x", username="out@x"), workspace_exists=True)
MEMBER = Asking(viewer=Viewer(email="ann@x", username="ann", is_member=True), workspace_exists=True)
OPERATOR = Asking(viewer=Viewer(email="op@x", username="op", is_member=True, operator=True), workspace_exists=True)
ADMIN = Asking(viewer=Viewer(email="adm@x", username="adm", is_member=True, is_admin=True), workspace_exists=True)
SUPERADMIN = Asking(
    viewer=Viewer(email="root@x", username="root@x", is_admin=True, is_super_admin=True), workspace_exists=True
)
JOB = Asking(viewer=Viewer(email="ann@x", username="ann", is_member=True, job_workspace=HERE), workspace_exists=True)

ALLOWED = {
    Who.PERSON: {"outsider", "member", "operator", "admin", "superadmin", "job"},
    Who.MEMBER: {"member", "operator", "admin", "superadmin", "job"},
    Who.DEVELOPER: {"member", "admin", "superadmin", "job"},
    Who.ADMIN: {"admin", "superadmin"},
    Who.SUPERADMIN: {"superadmin"},
}
ROLES = {
    "outsider": OUTSIDER,
    "member": MEMBER,
    "operator": OPERATOR,
    "admin": ADMIN,
    "superadmin": SUPERADMIN,
    "job": JOB,
}


def status(
    who: Who, asking: Asking, *, action: Action = "read", method: str = "GET", workspace: str | None = HERE
) -> int:
    refused = refusal(Policy("jobs", action, who), method, workspace, asking)
    return 200 if refused is None else refused.status


@pytest.mark.parametrize("who", ALLOWED)
@pytest.mark.parametrize("role", ROLES)
def test_each_role_may_do_what_the_table_says(who: Who, role: str) -> None:
    workspace = None if who is Who.PERSON else HERE
    assert status(who, ROLES[role], workspace=workspace) == (200 if role in ALLOWED[who] else 403)


def test_a_workspace_that_is_not_there_looks_like_one_of_others() -> None:
    absent = refusal(Policy("jobs", "read", Who.MEMBER), "GET", HERE, replace(OUTSIDER, workspace_exists=False))
    foreign = refusal(Policy("jobs", "read", Who.MEMBER), "GET", HERE, OUTSIDER)
    assert absent is not None
    assert foreign is not None
    assert (absent.status, absent.message) == (foreign.status, foreign.message)


def test_a_superadmin_is_told_that_it_is_not_there() -> None:
    assert status(Who.MEMBER, replace(SUPERADMIN, workspace_exists=False)) == 404


@pytest.mark.parametrize(
    ("action", "method", "expected"),
    [("read", "GET", 200), ("read", "HEAD", 200), ("read", "POST", 403), ("write", "POST", 403), ("run", "GET", 403)],
)
def test_a_token_that_may_only_read_never_runs_anything(action: Action, method: str, expected: int) -> None:
    reader = replace(ADMIN, viewer=replace(ADMIN.viewer, read_only=True))
    assert status(Who.MEMBER, reader, action=action, method=method) == expected


def test_a_token_for_one_workspace_works_nowhere_else() -> None:
    bound = replace(SUPERADMIN, token_workspace=HERE)
    assert status(Who.MEMBER, bound) == 200
    assert status(Who.MEMBER, bound, workspace="other") == 403
    # The CLI takes this status for the advice to ask within the workspace.
    assert status(Who.PERSON, bound, workspace=None) == 401


def test_a_job_acts_in_its_own_workspace_only() -> None:
    assert status(Who.MEMBER, JOB, workspace="other") == 403
    assert status(Who.SUPERADMIN, JOB, workspace=None) == 403


@pytest.mark.parametrize("route", OWN_ROUTES, ids=lambda route: route.name)
def test_what_would_let_a_token_outgrow_its_limits_is_done_in_person(route: Route) -> None:
    use = Use(domain=route.policy.domain, action=route.policy.action)
    scoped = replace(SUPERADMIN.viewer, scopes=scopes_of([f"{use.domain}:{use.action}"]))
    job = replace(JOB.viewer, job_id=uuid.uuid4())
    for viewer in (scoped, job):
        assert (beyond_scopes(route, viewer, use) is not None) == route.in_person
    assert beyond_scopes(route, SUPERADMIN.viewer, use) is None


def test_passwords_and_superadmins_are_made_in_person() -> None:
    assert {each.path for each in OWN_ROUTES if each.in_person} >= {
        "/users/setpassword",
        "/users/set_password_of/{email}",
        "/users/create",
        "/users/update/{email}",
        "/users/tokens/update_scopes/{token_prefix}",
    }


async def nothing(_: Call) -> web.StreamResponse:
    return web.Response()


@pytest.mark.parametrize(
    ("path", "policy", "audited", "complaint"),
    [
        ("/jobs/list", Policy("jobs", "read", Who.MEMBER), None, "needs a {workspace}"),
        ("/jobs/list", Policy("jobs", "write", Who.PERSON), None, "is audited"),
        ("/jobs/list", Policy("jobs", "run", Who.PERSON), None, "is audited"),
        ("/jobs/list", Policy("jobs", "write", Who.PERSON), "jobs.invented", "no operation that clients know"),
        ("/jobs/list/", Policy("jobs", "read", Who.PERSON), None, "slash"),
    ],
)
def test_a_route_that_would_leave_something_open_can_not_be_built(
    path: str, policy: Policy, audited: str | None, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Route(
            method="GET",
            path=path,
            handler=nothing,
            policy=policy,
            summary="",
            answers={200: answers_text("")},
            audited=audited,
        )


def test_refusals_are_errors_that_http_knows() -> None:
    refused = refusal(Policy("jobs", "read", Who.ADMIN), "GET", HERE, MEMBER)
    assert isinstance(refused, HttpError)
    assert refused.message == "Only an admin of the workspace may do this."
