"""What of a flow to deploy is refused or of no use, and what a version keeps of it. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from tidemill.api.flows.schemas import EditFlow
from tidemill.api.http.errors import BadRequest
from tidemill.api.http.route import Refused
from tidemill.api.scripts import paths
from tidemill.shared import tags
from tidemill.shared.flow import Flow

_NO_BEHALF = Refused(reason="a flow runs as whoever runs it; running on behalf of somebody else is not supported yet")

REFUSES: Mapping[str, Refused] = {
    "ws_error_handler_muted": Refused(reason="there is no workspace error handler to mute yet"),
    "dedicated_worker": Refused(reason="a process is kept for scripts, not for flows"),
    "on_behalf_of": _NO_BEHALF,
    "on_behalf_of_email": _NO_BEHALF,
}
"""Fields of a new version that ask for what is not there yet."""

TOLERATES: Mapping[str, str] = {
    "preserve_on_behalf_of": "means nothing without on_behalf_of",
    "skip_draft_deletion": "there are no drafts that a deployment would delete",
    "draft_only": "there are no drafts; what is sent is deployed",
}
"""Fields of a new version that change nothing here."""


def check(new: EditFlow, path: str) -> None:
    """Raise BadRequest, naming the field, for what is wrong beside the value."""
    if (wrong := paths.why_not(path)) is not None:
        raise BadRequest(f"The path {wrong}.")
    if bytes(new.schema)[:1] not in (b"{", b"n"):
        raise BadRequest("The schema must be a JSON object.")
    if new.tag and (wrong := tags.why_not_template(new.tag)) is not None:
        raise BadRequest(f"The tag {wrong}.")


def columns(new: EditFlow, flow: Flow) -> Mapping[str, Any]:
    """Return what a new version keeps; what was sent as nothing, zero or empty is stored as nothing."""
    return {
        "summary": new.summary,
        "description": new.description or "",
        "value": bytes(new.value).decode(),
        "schema": None if bytes(new.schema) == b"null" else bytes(new.schema).decode(),
        "tag": new.tag or None,
        "labels": new.labels or [],
        "concurrent_limit": flow.concurrent_limit or None,
        "concurrency_key": flow.concurrency_key or None,
        "priority": new.priority or flow.priority or None,
        "timeout_s": new.timeout or None,
        "visible_to_runner_only": new.visible_to_runner_only or False,
        "cache_ttl_s": None if flow.cache_ttl is None else int(flow.cache_ttl) or None,
        "erase_after_s": flow.delete_after_secs,
        "has_preprocessor": flow.preprocessor_module is not None,
        "deployment_message": new.deployment_message or None,
    }


def why_no_locks(said: str | None, *, is_known: bool) -> str:
    """Return what is shown of a version whose locks were looked for in vain."""
    if said is not None:
        return said
    why = "has ended without them" if is_known else "is not known any more"
    return f"The job that was to find the dependencies of its steps {why}: deploy it again."


def note_of(absent: Mapping[str, str]) -> str:
    """Return what is said of flows that steps name and that are not there, by the ids of the steps."""
    return "; ".join(f"the module {module} names {path}, where there is no flow yet" for module, path in absent.items())


def locks_text(locks: Mapping[str, str | None]) -> str | None:
    """Return the locks of a version as JSON, or None as long as one of them is to be found."""
    return None if None in locks.values() else msgspec.json.encode(locks).decode()
