"""Flows: at paths, in versions that never change."""

from collections.abc import Mapping

from tidemill.api.flows import deploy, read, rules
from tidemill.api.flows.schemas import (
    Archiving,
    DeploymentStatus,
    EditFlow,
    Flow,
    FlowVersion,
    ListQuery,
    NewFlow,
    NewMessage,
)
from tidemill.api.http.paging import Paged
from tidemill.api.http.route import Policy, Refused, Route, Who, answers_json, answers_text

READ = Policy("flows", "read", Who.MEMBER)
WRITE = Policy("flows", "write", Who.DEVELOPER)
_FLOW = answers_json(Flow, "The flow.")
_PATH = answers_text("The path; Tidemill-Note names flows that steps name and that are not there yet.")
_MISSING = answers_text("There is none that you may see.")
_WRONG = answers_text("The value can't be run, or a field is not supported; the module and the field are named.")

_NOT_KEPT: Mapping[str, str] = {
    "with_starred_info": "there are no stars",
    "get_draft": "there are no drafts",
}
_LIST_TOLERATES: Mapping[str, str] = {
    "include_draft_only": "there are no drafts",
    "with_deployment_msg": "the message is always there",
}
_LIST_REFUSES: Mapping[str, Refused] = {
    "starred_only": Refused(reason="there are no stars yet"),
    "dedicated_worker": Refused(reason="a process is kept for scripts, not for flows"),
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/w/{workspace}/flows/create",
        handler=deploy.create,
        policy=WRITE,
        summary="Deploy a flow",
        body=NewFlow,
        answers={201: _PATH, 400: answers_text("The path is taken, or a field is wrong."), 422: _WRONG},
        tolerates=rules.TOLERATES,
        refuses=rules.REFUSES,
        audited="flows.create",
    ),
    Route(
        method="POST",
        path="/w/{workspace}/flows/update/{path...}",
        handler=deploy.update,
        policy=WRITE,
        resource="{path}",
        summary="Deploy a new version of a flow, at another path where one is sent",
        body=EditFlow,
        answers={
            200: _PATH,
            400: answers_text("The new path is taken, or a field is wrong."),
            404: _MISSING,
            422: _WRONG,
        },
        tolerates=rules.TOLERATES,
        refuses=rules.REFUSES,
        audited="flows.update",
    ),
    Route(
        method="POST",
        path="/w/{workspace}/flows/archive/{path...}",
        handler=deploy.archive,
        policy=WRITE,
        resource="{path}",
        summary="Archive a flow, or let it be there again",
        body=Archiving | None,
        answers={200: answers_text("What was archived."), 404: _MISSING},
        audited="flows.archive",
    ),
    Route(
        method="DELETE",
        path="/w/{workspace}/flows/delete/{path...}",
        handler=deploy.delete,
        policy=WRITE,
        resource="{path}",
        summary="Delete a flow with all its versions; also where there is none",
        answers={200: answers_text("What was deleted.")},
        tolerates={"keep_captures": "there are no captures"},
        audited="flows.delete",
    ),
    Route(
        method="POST",
        path="/w/{workspace}/flows/history_update/v/{version}",
        handler=deploy.change_message,
        policy=WRITE,
        summary="Change the deployment message of a version",
        body=NewMessage,
        answers={200: answers_text("What was changed."), 404: _MISSING},
        audited="flows.update",
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/get/v/{version}",
        handler=read.version,
        policy=READ,
        summary="Get a flow as one version of it says",
        answers={200: _FLOW, 404: _MISSING},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/get/{path...}",
        handler=read.newest,
        policy=READ,
        resource="{path}",
        summary="Get the flow at a path, archived or not",
        answers={200: _FLOW, 404: _MISSING},
        tolerates=_NOT_KEPT,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/deployment_status/p/{path...}",
        handler=read.deployment_status,
        policy=READ,
        resource="{path}",
        summary="Tell how far the locks of a flow's newest version are",
        answers={
            200: answers_json(DeploymentStatus, "The job that looks for them, where there is something to find."),
            404: _MISSING,
        },
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/list",
        handler=read.listing,
        policy=READ,
        summary="List flows",
        query=ListQuery,
        answers={200: answers_json(list[Flow], "One page.")},
        tolerates=_LIST_TOLERATES,
        refuses=_LIST_REFUSES,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/list_paths",
        handler=read.list_paths,
        policy=READ,
        summary="List the paths of all flows",
        answers={200: answers_json(list[str], "The paths, in order.")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/exists/{path...}",
        handler=read.exists,
        policy=READ,
        resource="{path}",
        summary="Tell whether a flow is at a path",
        answers={200: answers_json(bool, "Whether it is.")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/history/p/{path...}",
        handler=read.history,
        policy=READ,
        resource="{path}",
        summary="List the versions of a flow, newest first",
        query=Paged,
        answers={200: answers_json(list[FlowVersion], "One page.")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/flows/get_latest_version/{path...}",
        handler=read.latest,
        policy=READ,
        resource="{path}",
        summary="Get the newest version of a flow",
        answers={200: answers_json(FlowVersion, "The version."), 404: _MISSING},
    ),
)
