"""What a round of a workflow asks for, as the queue is told it.

    outcome, for which nobody vouches ─▶ read() ─▶ what it names is looked up ─▶ request() ─▶ queue.suspend_workflow

A task without a path is the workflow's own code again; one with a path is what is deployed there at this moment, as far
as the job's identity may read it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from tidemill.shared import tags
from tidemill.shared.ids import new_job_id
from tidemill.shared.script import FLOW_TAG, JobKind
from tidemill.worker.store.queue import Claim

_MOST_TASKS = 10_000
_PATIENCE_S = 1800
_TAG_FILTER = "if_jobs:filter_tags"

Key = Annotated[str, Meta(min_length=1, max_length=255)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Unfulfillable(Exception):
    """The round asks for what there is not; the text says for what."""


class Task(msgspec.Struct, frozen=True):
    """A job of its own that the workflow waits for."""

    name: str
    script: str
    args: msgspec.Raw
    key: Key
    dispatch_type: Literal["inline", "script", "flow"] = "inline"
    timeout: Count | None = None
    tag: str | None = None
    cache_ttl: int | None = None
    priority: Annotated[int, Meta(ge=-32768, le=32767)] | None = None
    concurrent_limit: Count | None = None
    concurrency_key: str | None = None
    concurrency_time_window_s: int | None = None


class Dispatch(msgspec.Struct, frozen=True, tag="dispatch", tag_field="type"):
    """Tasks that are all to end before the next round."""

    steps: Annotated[list[Task], Meta(min_length=1, max_length=_MOST_TASKS)]


class Step(msgspec.Struct, frozen=True):
    """What a step inside a round has come to; one that failed says so in the SDK's own way."""

    key: Key
    result: msgspec.Raw
    started_at: datetime | None = None
    duration_ms: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class Inline(Step, frozen=True, tag="inline_checkpoint", tag_field="type"):
    """A step that ran inside the round and could not be kept while it went on."""


class Sleep(msgspec.Struct, frozen=True, tag="sleep", tag_field="type"):
    """Nothing, for a while."""

    key: Key
    seconds: Annotated[int, Meta(ge=1, le=2**32 - 1)]


class Approval(msgspec.Struct, frozen=True, tag="approval", tag_field="type"):
    """Somebody's yes or no."""

    key: Key
    timeout: Count | None = None
    form: msgspec.Raw = msgspec.Raw(b"null")
    description: msgspec.Raw = msgspec.Raw(b"null")
    self_approval_disabled: bool = False


Outcome = Dispatch | Inline | Sleep | Approval
_outcomes: msgspec.json.Decoder[Outcome] = msgspec.json.Decoder(Outcome)


class Runnable(msgspec.Struct, frozen=True, kw_only=True):
    """What lies at the path that a task names."""

    hash: str
    path: str
    language: str = ""
    tag: str | None = None
    envs: Sequence[str] = ()
    timeout_s: int | None = None
    concurrent_limit: int | None = None
    concurrency_key: str | None = None
    priority: int | None = None


class TaskRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of `queue.task_request`, to be sent as JSON."""

    id: UUID
    key: str
    name: str
    args: msgspec.Raw
    kind: JobKind | None = None
    path: str | None = None
    hash: str | None = None
    language: str | None = None
    tag: str | None = None
    priority: int | None = None
    envs: Sequence[str] | None = None
    timeout_s: int | None = None
    limit_key: str | None = None
    limit_ceiling: int | None = None


def read(outcome: bytes) -> Outcome:
    """Return what a round has come to; raises Unfulfillable where that makes no sense or is not supported."""
    try:
        return _outcomes.decode(outcome)
    except msgspec.ValidationError as wrong:
        raise Unfulfillable(f"The workflow asks for what this version does not understand: {wrong}") from wrong


def named(outcome: Outcome) -> Sequence[Task]:
    """Return the tasks that name something deployed."""
    tasks = outcome.steps if isinstance(outcome, Dispatch) else []
    return [task for task in tasks if task.dispatch_type != "inline"]


def request(outcome: Outcome, claim: Claim, found: Mapping[tuple[str, str], Runnable | None]) -> bytes:
    """Return what the queue is told, each task with what was found under its type and path; raises Unfulfillable."""
    match outcome:
        case Inline():
            return msgspec.json.encode({"step": outcome})
        case Sleep():
            return msgspec.json.encode({"sleep": outcome})
        case Approval():
            conditions = {
                "self_approval_disabled": outcome.self_approval_disabled,
                "resume_form": outcome.form,
                "description": outcome.description,
            }
            timeout = outcome.timeout or _PATIENCE_S
            return msgspec.json.encode({"approval": {"key": outcome.key, "timeout": timeout, "conditions": conditions}})
        case Dispatch():
            return msgspec.json.encode({"tasks": [_task(task, claim, found) for task in outcome.steps]})


def _task(task: Task, claim: Claim, found: Mapping[tuple[str, str], Runnable | None]) -> TaskRequest:
    for option in ("cache_ttl", "concurrency_time_window_s"):
        if getattr(task, option) is not None:
            raise Unfulfillable(f"The option {option} of the task {task.key!r} is not supported by this version.")
    if task.concurrency_key is not None and task.concurrent_limit is None:
        raise Unfulfillable(f"The task {task.key!r} has a concurrency_key, but no concurrency_limit.")
    args = bytes(task.args).decode()
    if task.dispatch_type == "inline":
        limit, template = task.concurrent_limit, task.concurrency_key
        default = f"{claim.workspace_id}/task/{claim.path or claim.id}/{task.name}"
        return TaskRequest(
            id=new_job_id(),
            key=task.key,
            name=task.name,
            args=task.args,
            tag=_tag(task.tag, task, claim, args),
            priority=task.priority,
            timeout_s=task.timeout,
            limit_key=tags.limit_key(template or default, claim.workspace_id, claim.path, args) if limit else None,
            limit_ceiling=limit,
        )
    runnable = found[task.dispatch_type, task.script]
    if runnable is None:
        raise Unfulfillable(f"There is no {task.dispatch_type} at {task.script} that this job may read.")
    limit = task.concurrent_limit or runnable.concurrent_limit
    template = task.concurrency_key or runnable.concurrency_key or f"$workspace/{task.dispatch_type}/{runnable.path}"
    return TaskRequest(
        id=new_job_id(),
        key=task.key,
        name=task.name,
        args=task.args,
        kind=JobKind.SCRIPT if task.dispatch_type == "script" else JobKind.FLOW,
        path=runnable.path,
        hash=runnable.hash,
        language=runnable.language,
        tag=_tag(task.tag or runnable.tag or runnable.language or FLOW_TAG, task, claim, args),
        priority=runnable.priority if task.priority is None else task.priority,
        envs=runnable.envs,
        timeout_s=task.timeout or runnable.timeout_s,
        limit_key=tags.limit_key(template, claim.workspace_id, runnable.path, args) if limit else None,
        limit_ceiling=limit,
    )


def _tag(template: str | None, task: Task, claim: Claim, args: str) -> str | None:
    if template is None:
        return None
    tag = tags.fill(template, claim.workspace_id, args)
    if (wrong := tags.why_not(tag)) is not None:
        raise Unfulfillable(f"The tag of the task {task.key!r} {wrong}.")
    if tag == FLOW_TAG and task.dispatch_type != "flow":
        raise Unfulfillable(f"The tag {tag!r} of the task {task.key!r} is only for flows.")
    scopes: Any = msgspec.json.decode(claim.permissions).get("scopes") or ()
    if tag != claim.tag and any(scope.startswith(_TAG_FILTER) for scope in scopes):
        raise Unfulfillable(f"The workflow was asked for with a token that is not for jobs of the tag {tag!r}.")
    return tag
