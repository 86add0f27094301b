"""Approvals: the addresses for them, saying yes or no, and what a flow waits for."""

from tidemill.api.approvals import decide, show, visit
from tidemill.api.approvals.schemas import (
    ApprovalInfo,
    ApproverQuery,
    InfoQuery,
    ResumeQuery,
    ResumeSuspended,
    ResumeUrls,
    SuspendedFlow,
    UrlsQuery,
)
from tidemill.api.http.route import Answer, Policy, Route, Who, answers_json, answers_text
from tidemill.api.jobs.schemas import Raw

READ = Policy("jobs", "read", Who.MEMBER)
OWN = Policy("jobs", "write", Who.MEMBER)
BY_URL = Policy("jobs", "write", Who.HOLDER)
LOOK_BY_URL = Policy("jobs", "read", Who.HOLDER)

_SAYS = Raw | None
_MISSING = answers_text("There is none that you may see.")
_NO_STEP = answers_text("The job is no step of a flow.")
_NOTED = answers_text("It is noted, and the flow goes on when enough has been said.")
_LOGIN = answers_text("The step wants to know who approves: log in.")
_NOT_ALLOWED = answers_text("The signature is not ours, or the step does not allow you to approve.")
_TOO_LATE = answers_text("This URL was used before, or nobody waits for it any more, or not yet.")
_PAGE = Answer(says="The page.", media="text/html")
_SAID = {201: _NOTED, 401: _LOGIN, 403: _NOT_ALLOWED, 409: _TOO_LATE}

ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/w/{workspace}/jobs/resume_urls/{id}/{resume_id}",
        handler=decide.resume_urls,
        policy=READ,
        resource="job:{id}",
        summary="Get the addresses by which anyone who holds them approves or refuses, once",
        query=UrlsQuery,
        answers={200: answers_json(ResumeUrls, "The addresses."), 400: _NO_STEP, 404: _MISSING},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/jobs/wac_approval_urls/{id}/{step_key}",
        handler=decide.workflow_urls,
        policy=READ,
        resource="job:{id}",
        summary="Get the addresses by which anyone approves or refuses what a workflow waits for under a key",
        query=ApproverQuery,
        answers={200: answers_json(ResumeUrls, "The addresses."), 404: _MISSING},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/jobs/job_signature/{id}/{resume_id}",
        handler=decide.job_signature,
        policy=READ,
        resource="job:{id}",
        summary="Get the signature in a job's approval addresses",
        query=ApproverQuery,
        answers={200: answers_text("The signature."), 400: _NO_STEP, 404: _MISSING},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/jobs_u/resume/{id}/{resume_id}/{signature}",
        handler=decide.resume,
        policy=BY_URL,
        resource="job:{id}",
        summary="Approve what a flow waits for",
        query=ResumeQuery,
        answers=_SAID,
        audited=decide.RESUME,
    ),
    Route(
        method="POST",
        path="/w/{workspace}/jobs_u/resume/{id}/{resume_id}/{signature}",
        handler=decide.resume,
        policy=BY_URL,
        resource="job:{id}",
        summary="Approve what a flow waits for, and say something with it",
        query=ApproverQuery,
        body=_SAYS,
        answers=_SAID,
        audited=decide.RESUME,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/jobs_u/cancel/{id}/{resume_id}/{signature}",
        handler=decide.cancel,
        policy=BY_URL,
        resource="job:{id}",
        summary="Refuse what a flow waits for",
        query=ResumeQuery,
        answers=_SAID,
        audited=decide.REFUSE,
    ),
    Route(
        method="POST",
        path="/w/{workspace}/jobs_u/cancel/{id}/{resume_id}/{signature}",
        handler=decide.cancel,
        policy=BY_URL,
        resource="job:{id}",
        summary="Refuse what a flow waits for, and say something with it",
        query=ApproverQuery,
        body=_SAYS,
        answers=_SAID,
        audited=decide.REFUSE,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/jobs_u/get_flow/{id}/{resume_id}/{signature}",
        handler=show.flow,
        policy=LOOK_BY_URL,
        resource="job:{id}",
        summary="Get the flow that an approval address is about",
        query=ApproverQuery,
        answers={200: answers_json(SuspendedFlow, "The flow."), 401: _LOGIN, 403: _NOT_ALLOWED},
    ),
    Route(
        method="POST",
        path="/w/{workspace}/jobs/flow/resume/{id}",
        handler=decide.resume_as_owner,
        policy=OWN,
        resource="job:{id}",
        summary="Approve what a flow of yours waits for; each owner counts once",
        body=_SAYS,
        answers={**_SAID, 404: _MISSING},
        audited=decide.RESUME,
    ),
    Route(
        method="POST",
        path="/w/{workspace}/jobs_u/flow/resume_suspended/{id}",
        handler=decide.resume_suspended,
        policy=BY_URL,
        resource="job:{id}",
        summary="Approve or refuse what a flow waits for, by an approval token or as one who owns it",
        body=ResumeSuspended,
        answers={**_SAID, 404: _MISSING},
        audited=decide.RESUME,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/jobs_u/flow/approval_info/{id}",
        handler=show.info,
        policy=LOOK_BY_URL,
        resource="job:{id}",
        summary="Get what a flow waits for, by an approval token or as one who may see it",
        query=InfoQuery,
        answers={200: answers_json(ApprovalInfo, "What it waits for."), 403: _NOT_ALLOWED, 404: _MISSING},
    ),
)

PAGES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/approve/{workspace}/{id}/{resume_id}/{signature}",
        handler=visit.look_at,
        policy=LOOK_BY_URL,
        resource="job:{id}",
        summary="The page on which a person approves or refuses",
        query=ApproverQuery,
        answers={200: _PAGE},
    ),
    Route(
        method="POST",
        path="/approve/{workspace}/{id}/{resume_id}/{signature}",
        handler=visit.decide_on,
        policy=BY_URL,
        resource="job:{id}",
        summary="What a person says on that page",
        query=ApproverQuery,
        raw_body="application/x-www-form-urlencoded",
        answers={200: _PAGE},
        audited=decide.RESUME,
    ),
)
"""Beside the API, for browsers."""
