"""What a job becomes out of a script and a request, what a list is to hold, and what is new to a follower. Pure."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from tidemill.api.http.errors import BadRequest, Forbidden, HttpError, Unprocessable
from tidemill.api.http.route import Refused, Viewer
from tidemill.api.jobs.flow_status import FlowStatus
from tidemill.api.jobs.schemas import (
    FlowDependencies,
    FlowPreview,
    JobUpdate,
    ListQuery,
    PayloadQuery,
    Preview,
    RawDependencies,
    RequestQuery,
    RestartQuery,
    RunQuery,
    UpdateQuery,
    WaitQuery,
    WorkflowStatus,
)
from tidemill.api.scripts import paths
from tidemill.shared import tags
from tidemill.shared.caching import cache_key
from tidemill.shared.flow import Flow
from tidemill.shared.script import CODELESS, DEPENDENCY_TAG, FLOW_TAG, FLOWS, JobKind, Language, Outcome

RUN_TOLERATES: Mapping[str, str] = {"root_job": "the root follows from parent_job"}
RUN_REFUSES: Mapping[str, Refused] = {
    "retry": Refused(reason="jobs are not tried again by themselves yet"),
    "skip_preprocessor": Refused(reason="preprocessors are not run yet"),
    "memory_id": Refused(reason="it is for flows with a conversation, which are not there yet"),
    "poll_delay_ms": Refused(reason="nothing is polled"),
}
FLOW_REFUSES: Mapping[str, Refused] = {
    "retry": Refused(reason="the steps of a flow say how often they are tried again"),
    "memory_id": Refused(reason="it is for flows with a conversation, which are not there yet"),
    "poll_delay_ms": Refused(reason="nothing is polled"),
}
FLOW_PREVIEW_REFUSES: Mapping[str, Refused] = {
    **FLOW_REFUSES,
    "cache_ttl": Refused(reason="only results of deployed versions are cached"),
    "skip_preprocessor": Refused(reason="a preview begins with the first module, never with the preprocessor"),
    "temp_script_refs": Refused(reason="imports of scripts that are not deployed are not supported yet"),
}
_AS_BEFORE = "a run is taken up with the arguments that it had"
RESTART_REFUSES: Mapping[str, Refused] = {
    "include_query": Refused(reason=_AS_BEFORE),
    "include_header": Refused(reason=_AS_BEFORE),
    "nested_path": Refused(reason="a flow is taken up at one of its own steps, not inside of a loop or a branch"),
}
PREVIEW_TOLERATES: Mapping[str, str] = {
    **RUN_TOLERATES,
    "flow_path": "a step that is tried alone has no flow around it",
}
PREVIEW_REFUSES: Mapping[str, Refused] = {
    **RUN_REFUSES,
    "cache_ttl": Refused(reason="only results of deployed versions are cached"),
    "lock": Refused(reason="a preview finds its dependencies by itself"),
    "modules": Refused(reason="scripts of more than one file are not supported yet"),
    "temp_script_refs": Refused(reason="imports of scripts that are not deployed are not supported yet"),
    "script_hash": Refused(reason="run a deployed version by its hash instead"),
    "dedicated_worker": Refused(reason="a process is kept for deployed versions only"),
    "format": Refused(reason="bundles are not supported yet"),
}
_PREVIEWED: Mapping[str, JobKind] = {"code": JobKind.PREVIEW, **{str(kind): kind for kind in sorted(CODELESS)}}
_NO_WORKSPACE_DEPENDENCIES = Refused(reason="a script names its own dependencies; a workspace has none yet")
DEPENDENCIES_REFUSES: Mapping[str, Refused] = {
    **{name: refused for name, refused in RUN_REFUSES.items() if name != "skip_preprocessor"},
    "cache_ttl": Refused(reason="locks are remembered by what they are for"),
    "raw_deps": _NO_WORKSPACE_DEPENDENCIES,
    "raw_workspace_dependencies": _NO_WORKSPACE_DEPENDENCIES,
    "temp_script_refs": Refused(reason="imports of other scripts are not looked into yet"),
}
FLOW_DEPENDENCIES_TOLERATES: Mapping[str, str] = {
    **RUN_TOLERATES,
    "use_local_lockfiles": "a lock that is sent is kept, always",
}
_UNCLEAR = Refused(reason="use created_before and created_after, or created_or_started_before and _after")
LIST_REFUSES: Mapping[str, Refused] = {
    "created_before_queue": _UNCLEAR,
    "created_after_queue": _UNCLEAR,
    "created_or_started_after_completed_jobs": _UNCLEAR,
}
LIST_TOLERATES: Mapping[str, str] = {"is_not_schedule": "no job comes from a schedule yet"}
MOST_SKIPPED = 1_000_000
"""How many jobs a page may lie behind: they are walked over. A cursor reaches any depth for the price of one page."""

_NULL = msgspec.Raw(b"null")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INDEX = re.compile(r"[0-9]{1,9}", re.ASCII)
KEY_LASTS = timedelta(hours=24)
"""How long a request's own key is remembered."""
_SPECIAL = re.compile(r"[\\%_]")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

_DEPLOYED = (JobKind.SCRIPT, JobKind.FLOW)
_COMMA_LISTS = (
    "created_by",
    "script_path_exact",
    "script_hash",
    "job_kinds",
    "tag",
    "worker",
    "trigger_kind",
    "concurrency_key",
    "label",
)
_UNFINISHED = ("running", "suspended", "scheduled_for_before_now")
_FINISHED = ("success", "status", "is_skipped", "label", "result", "completed_before", "completed_after")
_WAITING = ("scheduled", "blocked", "queued")


class AskedBefore(Exception):
    """This very request, by its own key, has led to a job already."""

    def __init__(self, job_id: UUID) -> None:
        super().__init__(f"the job {job_id} was asked for before")
        self.job_id = job_id


class NoResultInTime(HttpError):
    """The job did not end in time and was canceled."""

    status = 504


class LineTooLong(HttpError):
    """More jobs wait than the parameter queue_limit allows."""

    status = 429


class Restart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of `queue.restart`: the run that a flow takes up, and at which of its steps."""

    flow_job_id: UUID
    step_id: str
    at: int
    branch_or_iteration_n: int | None = None
    flow_version: int | None = None
    total: int | None = None
    keeps_approvals: bool = False
    """Whether what was approved before `at` need not be said again."""


class Runnable(msgspec.Struct, frozen=True, kw_only=True):
    """What can be run: a version of a script or a flow, or what came with the request."""

    kind: JobKind
    language: str = ""
    """Empty where other jobs do the work."""
    path: str | None = None
    hash: str | None = None
    code: str | None = None
    entrypoint: str | None = None
    tag: str | None = None
    envs: Sequence[str] = ()
    timeout_s: int | None = None
    concurrent_limit: int | None = None
    concurrency_key: str | None = None
    priority: int | None = None
    visible_to_runner_only: bool = False
    cache_ttl_s: int | None = None
    erase_after_s: int | None = None
    has_preprocessor: bool = False
    restart: Restart | None = None


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of `queue.job_request`, to be sent as JSON."""

    id: UUID
    workspace_id: str
    kind: JobKind
    language: str
    tag: str
    created_by: str
    permissioned_as: str
    email: str
    permissions: dict[str, Any]
    chosen_id: bool = False
    path: str | None = None
    hash: str | None = None
    code: str | None = None
    entrypoint: str | None = None
    priority: int | None = None
    envs: Sequence[str] = ()
    timeout_s: int | None = None
    limit_key: str | None = None
    limit_ceiling: int | None = None
    due_at: datetime | None = None
    due_in_ms: int | None = None
    parent_job: UUID | None = None
    trigger_kind: str | None = None
    visible_to_owner: bool = True
    reply_to: str | None = None
    traceparent: str | None = None
    request_key: str | None = None
    request_digest: str | None = None
    key_lasts_s: int | None = None
    cache_key: str | None = None
    cache_ttl_s: int | None = None
    erase_after_s: int | None = None
    restart: Restart | None = None


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a list, newest first: right behind this job."""

    born: datetime
    job_id: UUID


THE_NEWEST = Cursor(born=datetime.max.replace(tzinfo=UTC), job_id=UUID(int=2**128 - 1))
"""The place before all jobs."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is to hold: `finished` is None where both kinds are, and `nothing` where the filters exclude all."""

    finished: bool | None = None
    states: Sequence[str] | None = None
    outcomes: Sequence[str] | None = None
    nothing: bool = False
    after: Cursor = THE_NEWEST


def preview(body: Preview) -> Runnable:
    """Return what a preview runs; raises BadRequest or Unprocessable, naming the field."""
    if body.language not in list(Language):
        raise Unprocessable(
            f"The language {body.language!r} is not run by this version, which runs {', '.join(Language)}."
        )
    kind = _PREVIEWED.get(body.kind or "code")
    if kind is None:
        raise Unprocessable(f"The kind {body.kind!r} is not supported: {', '.join(_PREVIEWED)} are.")
    if kind in CODELESS and body.content:
        raise BadRequest(f"The field content must be empty: the kind {kind} runs no code.")
    path = body.path or None
    if path is not None and (wrong := paths.why_not(path)) is not None:
        raise BadRequest(f"The path {wrong}.")
    return Runnable(kind=kind, language=body.language, path=path, code=body.content, tag=body.tag)


def dependencies(body: RawDependencies) -> Runnable:
    """Return what finds the lock of code; raises BadRequest or Unprocessable, naming the field."""
    (script,) = body.raw_scripts
    if script.language not in list(Language):
        raise Unprocessable(
            f"The language {script.language!r} is not run by this version, which runs {', '.join(Language)}."
        )
    path = script.script_path or script.path or None
    if path is not None and path != body.entrypoint:
        raise BadRequest("The entrypoint must be the path of the one script.")
    if path is not None and (wrong := paths.why_not(path)) is not None:
        raise BadRequest(f"The path {wrong}.")
    return Runnable(
        kind=JobKind.DEPENDENCIES, language=script.language, path=path, code=script.raw_code, tag=DEPENDENCY_TAG
    )


def flow_preview(body: FlowPreview, flow: Flow) -> Runnable:
    """Return what a preview of a flow runs; raises BadRequest, naming the field."""
    path = body.path or None
    if path is not None and (wrong := paths.why_not(path)) is not None:
        raise BadRequest(f"The path {wrong}.")
    is_limited = bool(flow.concurrency_key) or path is not None
    return Runnable(
        kind=JobKind.FLOW_PREVIEW,
        path=path,
        code=bytes(body.value).decode(),
        tag=body.tag or FLOW_TAG,
        # Without a path and a key there is nothing to count by.
        concurrent_limit=flow.concurrent_limit if is_limited else None,
        concurrency_key=flow.concurrency_key,
        priority=flow.priority,
        erase_after_s=flow.delete_after_secs,
    )


def flow_dependencies(body: FlowDependencies) -> Runnable:
    """Return what finds the locks of the code in a flow; raises BadRequest, naming the field."""
    if (wrong := paths.why_not(body.path)) is not None:
        raise BadRequest(f"The path {wrong}.")
    return Runnable(
        kind=JobKind.FLOW_DEPENDENCIES, path=body.path, code=bytes(body.flow_value).decode(), tag=DEPENDENCY_TAG
    )


def request(
    runnable: Runnable,
    query: RequestQuery,
    args: str,
    viewer: Viewer,
    workspace: str,
    job_id: UUID,
    *,
    reply_to: str | None = None,
    traceparent: str | None = None,
    any_tag: bool = False,
) -> JobRequest:
    """Return the job to ask for; raises BadRequest, naming the parameter, and Forbidden for a tag."""
    limited = runnable.concurrent_limit
    due_at, due_in_ms = _due(query) if isinstance(query, RunQuery | RestartQuery) else (None, None)
    cache_ttl_s = _cache_ttl_s(runnable, query)
    tag = _tag(query.tag or runnable.tag or runnable.language, workspace, args)
    if tag == FLOW_TAG and runnable.kind not in FLOWS:
        raise BadRequest(f"The tag {FLOW_TAG} is only for flows.")
    if not any_tag:
        refuse_tag(viewer, tag)
    return JobRequest(
        id=job_id,
        chosen_id=query.job_id is not None,
        workspace_id=workspace,
        kind=runnable.kind,
        path=runnable.path,
        hash=runnable.hash,
        language=runnable.language,
        code=runnable.code,
        entrypoint=runnable.entrypoint,
        tag=tag,
        priority=runnable.priority,
        envs=list(runnable.envs),
        timeout_s=query.timeout or runnable.timeout_s,
        limit_key=_limit_key(runnable, workspace, args) if limited else None,
        limit_ceiling=limited,
        due_at=due_at,
        due_in_ms=due_in_ms,
        cache_key=cache_key(workspace, _cached_as(runnable), args) if cache_ttl_s else None,
        cache_ttl_s=cache_ttl_s or None,
        erase_after_s=runnable.erase_after_s,
        restart=runnable.restart,
        parent_job=query.parent_job,
        trigger_kind="webhook" if runnable.kind in _DEPLOYED and viewer.job_id is None else None,
        visible_to_owner=not (query.invisible_to_owner or runnable.visible_to_runner_only),
        created_by=viewer.username,
        permissioned_as=viewer.permissioned_as,
        email=viewer.email,
        permissions=viewer.permissions(),
        reply_to=reply_to,
        traceparent=traceparent,
    )


def _limit_key(runnable: Runnable, workspace: str, args: str) -> str:
    of = "flow" if runnable.kind in FLOWS else "script"
    return tags.limit_key(runnable.concurrency_key, workspace, runnable.path, args, of=of)


def _cached_as(runnable: Runnable) -> str:
    """Return what tells results of the same arguments apart; the preprocessor makes others of them."""
    said = f"{runnable.kind} {runnable.path} {runnable.hash}"
    return said if runnable.entrypoint is None else f"{said} {runnable.entrypoint}"


def _cache_ttl_s(runnable: Runnable, query: RequestQuery) -> int | None:
    if runnable.hash is None or runnable.kind not in _DEPLOYED:
        return None
    asked = query.cache_ttl if isinstance(query, PayloadQuery | WaitQuery) else None
    return runnable.cache_ttl_s if asked is None else asked


def refuse_tag(viewer: Viewer, tag: str) -> None:
    """Raise Forbidden for a tag of which there are no jobs for the viewer's token."""
    if viewer.only_tags is not None and tag not in viewer.only_tags:
        raise Forbidden(f"This token is only for jobs of the tags {', '.join(viewer.only_tags)}, not {tag}.")


def with_key(job: JobRequest, key: str, *asked: bytes) -> JobRequest:
    """Return the request under its caller's own key, with the digest of all that was asked; raises BadRequest."""
    if _KEY.fullmatch(key) is None:
        raise BadRequest("The header Idempotency-Key must be 1 to 255 printable ASCII characters.")
    digest = hashlib.sha256()
    for each in asked:
        digest.update(len(each).to_bytes(8) + each)
    return msgspec.structs.replace(
        job, request_key=key, request_digest=digest.hexdigest(), key_lasts_s=int(KEY_LASTS.total_seconds())
    )


def listing(query: ListQuery, *, finished: bool | None = None) -> Listing:
    """Return what the filters ask for; `finished` is what the route itself restricts them to."""
    wants_unfinished = any(getattr(query, name) is not None for name in _UNFINISHED)
    wants_finished = any(getattr(query, name) is not None for name in _FINISHED)
    if wants_unfinished:
        if wants_finished or finished is True:
            return Listing(nothing=True)
        finished = False
    if wants_finished:
        if finished is False:
            return Listing(nothing=True)
        finished = True
    states, outcomes = _states(query), _outcomes(query)
    # There are no schedules and triggers yet, so no job comes from one; and none can be marked as resolved.
    from_nowhere = any(_only_some(getattr(query, name)) for name in ("schedule_path", "trigger_path"))
    nothing = bool(query.resolved) or from_nowhere or states == [] or outcomes == []
    after = THE_NEWEST if query.cursor is None else cursor(query.cursor)
    return Listing(finished=finished, states=states, outcomes=outcomes, nothing=nothing, after=after)


def refuse_order(query: ListQuery) -> None:
    """Raise Unprocessable or BadRequest for a list that begins where none can."""
    if not query.order_desc:
        raise Unprocessable("The parameter order_desc is not supported: the newest come first, always.")
    if query.cursor is not None and query.offset > 0:
        raise BadRequest("The parameters cursor and page exclude each other.")
    if query.offset > MOST_SKIPPED:
        raise BadRequest(
            f"The parameter page lies behind {query.offset} jobs, more than {MOST_SKIPPED}: follow the Link header."
        )


def cursor(text: str) -> Cursor:
    """Return the place that a cursor of ours names; raises BadRequest."""
    micros, _, job_id = text.partition(".")
    try:
        return Cursor(born=_EPOCH + timedelta(microseconds=int(micros)), job_id=UUID(job_id))
    except (ValueError, OverflowError):
        raise BadRequest("The parameter cursor is none that a Link header has named.") from None


def spell(place: Cursor) -> str:
    """Return a place as the text of a cursor."""
    return f"{(place.born - _EPOCH) // timedelta(microseconds=1)}.{place.job_id}"


def in_utc(moment: datetime | None, name: str) -> datetime | None:
    """Return a time as UTC; raises BadRequest where that lies outside of the calendar."""
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise BadRequest(f"The parameter {name} lies outside of the calendar.") from None


def one_of(text: str | None, name: str) -> Sequence[str] | None:
    """Return the values of a comma list; one that begins with `!` is negated as a whole.

    Raises Unprocessable when only a later value is negated.
    """
    values = [each.strip() for each in (text or "").split(",") if each.strip()]
    if not (text or "").lstrip().startswith("!") and any(each.startswith("!") for each in values):
        raise Unprocessable(f"The parameter {name} is negated as a whole, by a ! at its beginning, or not at all.")
    return [each.removeprefix("!").strip() for each in values if each != "!"] or None


def patterns(values: Sequence[str] | None, *, wildcards: bool) -> Sequence[str] | None:
    """Return values as patterns for LIKE; a `*` stands for any text where wildcards are allowed, else for itself."""
    if values is None:
        return None
    literal = [_SPECIAL.sub(r"\\\g<0>", each) for each in values]
    return [each.replace("*", "%") for each in literal] if wildcards else literal


def negated(query: ListQuery) -> Sequence[str]:
    """Return the names of the comma lists of which no value may fit."""
    return [name for name in _COMMA_LISTS if (getattr(query, name) or "").lstrip().startswith("!")]


def within(text: str | None, name: str) -> str | None:
    """Return a JSON text that is to be found within another, in a form that can be asked for; raises BadRequest."""
    if text is None:
        return None
    try:
        return msgspec.json.encode(msgspec.json.decode(text)).decode()
    except (msgspec.DecodeError, RecursionError, ValueError):
        raise BadRequest(f"The parameter {name} is not valid JSON.") from None


def update(
    query: UpdateQuery,
    state: str,
    outcome: str | None,
    tail: str,
    tail_from: int,
    units: int,
    memory_peak_kb: int | None,
    *,
    stream: str = "",
    stream_from: int = 0,
    stream_units: int = 0,
    parked: bool = False,
    flow_status: FlowStatus | None = None,
    known_status: FlowStatus | None = None,
    workflow_steps: dict[str, WorkflowStatus] | None = None,
) -> tuple[JobUpdate, bool]:
    """Return what a follower is told, and whether any of it is new to them.

    `tail` is the log from the unit `tail_from` on, which lies at or before the follower's own offset; so does `stream`.
    Of a flow, `known_status` is what they were told before.
    """
    completed = outcome is not None
    running = runs(state, parked=parked)
    new_logs = "" if query.without_logs else beyond(tail, query.log_offset - tail_from)
    new_stream = beyond(stream, query.stream_offset - stream_from)
    said = JobUpdate(
        running=running,
        completed=completed,
        new_logs=new_logs or msgspec.UNSET,
        log_offset=msgspec.UNSET if query.without_logs else units,
        new_result_stream=new_stream or msgspec.UNSET,
        stream_offset=stream_units or msgspec.UNSET,
        mem_peak=msgspec.UNSET if memory_peak_kb is None else memory_peak_kb,
        flow_status=msgspec.UNSET if flow_status is None else flow_status,
        workflow_as_code_status=msgspec.UNSET if workflow_steps is None else workflow_steps,
    )
    news = running != query.running or bool(new_logs or new_stream) or flow_status != known_status
    return said, completed or news


def runs(state: str, *, parked: bool) -> bool:
    """Return whether a job is shown as running: a flow is, unless it waits for approvals."""
    return state == "running" or (state == "suspended" and not parked)


def part(result: str, path: str | None) -> msgspec.Raw:
    """Return the part of a JSON text under keys and numbers with dots between, as it was written, or null.

    Raises BadRequest where it is too deep to be looked into.
    """
    try:
        return _step(msgspec.Raw(result.encode()), path.split(".") if path else ())
    except RecursionError:
        raise BadRequest("The result is nested too deeply for a path into it.") from None


def _step(found: msgspec.Raw, steps: Sequence[str]) -> msgspec.Raw:
    for step in steps:
        if bytes(found).lstrip()[:1] == b"{":
            found = msgspec.json.decode(found, type=dict[str, msgspec.Raw]).get(step, _NULL)
        elif bytes(found).lstrip()[:1] == b"[" and _INDEX.fullmatch(step):
            items = msgspec.json.decode(found, type=list[msgspec.Raw])
            found = items[int(step)] if int(step) < len(items) else _NULL
        else:
            return _NULL
    return found


def beyond(text: str, units: int) -> str:
    """Return the text without its first UTF-16 code units; a character cut in half stays whole."""
    if units <= 0:
        return text
    if text.isascii():
        return text[units:]
    seen = 0
    for at, character in enumerate(text):
        if seen >= units:
            return text[at:]
        seen += 1 if ord(character) < 0x10000 else 2
        if seen > units:
            return text[at:]
    return ""


def _only_some(text: str | None) -> bool:
    return bool(text) and not (text or "").lstrip().startswith("!")


def _tag(template: str, workspace: str, args: str) -> str:
    tag = tags.fill(template, workspace, args)
    if (wrong := tags.why_not(tag)) is not None:
        raise BadRequest(f"The tag {wrong}.")
    return tag


def _due(query: RunQuery | RestartQuery) -> tuple[datetime | None, int | None]:
    if query.scheduled_for is not None and query.scheduled_in_secs is not None:
        raise BadRequest("The parameters scheduled_for and scheduled_in_secs exclude each other.")
    due_in_ms = None if query.scheduled_in_secs is None else query.scheduled_in_secs * 1000
    return in_utc(query.scheduled_for, "scheduled_for"), due_in_ms


def _states(query: ListQuery) -> Sequence[str] | None:
    wanted: set[str] | None = None
    for given, states in ((query.running, ("running",)), (query.suspended, ("suspended",))):
        if given is not None:
            fitting = set(states) if given else {*_WAITING, "running", "suspended"} - set(states)
            wanted = fitting if wanted is None else wanted & fitting
    return None if wanted is None else sorted(wanted)


def _outcomes(query: ListQuery) -> Sequence[str] | None:
    wanted: set[str] | None = None
    asked: list[set[str]] = []
    if query.success is not None:
        # A skipped job has not failed, as the field `success` of a job says too.
        well = {Outcome.SUCCESS.value, Outcome.SKIPPED.value}
        asked.append(well if query.success else {each.value for each in Outcome} - well)
    if query.is_skipped is not None:
        skipped = {Outcome.SKIPPED.value}
        asked.append(skipped if query.is_skipped else {each.value for each in Outcome} - skipped)
    if (statuses := one_of(query.status, "status")) is not None:
        if unknown := set(statuses) - {each.value for each in Outcome}:
            raise BadRequest(f"The parameter status knows {', '.join(Outcome)}, not {', '.join(sorted(unknown))}.")
        none_of = (query.status or "").lstrip().startswith("!")
        asked.append({each.value for each in Outcome} - set(statuses) if none_of else set(statuses))
    for fitting in asked:
        wanted = fitting if wanted is None else wanted & fitting
    return None if wanted is None else sorted(wanted)
