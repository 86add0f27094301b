"""Values that the steps of a flow keep with it, by name."""

from tidemill.api.flow_states import handlers
from tidemill.api.http.route import Policy, Route, Who, answers_json, answers_text
from tidemill.api.jobs.schemas import Raw

_NO_FLOW = answers_text("There is none that you may see, or it is no flow.")

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/w/{workspace}/jobs/flow/user_states/{id}/{key}",
        handler=handlers.keep,
        policy=Policy("jobs", "write", Who.MEMBER),
        resource="job:{id}",
        within_run=True,
        summary="Keep a value with a flow that has not ended; an empty body is null",
        body=Raw | None,
        answers={200: answers_text("The key."), 404: _NO_FLOW, 409: answers_text("The flow has ended.")},
        audited="jobs",
    ),
    Route(
        method="GET",
        path="/w/{workspace}/jobs/flow/user_states/{id}/{key}",
        handler=handlers.kept,
        policy=Policy("jobs", "read", Who.MEMBER),
        resource="job:{id}",
        summary="Get a value that is kept with a flow",
        answers={200: answers_json(Raw, "The value, null when there is none."), 404: _NO_FLOW},
    ),
)
