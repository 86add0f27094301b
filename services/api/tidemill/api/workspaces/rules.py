"""Names of workspaces, and what a role may do."""

import re

from tidemill.api.http.errors import BadRequest, Unprocessable
from tidemill.api.http.route import ADMINS
from tidemill.api.users.rules import refuse_bad_username
from tidemill.api.workspaces.schemas import Capabilities, CreateWorkspace

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,49}")
_FORK = "wm-fork-"


def refuse_bad(wanted: CreateWorkspace, username: str) -> None:
    """Raise Unprocessable naming the field that can't be used."""
    if _ID.fullmatch(wanted.id) is None:
        raise Unprocessable(
            "The field id is not allowed: at most 50 small letters, digits, dashes and underscores, beginning with a "
            "letter or digit."
        )
    if wanted.id.startswith(_FORK):
        raise Unprocessable(f"The field id is not allowed: ids that begin with {_FORK} are kept for forks.")
    if not wanted.name.strip():
        raise Unprocessable("The field name is not allowed: it is blank.")
    refuse_bad_username(username)


def refuse_closing(workspace: str) -> None:
    """Raise BadRequest for the workspace of the installation itself, without which nobody could look after it."""
    if workspace == ADMINS:
        raise BadRequest(f"The workspace {ADMINS} always stays open.")


def capabilities_of(*, operator: bool) -> Capabilities:
    """Return what a member may author: an operator only runs what others made."""
    return Capabilities(
        code=not operator,
        flows="none" if operator else "full",
        apps="none" if operator else "full",
        manage_schedules=not operator,
        manage_triggers=not operator,
    )
