"""Scripts: immutable versions at paths."""

from collections.abc import Mapping

from tidemill.api.http.paging import Paged
from tidemill.api.http.route import Policy, Refused, Route, Who, answers_json, answers_text
from tidemill.api.scripts import deploy, read, rules
from tidemill.api.scripts.schemas import CreateQuery, DeploymentStatus, ListQuery, NewScript, Script, ScriptHistory

READ = Policy("scripts", "read", Who.MEMBER)
WRITE = Policy("scripts", "write", Who.DEVELOPER)
_SCRIPT = answers_json(Script, "The version.")
_MISSING = answers_text("There is none that you may see.")

_NOT_KEPT: Mapping[str, str] = {
    "with_starred_info": "there are no stars",
    "get_draft": "there are no drafts",
    "authed": "every answer is for whoever asks",
}
_LIST_TOLERATES: Mapping[str, str] = {
    "include_without_main": "nothing is hidden for want of a main function",
    "include_draft_only": "there are no drafts",
    "with_deployment_msg": "the message is always there",
}
_LIST_REFUSES: Mapping[str, Refused] = {
    "first_parent_hash": Refused(reason="filter by parent_hash, which looks at the whole lineage"),
    "last_parent_hash": Refused(reason="filter by parent_hash, which looks at the whole lineage"),
    "starred_only": Refused(reason="there are no stars yet"),
}

ROUTES: tuple[Route, ...] = (
    Route(
        method="POST",
        path="/w/{workspace}/scripts/create",
        handler=deploy.create,
        policy=WRITE,
        summary="Deploy a new version of a script",
        query=CreateQuery,
        body=NewScript,
        answers={
            201: answers_text("The hash of the version; Tidemill-Note says why it has no schema."),
            400: answers_text("It does not follow the head."),
        },
        tolerates=rules.TOLERATES,
        refuses=rules.REFUSES,
        audited="scripts.create",
    ),
    Route(
        method="POST",
        path="/w/{workspace}/scripts/archive/p/{path...}",
        handler=deploy.archive_path,
        policy=WRITE,
        resource="{path}",
        summary="Archive the head of a path",
        answers={200: answers_text("What was archived."), 404: _MISSING},
        audited="scripts.archive",
    ),
    Route(
        method="POST",
        path="/w/{workspace}/scripts/archive/h/{hash}",
        handler=deploy.archive_version,
        policy=WRITE,
        summary="Archive one version",
        answers={200: _SCRIPT, 404: _MISSING},
        audited="scripts.archive",
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/get/p/{path...}",
        handler=read.head,
        policy=READ,
        resource="{path}",
        summary="Get the head of a path",
        answers={200: _SCRIPT, 404: _MISSING},
        tolerates=_NOT_KEPT,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/get/h/{hash}",
        handler=read.version,
        policy=READ,
        summary="Get one version",
        answers={200: _SCRIPT, 404: _MISSING},
        tolerates=_NOT_KEPT,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/deployment_status/h/{hash}",
        handler=read.deployment_status,
        policy=READ,
        summary="Tell whether a version has its lock, or why not",
        answers={
            200: answers_json(DeploymentStatus, "Empty but for the job as long as it is looked for."),
            404: _MISSING,
        },
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/raw/p/{path...}",
        handler=read.source_of_head,
        policy=READ,
        summary="Get the bare content of the head of a path, which may carry a file extension",
        answers={200: answers_text("The content."), 404: _MISSING},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/raw/h/{hash}",
        handler=read.source_of_version,
        policy=READ,
        summary="Get the bare content of one version",
        answers={200: answers_text("The content."), 404: _MISSING},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/list",
        handler=read.listing,
        policy=READ,
        summary="List scripts",
        query=ListQuery,
        answers={200: answers_json(list[Script], "One page.")},
        tolerates=_LIST_TOLERATES,
        refuses=_LIST_REFUSES,
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/list_paths",
        handler=read.list_paths,
        policy=READ,
        summary="List the paths of all scripts",
        answers={200: answers_json(list[str], "The paths, in order.")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/exists/p/{path...}",
        handler=read.exists,
        policy=READ,
        resource="{path}",
        summary="Tell whether a script is at a path",
        answers={200: answers_json(bool, "Whether it is.")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/history/p/{path...}",
        handler=read.history,
        policy=READ,
        resource="{path}",
        summary="List the versions of a path, newest first",
        query=Paged,
        answers={200: answers_json(list[ScriptHistory], "One page.")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/scripts/get_latest_version/{path...}",
        handler=read.latest,
        policy=READ,
        resource="{path}",
        summary="Get the newest version of a path",
        answers={200: answers_json(ScriptHistory, "The version."), 404: _MISSING},
    ),
)
