"""What may be deployed, where in a path's line of versions it belongs, and by which hash it is known. Pure."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from tidemill.api.http.errors import BadRequest, Unprocessable
from tidemill.api.http.route import Refused
from tidemill.api.scripts import paths
from tidemill.api.scripts.schemas import NewScript
from tidemill.api.scripts.signatures.signature import Signature
from tidemill.shared import requirements, tags
from tidemill.shared.requirements import NOTHING, NotUnderstood, Requirements
from tidemill.shared.script import FLOW_TAG, Language

_NO_DEBOUNCING = Refused(reason="runs are not debounced yet")
_NO_BEHALF = Refused(reason="a script runs as whoever runs it; running on behalf of somebody else is not supported yet")

REFUSES: Mapping[str, Refused] = {
    "ws_error_handler_muted": Refused(reason="there is no workspace error handler to mute yet"),
    "concurrency_time_window_s": Refused(reason="a concurrency limit counts what runs at once, not in a window"),
    "debounce_key": _NO_DEBOUNCING,
    "debounce_delay_s": _NO_DEBOUNCING,
    "debounce_args_to_accumulate": _NO_DEBOUNCING,
    "max_total_debouncing_time": _NO_DEBOUNCING,
    "max_total_debounces_amount": _NO_DEBOUNCING,
    "restart_unless_cancelled": Refused(reason="scripts that start again by themselves are not supported yet"),
    "has_preprocessor": Refused(reason="preprocessors are not run yet"),
    "on_behalf_of": _NO_BEHALF,
    "on_behalf_of_email": _NO_BEHALF,
    "codebase": Refused(reason="bundles are not supported yet"),
    "modules": Refused(reason="scripts of more than one file are not supported yet"),
}
"""Fields of a new version that ask for what is not there yet."""

TOLERATES: Mapping[str, str] = {
    "preserve_on_behalf_of": "means nothing without on_behalf_of",
    "skip_draft_deletion": "there are no drafts that a deployment would delete",
    "draft_only": "there are no drafts; what is sent is deployed",
    "assets": "what a script touches is not recorded yet",
    "no_main_func": "the content tells",
    "cache_ignore_s3_path": "results are cached by the arguments as they were sent, whatever files they name",
}
"""Fields of a new version that change nothing here."""

KINDS = ("script", "failure", "trigger", "command", "approval", "preprocessor")
KEPT_ANCESTORS = 100
"""How far back a version knows its lineage by itself; the history of its path knows all of it."""
LIBRARY = "lib"
"""The `auto_kind` of a script that is only imported by others."""
_LONGEST_TEXT = 10 * 1024 * 1024
MOST_READ = 128 * 1024
"""Longer content is looked into for what it wants installed by the job that finds locks: Python takes its time."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A version that stands already: the head of the path, or the one that the new version says it follows."""

    hash: str
    path: str
    parent_hashes: list[str]
    fingerprints: Collection[bytes]
    """As it is stored, and where its lock was found for it also without the lock."""
    is_head: bool
    may_write: bool
    has_no_lock: bool = False
    """Its lock was looked for in vain."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a new version belongs: after its parent, or first."""

    parent: Version | None


class NothingNew(msgspec.Struct, frozen=True, kw_only=True):
    """The head says the same already."""

    head: Version


def check(new: NewScript) -> None:
    """Raise BadRequest or Unprocessable, naming the field, when this can't be deployed whatever stands there."""
    if (wrong := paths.why_not(new.path)) is not None:
        raise BadRequest(f"The path {wrong}.")
    if new.language not in list(Language):
        raise Unprocessable(
            f"The language {new.language!r} is not run by this version, which runs {', '.join(Language)}."
        )
    if new.kind is not None and new.kind not in KINDS:
        raise BadRequest(f"The kind must be one of {', '.join(KINDS)}.")
    if bytes(new.schema)[:1] not in (b"{", b"n"):
        raise BadRequest("The schema must be a JSON object.")
    if len(new.content) > _LONGEST_TEXT:
        raise BadRequest("The content must not be longer than 10 MiB.")
    if len(new.lock or "") > _LONGEST_TEXT:
        raise BadRequest("The lock must not be longer than 10 MiB.")
    for each in new.envs or ():
        name, equals, _ = each.partition("=")
        if not equals or not name.isascii() or not name.isidentifier():
            raise BadRequest("The envs must be a list of NAME=VALUE.")
    _check_tag(new.tag)


def _check_tag(tag: str | None) -> None:
    if tag and (wrong := tags.why_not_template(tag)) is not None:
        raise BadRequest(f"The tag {wrong}.")
    if tag == FLOW_TAG:
        raise BadRequest(f"The tag must not be {FLOW_TAG!r}, which is only for flows.")


def lacks_schema(new: NewScript) -> bool:
    """Return whether a schema is left for us to find."""
    return bytes(new.schema) == b"null"


def erase_after(new: NewScript) -> int | None:
    """Return how many seconds after its end a run is erased, None when it is kept as long as others."""
    return 0 if new.delete_after_secs is None and new.delete_after_use else new.delete_after_secs


def requirements_of(new: NewScript) -> Requirements | None:
    """Return what a new version wants installed, None where a job is to look; raises BadRequest for what it may not."""
    if new.lock is not None:
        return NOTHING
    if new.language == Language.PYTHON3 and len(new.content) > MOST_READ:
        return None
    try:
        return requirements.of(new.language, new.content)
    except NotUnderstood as wrong:
        raise BadRequest(f"The content can't be deployed: {wrong}") from wrong


def completed(sent: Mapping[str, Any], signature: Signature, wanted: Requirements | None) -> Mapping[str, Any]:
    """Return the columns of a version with what was left open, read off its content: schema, `auto_kind` and lock."""
    found = dict(sent)
    if sent["lock"] is None:
        found["lock"] = None if wanted is None else wanted.lock
    if sent["schema"] is None and signature.schema is not None:
        found["schema"] = msgspec.json.encode(signature.schema).decode()
    if sent["auto_kind"] is None and signature.is_library:
        found["auto_kind"] = LIBRARY
    return found


def why_no_lock(said: str | None, *, is_known: bool) -> str:
    """Return what is shown of a version whose lock was looked for in vain."""
    if said is not None:
        return said
    why = "has ended without one" if is_known else "is not known any more"
    return f"The job that was to find its dependencies {why}: deploy it again."


def fingerprint(values: Mapping[str, Any]) -> bytes:
    """Return what tells two versions apart, from the columns of one; how it came to be deployed is no part of it."""
    return msgspec.json.encode([[name, values[name]] for name in sorted(values)])


def hash_of(print_: bytes, predecessor: str | None) -> str:
    """Return the sixteen hex digits of a version, from what it is and the version that stood at its path before."""
    digest = hashlib.blake2b(print_, digest_size=8)
    digest.update((predecessor or "").encode())
    return digest.hexdigest()


def place(new: NewScript, prints: Collection[bytes], head: Version | None, named: Version | None) -> Place | NothingNew:
    """Return where the new version belongs; `prints` are its own, as it was sent and as it is stored.

    `head` stands at its path, `named` is the version that `parent_hash` names. Raises BadRequest when the line would
    fork: a version follows the head of its path, takes a free path, or moves the head of another path to a free one.
    """
    auto = new.auto_parent or False
    if head is not None and not head.has_no_lock and not set(prints).isdisjoint(head.fingerprints):
        return NothingNew(head=head)
    if not new.parent_hash:
        if head is not None and not auto:
            raise BadRequest(
                f"The path {new.path} is taken: send parent_hash {head.hash} to deploy a new version of it."
            )
        return Place(parent=head)
    moves = named is not None and named.is_head and named.may_write and named.path != new.path
    if head is not None:
        if moves:
            raise BadRequest(f"The path {new.path} is taken: a script can't be renamed to it.")
        if auto or head.hash == new.parent_hash:
            return Place(parent=head)
        raise BadRequest(
            f"The parent_hash {new.parent_hash} would fork the lineage: the head of {new.path} is {head.hash}."
        )
    if moves:
        return Place(parent=named)
    if auto:
        return Place(parent=None)
    if named is None or not named.may_write:
        raise BadRequest(f"The parent_hash {new.parent_hash} names no version.")
    raise BadRequest(f"The parent_hash {new.parent_hash} is archived: the lineage goes on from a head only.")
