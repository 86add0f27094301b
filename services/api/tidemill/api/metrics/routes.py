"""How far jobs say they are, and what was measured of them."""

from tidemill.api.http.route import Policy, Route, Who, answers_json, answers_text
from tidemill.api.metrics import handlers
from tidemill.api.metrics.schemas import JobMetrics, JobProgress, Wanted

READ = Policy("jobs", "read", Who.MEMBER)

_MISSING = answers_text("There is none that you may see.")

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/w/{workspace}/job_metrics/set_progress/{id}",
        handler=handlers.set_progress,
        policy=Policy("jobs", "write", Who.MEMBER),
        resource="job:{id}",
        within_run=True,
        summary="Tell how far a job is that has not ended; a job may only tell its own",
        body=JobProgress,
        answers={200: answers_json(int, "The percent."), 404: _MISSING, 409: answers_text("The job has ended.")},
        tolerates={"flow_job_id": "which flow the job is a step of is known"},
        audited="jobs",
    ),
    Route(
        method="GET",
        path="/w/{workspace}/job_metrics/get_progress/{id}",
        handler=handlers.get_progress,
        policy=READ,
        resource="job:{id}",
        summary="Get how far a job that has not ended says it is",
        answers={200: answers_json(int | None, "The percent, null when it has not said."), 404: _MISSING},
    ),
    Route(
        method="POST",
        path="/w/{workspace}/job_metrics/get/{id}",
        handler=handlers.get_metrics,
        policy=READ,
        resource="job:{id}",
        summary="Get what was measured of a job: the peak of its memory once it has ended, and no series",
        body=Wanted | None,
        tolerates=dict.fromkeys(("timeseries_max_datapoints", "from_timestamp", "to_timestamp"), "no series is kept"),
        answers={
            200: answers_json(JobMetrics, "The numbers; no series, because only the peak is kept."),
            404: _MISSING,
        },
    ),
)
