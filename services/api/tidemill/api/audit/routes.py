"""The audit log, read only: it is written by events alone."""

from tidemill.api.audit import handlers
from tidemill.api.audit.schemas import AuditFilter, AuditLog
from tidemill.api.http.route import Policy, Route, Who, answers_json

ROUTES = (
    Route(
        method="GET",
        path="/w/{workspace}/audit/list",
        handler=handlers.list_entries,
        policy=Policy("audit", "read", Who.MEMBER),
        summary="What was done here; admins see all of it, everybody else what they did themselves",
        query=AuditFilter,
        answers={200: answers_json(list[AuditLog], "Newest first")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/audit/get/{id}",
        handler=handlers.get_entry,
        policy=Policy("audit", "read", Who.MEMBER),
        summary="One entry of the audit log",
        answers={200: answers_json(AuditLog, "The entry")},
    ),
)
