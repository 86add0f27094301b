"""Which entries of the audit log somebody may see, and how a filter is meant."""

from dataclasses import dataclass

from tidemill.api.audit.schemas import AuditFilter
from tidemill.api.http.errors import Forbidden
from tidemill.api.http.route import ADMINS, Viewer

_KINDS = {"Create": "Created", "Update": "Updated", "Delete": "Delete", "Execute": "Execute"}
_INSTALLATION = ""
"""Where logins and whatever else concerns no workspace are written down."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The rows that a viewer may see; None means all."""

    workspaces: list[str] | None
    email: str | None


def reach_of(viewer: Viewer, workspace: str, *, all_workspaces: bool = False) -> Reach:
    """Return what may be seen from a workspace: admins see all of it, everybody else what they did themselves.

    Raises Forbidden when somebody who is no superadmin asks for all workspaces.
    """
    if all_workspaces:
        if not viewer.is_super_admin:
            raise Forbidden("Only a superadmin may look at all workspaces.")
        return Reach(workspaces=None, email=None)
    whole = [workspace, _INSTALLATION] if workspace == ADMINS and viewer.is_super_admin else [workspace]
    return Reach(workspaces=whole, email=None if viewer.is_admin else viewer.email)


def kind_of(wanted: AuditFilter) -> str | None:
    """Return the kind as entries spell it; the filter's words differ from the field's."""
    return None if wanted.action_kind is None else _KINDS[wanted.action_kind]


def names_of(commas: str | None) -> list[str] | None:
    """Return the names in a comma list, or None when there are none."""
    names = [name.strip() for name in (commas or "").split(",")]
    return [name for name in names if name] or None
