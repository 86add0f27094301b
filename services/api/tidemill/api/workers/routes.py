"""Workers: who is there."""

from tidemill.api.http.route import Policy, Route, Who, answers_json
from tidemill.api.workers import handlers
from tidemill.api.workers.schemas import WorkerPage, WorkerPing

ROUTES = (
    Route(
        method="GET",
        path="/workers/list",
        handler=handlers.list_workers,
        policy=Policy("workers", "read", Who.PERSON),
        summary="The workers that were heard of lately",
        query=WorkerPage,
        answers={200: answers_json(list[WorkerPing], "The last heard first")},
    ),
)
