"""Workflows written as code: what their jobs ask for while they run."""

from tidemill.api.http.route import Policy, Route, Who, answers_json, answers_text
from tidemill.api.workflows import steps
from tidemill.api.workflows.schemas import InlineStep, Kept, Task, TaskQuery

ITSELF = Policy("jobs", "run", Who.JOB)

_OVER = answers_text("The job has ended, is being canceled, or goes on elsewhere.")
_OTHERS = answers_text("The token is not that of the job.")

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/w/{workspace}/jobs/wac/inline_checkpoint/{id}",
        handler=steps.keep,
        policy=ITSELF,
        resource="job:{id}",
        summary="Keep what a step inside a running workflow has come to; a step that is kept already stays as it is",
        body=InlineStep,
        answers={200: answers_json(Kept, "It is kept."), 403: _OTHERS, 409: _OVER},
    ),
    Route(
        method="POST",
        path="/w/{workspace}/jobs/run/workflow_as_code/{id}/{entrypoint}",
        handler=steps.call_task,
        policy=ITSELF,
        resource="job:{id}",
        summary="Run one function of a running job's own script as a job",
        query=TaskQuery,
        body=Task,
        answers={201: answers_text("The id of the job."), 403: _OTHERS, 409: _OVER},
        audited="jobs.run",
    ),
)
