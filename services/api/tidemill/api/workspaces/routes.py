"""Workspaces: make one, list them, ask for one."""

from tidemill.api.http.route import Policy, Refused, Route, Who, answers_json, answers_text
from tidemill.api.workspaces import handlers
from tidemill.api.workspaces.schemas import (
    CreateWorkspace,
    UserWorkspaceList,
    Workspace,
    WorkspaceExists,
    WorkspacePage,
)

ROUTES = (
    Route(
        method="POST",
        path="/workspaces/exists",
        handler=handlers.exists,
        policy=Policy("workspaces", "read", Who.PERSON),
        summary="Is this workspace id taken",
        body=WorkspaceExists,
        answers={200: answers_json(bool, "Whether it is")},
    ),
    Route(
        method="POST",
        path="/workspaces/create",
        handler=handlers.create,
        policy=Policy("workspaces", "write", Who.SUPERADMIN),
        summary="Make a workspace",
        body=CreateWorkspace,
        answers={201: answers_text("What was done")},
        refuses={
            "error_handler_fallback_to_instance_alerts": Refused(reason="there are no alerts of the installation yet")
        },
        audited="workspaces.create",
    ),
    Route(
        method="GET",
        path="/workspaces/list",
        handler=handlers.list_own,
        policy=Policy("workspaces", "read", Who.PERSON),
        summary="The workspaces that the viewer may enter",
        answers={200: answers_json(list[Workspace], "By id")},
    ),
    Route(
        method="GET",
        path="/workspaces/users",
        handler=handlers.list_memberships,
        policy=Policy("workspaces", "read", Who.PERSON),
        summary="The viewer's workspaces and what they are there",
        answers={200: answers_json(UserWorkspaceList, "By id")},
    ),
    Route(
        method="GET",
        path="/workspaces/list_as_superadmin",
        handler=handlers.list_all,
        policy=Policy("workspaces", "read", Who.SUPERADMIN),
        summary="All workspaces of the installation",
        query=WorkspacePage,
        answers={200: answers_json(list[Workspace], "By id")},
    ),
    Route(
        method="GET",
        path="/w/{workspace}/workspaces/get_workspace_name",
        handler=handlers.get_name,
        policy=Policy("workspaces", "read", Who.MEMBER),
        summary="The name that people read",
        answers={200: answers_text("The name")},
    ),
)
