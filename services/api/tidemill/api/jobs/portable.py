"""Jobs on their way from one installation to another, and what of them may come in. Pure.

What comes in is as foreign as any request: it names no place of ours, no identity that is not a member's here, no id
that is taken, and nothing that this version could not have made itself. A field that is not listed is refused, and so
is one that clients know and we have nothing for, unless it is null.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.errors import Unprocessable
from tidemill.api.http.paging import Paged
from tidemill.api.jobs.schemas import MOST_SELECTED, Raw, RunSeconds
from tidemill.api.scripts import paths
from tidemill.shared import tags
from tidemill.shared.script import CODELESS, FLOW_TAG, FLOWS, JobKind, Language, Outcome

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
_Words = Annotated[str, msgspec.Meta(max_length=10_000)]
_Trigger = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,30}$")]
_Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,64}$")]
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_WITHOUT_CODE = FLOWS | {JobKind.FLOW_DEPENDENCIES}
_THE_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_CLOCKS_DIFFER = timedelta(minutes=5)


class Portable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is the same of a job wherever it is."""

    id: UUID
    created_by: _Name
    created_at: _Moment
    permissioned_as: _Name
    email: _Name
    job_kind: JobKind
    language: Language | None = None
    """None for what runs no code by itself."""
    visible_to_owner: bool
    permissioned_as_email: _Name | None = None
    parent_job: UUID | None = None
    script_path: str | None = None
    script_hash: _Version | None = None
    raw_code: str | None = None
    args: Raw | UnsetType = UNSET
    tag: str | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] | None = None
    timeout: RunSeconds | None = None
    trigger_kind: _Trigger | None = None
    is_flow_step: Literal[False] | None = None
    same_worker: Literal[False] | None = None
    preprocessed: Literal[False] | None = None
    """False for a flow that begins with its preprocessor."""
    trigger: None = None
    raw_lock: None = None
    raw_flow: None = None
    flow_status: None = None
    workflow_as_code_status: None = None
    flow_step_id: None = None
    flow_innermost_root_job: None = None
    concurrent_limit: None = None
    concurrency_time_window_s: None = None
    cache_ttl: None = None
    self_wait_time_ms: None = None
    aggregate_wait_time_ms: None = None


class PortableCompleted(Portable, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job that has ended."""

    started_at: _Moment | None = None
    completed_at: _Moment | None = None
    duration_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    status: Outcome | None = None
    is_skipped: bool | None = None
    result: Raw | UnsetType = UNSET
    logs: str | None = None
    canceled_by: _Name | None = None
    canceled_reason: _Words | None = None
    mem_peak: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    labels: Annotated[list[_Name], msgspec.Meta(max_length=100)] | None = None
    worker: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.:@-]{1,255}$")] | None = None


class PortableQueued(Portable, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A job that has not ended: it begins anew."""

    scheduled_for: _Moment | None = None
    started_at: None = None
    logs: None = None
    labels: None = None
    mem_peak: None = None
    canceled_by: None = None
    canceled_reason: None = None
    suspend: None = None
    suspend_until: None = None


Completed = Annotated[list[PortableCompleted], msgspec.Meta(max_length=MOST_SELECTED)]
Queued = Annotated[list[PortableQueued], msgspec.Meta(max_length=MOST_SELECTED)]


class ExportQuery(Paged, frozen=True, kw_only=True):
    """Which page of all jobs, newest first."""

    cursor: (
        Annotated[
            str, msgspec.Meta(max_length=80, description="where the next page begins, from the answer's Link header")
        ]
        | None
    ) = None


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `queue.finished_import`, to be sent as JSON."""

    id: UUID
    kind: str
    path: str | None
    hash: str | None
    language: str
    code: str | None
    args: msgspec.Raw
    tag: str
    priority: int | None
    timeout_s: int | None
    parent_job: UUID | None
    root_of: UUID | None
    trigger_kind: str | None
    visible_to_owner: bool
    created_at: datetime
    created_by: str
    permissioned_as: str
    email: str
    outcome: Outcome
    result: msgspec.Raw
    started_at: datetime | None
    finished_at: datetime
    worker: str | None
    canceled_by: str | None
    canceled_reason: str | None
    memory_peak_kb: int | None
    labels: Sequence[str] | None
    log: str | None
    log_units: int


def refuse_bad(jobs: Sequence[Portable], now: datetime) -> None:
    """Raise Unprocessable naming the field of a job that could not have been made here."""
    seen: set[UUID] = set()
    for at, job in enumerate(jobs):
        if job.id in seen:
            raise _wrong(at, "id", "is there twice")
        seen.add(job.id)
        if job.script_path is not None and (wrong := paths.why_not(job.script_path)) is not None:
            raise _wrong(at, "script_path", wrong)
        if job.tag is not None and (wrong := tags.why_not(job.tag)) is not None:
            raise _wrong(at, "tag", wrong)
        _refuse_mixture(at, job)
        if job.args is not UNSET and not bytes(job.args).lstrip().startswith(b"{"):
            raise _wrong(at, "args", "must be an object")
        for name in ("created_at", "started_at", "completed_at"):
            moment = getattr(job, name, None)
            if moment is not None and not _THE_FIRST <= moment <= now + _CLOCKS_DIFFER:
                raise _wrong(at, name, "lies in the future or before 1970")


def _refuse_mixture(at: int, job: Portable) -> None:
    """Raise Unprocessable for fields that no job of this kind has, or lacks."""
    if job.job_kind not in CODELESS and (job.language is None) != (job.job_kind in _WITHOUT_CODE):
        raise _wrong(at, "language", "must be there for what runs code, and not for flows")
    if job.job_kind == JobKind.SCRIPT and (job.script_path is None or job.raw_code is not None):
        raise _wrong(at, "script_path", "must be there, and raw_code not, for a job of a script")
    if job.job_kind == JobKind.PREVIEW and (job.raw_code is None or job.script_hash is not None):
        raise _wrong(at, "raw_code", "must be there, and script_hash not, for a preview")


def top_of(jobs: Sequence[Portable]) -> Mapping[UUID, UUID | None]:
    """Return for each job the highest one above it that is known: among these jobs, or the first outside of them.

    None for a job that nothing is above; raises Unprocessable for jobs that are above each other.
    """
    parents = {job.id: job.parent_job for job in jobs}
    tops: dict[UUID, UUID | None] = {}
    for at, job in enumerate(jobs):
        above, steps = job.parent_job, 0
        while above is not None and parents.get(above) is not None:
            above, steps = parents[above], steps + 1
            if steps > len(jobs):
                raise _wrong(at, "parent_job", "leads back to the job itself")
        tops[job.id] = above
    return tops


def parents_first(jobs: Sequence[PortableQueued]) -> Sequence[tuple[int, PortableQueued]]:
    """Return the jobs with their places, each behind the one above it; raises Unprocessable as `top_of` does."""
    top_of(jobs)
    places = {job.id: at for at, job in enumerate(jobs)}
    ordered: dict[UUID, int] = {}
    for at in range(len(jobs)):
        line = [at]
        while (above := jobs[line[-1]].parent_job) in places and above not in ordered:
            line.append(places[above])
        for each in reversed(line):
            ordered.setdefault(jobs[each].id, each)
    return [(at, jobs[at]) for at in ordered.values()]


def ended(
    at: int, job: PortableCompleted, top: UUID | None, members: Mapping[str, str], importer: str, now: datetime
) -> Ended:
    """Return a job that has ended as the importer's workspace keeps it; raises Unprocessable.

    Who is no member here is replaced by the importer; `members` are emails by username, the importer's among them.
    """
    started_at, finished_at = _times(at, job, now)
    runs_as = job.permissioned_as.removeprefix("u/")
    if runs_as not in members:
        runs_as = importer
    return Ended(
        id=job.id,
        kind=job.job_kind,
        path=job.script_path,
        hash=job.script_hash,
        language=job.language or "",
        code=job.raw_code,
        args=msgspec.Raw(b"{}") if job.args is UNSET else job.args,
        tag=job.tag or job.language or FLOW_TAG,
        priority=job.priority,
        timeout_s=job.timeout,
        parent_job=job.parent_job,
        root_of=top,
        trigger_kind=job.trigger_kind,
        visible_to_owner=job.visible_to_owner,
        created_at=job.created_at,
        created_by=job.created_by if job.created_by in members else importer,
        permissioned_as=f"u/{runs_as}",
        email=members[runs_as],
        outcome=_outcome(at, job),
        result=msgspec.Raw(b"null") if job.result is UNSET else job.result,
        started_at=started_at,
        finished_at=finished_at,
        worker=job.worker,
        canceled_by=job.canceled_by,
        canceled_reason=job.canceled_reason,
        memory_peak_kb=job.mem_peak,
        labels=job.labels,
        log=job.logs,
        log_units=len((job.logs or "").encode("utf-16-le")) // 2,
    )


def names(jobs: Sequence[Portable]) -> set[str]:
    """Return who made these jobs and as whom they ran."""
    return {job.created_by for job in jobs} | {job.permissioned_as.removeprefix("u/") for job in jobs}


def _times(at: int, job: PortableCompleted, now: datetime) -> tuple[datetime | None, datetime]:
    finished_at = job.completed_at
    if finished_at is None:
        if job.started_at is None or job.duration_ms is None:
            raise _wrong(at, "completed_at", "is missing, and started_at with duration_ms as well")
        try:
            finished_at = job.started_at + timedelta(milliseconds=job.duration_ms)
        except OverflowError:
            raise _wrong(at, "duration_ms", "leads out of the calendar") from None
        if finished_at > now + _CLOCKS_DIFFER:
            raise _wrong(at, "duration_ms", "leads into the future")
    if finished_at < (job.started_at or job.created_at):
        raise _wrong(at, "completed_at", "lies before the job began")
    return job.started_at, finished_at


def _outcome(at: int, job: PortableCompleted) -> Outcome:
    if job.status is not None:
        if job.is_skipped is not None and job.is_skipped != (job.status is Outcome.SKIPPED):
            raise _wrong(at, "is_skipped", "contradicts the status")
        return job.status
    if job.canceled_by is not None:
        return Outcome.CANCELED
    if job.is_skipped:
        return Outcome.SKIPPED
    raise _wrong(at, "status", "is missing")


def _wrong(at: int, field: str, why: str) -> Unprocessable:
    return Unprocessable(f"The field [{at}].{field} is not allowed: it {why}.")
