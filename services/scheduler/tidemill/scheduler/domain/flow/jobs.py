"""The jobs of steps: what a plain module becomes out of its target and its evaluated inputs."""

import hashlib
from collections.abc import Generator, Mapping
from typing import Any
from uuid import UUID

import msgspec

from tidemill.scheduler.domain.flow.asks import (
    ArgsOf,
    Argument,
    Ask,
    Cached,
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
from tidemill.scheduler.domain.flow.progress import NULL, Ended, Progress, Step, Walk
from tidemill.shared import tags
from tidemill.shared.caching import cache_key
from tidemill.shared.flow import (
    PREPROCESSOR,
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
NO_ARGS = msgspec.Raw(b"{}")
DEEPEST = 20
"""How many flows a flow may run inside of."""

LONGEST_RUN_S = 7 * 24 * 3600
"""The longest that a step may ask to run; an expression may answer more."""

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


def kept(seen: Seen) -> msgspec.Raw:
    """Return the names that only this step sees, as they are kept with it for its iterations and further tries."""
    names = {name: value for name, value in seen.names.items() if isinstance(value, msgspec.Raw)}
    return msgspec.Raw(msgspec.json.encode(names)) if names else NULL


def seen_by(step: Step) -> Seen:
    """Return from where a step that has begun looks: as it did then."""
    names = msgspec.json.decode(step.names, type=dict[str, msgspec.Raw] | None) or {}
    return Seen(before=step.no, names=names)


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


class _Terms(msgspec.Struct, frozen=True, kw_only=True):
    """On what terms a job runs; `$workspace` and `$args[x]` in them are still to be filled in."""

    tag: str
    ceiling: int | None = None
    limit_key: str | None = None
    counted_as: tuple[str, str]
    """What a limit without a key of its own counts by: a kind and a path."""
    runnable: str
    """What answers the same again to the same arguments."""
    cache_ttl_s: int | None = None


def args_of(module: Module, job_id: UUID | None) -> Known:
    """Return what stands for the inputs of a step that has had a job."""
    return ArgsOf(job_id) if job_id is not None and isinstance(module.value, Plain) else NO_ARGS


def erased_after(module: Module) -> int | None:
    """Return how many seconds after the end what the step leaves behind is erased, None when it is kept."""
    return 0 if module.delete_after_secs is None and module.delete_after_use else module.delete_after_secs


def is_simple(module: Module) -> bool:
    """Return whether a body of only this module needs no flow of its own around it."""
    return isinstance(module.value, RawScript | Script | SubFlow) and not any(
        (
            module.skip_if,
            module.stop_after_if,
            module.stop_after_all_iters_if,
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
        else (yield from _arguments(module.id, value.input_transforms, seen))
    )
    erase_after_s = erased_after(module)
    new = msgspec.structs.replace(
        new,
        args=NO_ARGS if args == NULL else args,
        priority=module.priority or progress.priority or None,
        erase_after_s=new.erase_after_s if erase_after_s is None else erase_after_s,
        entrypoint=PREPROCESSOR if module.id == PREPROCESSOR else None,
    )
    match value:
        case Identity():
            previous = yield seen.value("previous_result")
            return answered(new, previous)
        case RawScript():
            lock = value.lock or walk.locks.get(module.id)
            new = msgspec.structs.replace(
                new,
                kind=JobKind.FLOW_SCRIPT,
                path=value.path or f"{progress.path or ''}/{module.id}".lstrip("/"),
                language=value.language,
                code=value.content,
                lock=lock,
                code_hash=_code_hash(value.content, lock),
                timeout_s=_seconds(timeout),
            )
            # What nobody has deployed is nobody else's: anybody could send the same.
            whose = "deployed" if progress.flow_version is not None else progress.permissioned_as
            terms = _Terms(
                tag=_tag(walk.flow, progress, value.tag, value.language),
                ceiling=value.concurrent_limit,
                limit_key=value.custom_concurrency_key,
                counted_as=("flow", f"{progress.path or progress.scope_job}/{module.id}"),
                runnable=f"{new.kind} {whose} {progress.path}/{module.id} {new.language} {new.code_hash}",
            )
        case Script():
            target: Target = yield from named(module.id, "script", ask(FindScript(value.path, value.hash)))
            new = _of_target(msgspec.structs.replace(new, kind=JobKind.SCRIPT), target, timeout)
            tag = _tag(walk.flow, progress, value.tag_override or target.tag, target.language)
            terms = _terms(new, target, tag, "script")
        case SubFlow():
            if progress.depth >= DEEPEST:
                raise Unanswered("TooDeep", f"step {module.id}: flows run in no more than {DEEPEST} others")
            target = yield from named(module.id, "flow", ask(FindFlow(value.path)))
            new = _of_target(msgspec.structs.replace(new, kind=JobKind.FLOW, same_worker=False), target, timeout)
            terms = _terms(new, target, target.tag or FLOW_TAG, "flow")
    if module.cache_ttl is not None:
        terms = msgspec.structs.replace(terms, cache_ttl_s=round(module.cache_ttl))
    return (yield from _on_terms(new, terms, progress, module, seen))


def _on_terms(new: Start, terms: _Terms, progress: Progress, module: Module, seen: Seen) -> Asking:
    """Return the job with its tag, its limit, and where its result is kept; with that result, when there is one."""
    workspace = progress.workspace_id
    args = ""
    if terms.cache_ttl_s or any("$" in (template or "") for template in (terms.tag, terms.limit_key)):
        known = new.args
        if new.args_of is not None:
            known = yield Value(source="params", before=seen.before, names={"params": ArgsOf(new.args_of)})
        args = bytes(known).decode()
    tag = tags.fill(terms.tag, workspace, args)
    if (wrong := tags.why_not(tag)) is not None:
        raise Unanswered("TagError", f"step {module.id}, tag: {tag[:100]!r} is none: it {wrong}")
    if tag == FLOW_TAG and new.kind is not JobKind.FLOW:
        # The scheduler would walk it as a flow, which it is not.
        raise Unanswered("TagError", f"step {module.id}, tag: {tag!r} is only for flows")
    if not progress.permissions.allow_tag(tag):
        why = f"the flow was asked for with a token that is not for jobs of the tag {tag!r}"
        raise Unanswered("TagError", f"step {module.id}, tag: {why}")
    new = msgspec.structs.replace(new, tag=tag)
    if terms.cache_ttl_s:
        new = msgspec.structs.replace(new, cache_key=cache_key(workspace, terms.runnable, args))
        # Not looked at before its time has come: a step that sleeps first is not answered at once.
        kept = (yield Cached(new.cache_key or "")) if new.due_in_ms is None else None
        if kept is not None:
            return msgspec.structs.replace(new, answered=True, outcome=Outcome.SUCCESS, result=kept)
        new = msgspec.structs.replace(new, cache_ttl_s=terms.cache_ttl_s)
    if not terms.ceiling:
        return new
    of, path = terms.counted_as
    return msgspec.structs.replace(
        new, limit_key=tags.limit_key(terms.limit_key, workspace, path, args, of=of), limit_ceiling=terms.ceiling
    )


def _arguments(step: str, transforms: Transforms, seen: Seen) -> Asking:
    """Return a step's arguments; a preprocessor that names none of its own gets what the flow was sent."""
    if step == PREPROCESSOR and not transforms:
        return (yield seen.value("flow_input"))
    return (yield from inputs(step, transforms, seen))


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


def _terms(new: Start, target: Target, tag: str, of: str) -> _Terms:
    """Return the terms of what is deployed, by the same keys as when it runs by itself."""
    return _Terms(
        tag=tag,
        ceiling=target.concurrent_limit,
        limit_key=target.concurrency_key,
        counted_as=(of, target.path),
        runnable=f"{new.kind} {target.path} {target.hash}",
        cache_ttl_s=target.cache_ttl_s,
    )


def _of_target(new: Start, target: Target, timeout: float | None) -> Start:
    return msgspec.structs.replace(
        new,
        path=target.path,
        hash=target.hash,
        language=target.language,
        envs=target.envs,
        timeout_s=_seconds(timeout) or target.timeout_s,
        priority=new.priority or target.priority,
        erase_after_s=target.erase_after_s if new.erase_after_s is None else new.erase_after_s,
    )


def _tag(flow: Flow, progress: Progress, own: str | None, language: str) -> str:
    """A flow's own tag goes over those of its steps, unless it preserves theirs."""
    if progress.tag not in ("", FLOW_TAG) and not (flow.preserve_step_tags and own):
        return progress.tag
    return own or language


def _code_hash(content: str, lock: str | None) -> str:
    digest = hashlib.sha256()
    for part in (content, lock or ""):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()


def _seconds(timeout: float | None) -> int | None:
    return None if timeout is None else round(min(max(timeout, 1), LONGEST_RUN_S))
