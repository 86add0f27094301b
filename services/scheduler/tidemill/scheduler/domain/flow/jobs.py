"""The jobs of steps: what a plain module becomes out of its target and its evaluated inputs."""

import hashlib
from collections.abc import Generator, Mapping
from typing import Any

import msgspec

from tidemill.scheduler.domain.flow.asks import (
    Argument,
    Ask,
    FindFlow,
    FindScript,
    Known,
    ResultOf,
    Target,
    Truth,
    Unanswered,
    Value,
)
from tidemill.scheduler.domain.flow.changes import Start
from tidemill.scheduler.domain.flow.progress import NULL, Ended, Progress, Walk
from tidemill.shared.flow import (
    ByAgent,
    Flow,
    Identity,
    JavaScript,
    Module,
    Plain,
    RawScript,
    Script,
    Static,
    SubFlow,
    Transform,
    Transforms,
)
from tidemill.shared.script import FLOW_TAG, JobKind, Outcome

EMPTY_LIST = msgspec.Raw(b"[]")

Asking = Generator[Ask, Any, Any]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """From where an expression looks: what it sees besides the flow's input and the steps before."""

    before: int
    names: Mapping[str, Known] = {}
    own: Mapping[str, msgspec.Raw] = {}

    def value(self, source: str) -> Value:
        """Return the question for an expression's value."""
        return Value(source=source, before=self.before, names=self.names, own=self.own)

    def argument(self, source: str) -> Argument:
        """Return the question for an argument of a job."""
        return Argument(source=source, before=self.before, names=self.names, own=self.own)

    def truth(self, source: str, **more: Known) -> Truth:
        """Return the question whether an expression is true."""
        return Truth(source=source, before=self.before, names={**self.names, **more}, own=self.own)


def named(step: str, key: str, asking: Asking) -> Asking:
    """Answer what `asking` asks for; what can't be answered names the step and the key."""
    try:
        return (yield from asking)
    except Unanswered as wrong:
        raise Unanswered(wrong.name, f"step {step}, {key}: {wrong}") from None


def ask(question: Ask) -> Asking:
    """Ask one question."""
    return (yield question)


def transformed(transform: Transform, seen: Seen) -> Asking:
    """Return the value of one transform as JSON."""
    match transform:
        case Static(value=value):
            return value
        case JavaScript(expr=source):
            return (yield seen.value(source))
        case ByAgent():
            raise Unanswered("InputTransformError", "only tools of an AI agent are filled in by it")


def inputs(step: str, transforms: Transforms, seen: Seen) -> Asking:
    """Return a step's arguments as one JSON object."""
    values: dict[str, msgspec.Raw] = {}
    for key, transform in transforms.items():
        if isinstance(transform, JavaScript):
            values[key] = yield from named(step, f"input {key}", ask(seen.argument(transform.expr)))
        else:
            values[key] = yield from named(step, f"input {key}", transformed(transform, seen))
    return msgspec.Raw(msgspec.json.encode(values))


def number(step: str, key: str, given: float | Transform | None, seen: Seen) -> Asking:
    """Return a number that may be a transform, or None where it is null."""
    if given is None or isinstance(given, int | float):
        return given
    raw = yield from named(step, key, transformed(given, seen))
    try:
        return msgspec.json.decode(raw, type=float | None)
    except msgspec.ValidationError:
        raise Unanswered("InputTransformError", f"step {step}, {key}: it must be a number") from None


def is_simple(module: Module) -> bool:
    """Return whether a body of only this module needs no flow of its own around it."""
    return isinstance(module.value, RawScript | Script | SubFlow) and not any(
        (
            module.skip_if,
            module.stop_after_if,
            module.suspend,
            module.sleep,
            module.retry,
            module.continue_on_error,
            module.mock is not None and module.mock.enabled,
        )
    )


def plain_job(walk: Walk, progress: Progress, module: Module, new: Start, seen: Seen) -> Asking:
    """Return `new` filled with what the module runs and its inputs, unless it takes those of another job."""
    value = module.value
    assert isinstance(value, Plain)
    timeout = yield from number(module.id, "timeout", module.timeout, seen)
    args = (
        NULL
        if new.args_of is not None or isinstance(value, Identity)
        else (yield from inputs(module.id, value.input_transforms, seen))
    )
    new = msgspec.structs.replace(
        new, args=msgspec.Raw(b"{}") if args == NULL else args, priority=module.priority or progress.priority or None
    )
    match value:
        case Identity():
            previous = yield seen.value("previous_result")
            return answered(new, previous)
        case RawScript():
            lock = value.lock or walk.locks.get(module.id)
            return msgspec.structs.replace(
                new,
                kind=JobKind.FLOW_SCRIPT,
                path=value.path or f"{progress.path or ''}/{module.id}".lstrip("/"),
                language=value.language,
                code=value.content,
                lock=lock,
                code_hash=_code_hash(value.content, lock),
                tag=_tag(walk.flow, progress, value.tag, value.language),
                timeout_s=_seconds(timeout),
                limit_key=_limit_key(value, progress, module) if value.concurrent_limit else None,
                limit_ceiling=value.concurrent_limit or None,
            )
        case Script():
            target: Target = yield from named(module.id, "script", ask(FindScript(value.path, value.hash)))
            return _of_target(
                msgspec.structs.replace(new, kind=JobKind.SCRIPT),
                target,
                _tag(walk.flow, progress, value.tag_override or target.tag, target.language),
                timeout,
                f"{progress.workspace_id}/script/{target.path}",
            )
        case SubFlow():
            target = yield from named(module.id, "flow", ask(FindFlow(value.path)))
            return _of_target(
                msgspec.structs.replace(new, kind=JobKind.FLOW),
                target,
                target.tag or FLOW_TAG,
                timeout,
                f"{progress.workspace_id}/flow/{target.path}",
            )


def answered(new: Start, result: msgspec.Raw) -> Start:
    """Return a job that ends at once, well, with this result."""
    return msgspec.structs.replace(
        new, kind=JobKind.IDENTITY, tag=JobKind.IDENTITY, answered=True, outcome=Outcome.SUCCESS, result=result
    )


def failed_at_once(new: Start, error: msgspec.Raw) -> Start:
    """Return a job that ends at once with this error, so that what went wrong is to be seen where it went wrong."""
    return msgspec.structs.replace(
        new, kind=JobKind.IDENTITY, tag=JobKind.IDENTITY, answered=True, outcome=Outcome.FAILURE, result=error
    )


def error(name: str, message: str, step: str | None = None, **more: msgspec.Raw) -> msgspec.Raw:
    """Return the result of what has failed, in the shape that clients know."""
    what: dict[str, object] = {"name": name, "message": message, **more}
    if step is not None:
        what["step_id"] = step
    return msgspec.Raw(msgspec.json.encode({"error": what}))


def with_step(result: msgspec.Raw, step: str) -> msgspec.Raw:
    """Return a failed job's result with the step that has failed, unless it names one already."""
    try:
        found = msgspec.json.decode(result, type=dict[str, msgspec.Raw])
        what = msgspec.json.decode(found["error"], type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, KeyError):
        return error("Error", "the step has failed", step, result=result)
    if "step_id" in what:
        return result
    what["step_id"] = msgspec.Raw(msgspec.json.encode(step))
    return msgspec.Raw(msgspec.json.encode({**found, "error": what}))


def result_of(ended: Ended) -> Known:
    """Return a job's result, or what stands for it."""
    return ended.result if ended.result != NULL else ResultOf(ended.job_id)


def _of_target(new: Start, target: Target, tag: str, timeout: float | None, limit_key: str) -> Start:
    return msgspec.structs.replace(
        new,
        path=target.path,
        hash=target.hash,
        language=target.language,
        tag=tag,
        envs=target.envs,
        timeout_s=_seconds(timeout) or target.timeout_s,
        priority=new.priority or target.priority,
        limit_key=(target.concurrency_key or limit_key) if target.concurrent_limit else None,
        limit_ceiling=target.concurrent_limit or None,
    )


def _tag(flow: Flow, progress: Progress, own: str | None, language: str) -> str:
    """A flow's own tag goes over those of its steps, unless it preserves theirs."""
    if progress.tag not in ("", FLOW_TAG) and not (flow.preserve_step_tags and own):
        return progress.tag
    return own or language


def _limit_key(value: RawScript, progress: Progress, module: Module) -> str:
    return (
        value.custom_concurrency_key
        or f"{progress.workspace_id}/flow/{progress.path or progress.scope_job}/{module.id}"
    )


def _code_hash(content: str, lock: str | None) -> str:
    digest = hashlib.sha256()
    for part in (content, lock or ""):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()


def _seconds(timeout: float | None) -> int | None:
    return None if timeout is None else max(1, round(timeout))
