"""Whether a flow's value can be run at all: every complaint names the module and the field. Pure.

    bytes ──▶ read() ──▶ Checked: the flow, what its steps name, its expressions, the locks of its own code

What is named is looked up by `references.py`, expressions are read by `expressions.py`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tidemill.api.http.errors import BadRequest, Unprocessable
from tidemill.api.scripts import paths
from tidemill.shared import flow as flows
from tidemill.shared import requirements, tags
from tidemill.shared.flow import (
    FAILURE,
    PREPROCESSOR,
    RESERVED_IDS,
    Agent,
    BranchAll,
    BranchOne,
    ByAgent,
    Flow,
    ForLoop,
    JavaScript,
    Module,
    RawScript,
    Retry,
    Script,
    Static,
    SubFlow,
    Suspend,
    Transform,
    WhileLoop,
)
from tidemill.shared.requirements import NotUnderstood
from tidemill.shared.script import FLOW_TAG, Language

MOST_NESTED = 64
"""How deep modules may stand inside of others."""
DEEPEST = 500
"""How deep the JSON may be."""
LONGEST = 10 * 1024 * 1024
MOST_READ = 128 * 1024
"""How much code is looked into for what it wants installed; Python takes its time. The rest is left to the job."""
MOST_MODULES = 10_000
MOST_ATTEMPTS = 30_000
MOST_TIMES = 65_535
MOST_EVENTS = 1_000
LONGEST_WAIT_S = 365 * 24 * 3600
LONGEST_RUN_S = 7 * 24 * 3600
MOST_AT_ONCE = 100_000

_ID = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)
_UNSAFE_IDS = frozenset({"__proto__"})
_HASH = re.compile(r"[0-9a-f]{1,16}", re.ASCII)
_STEP = re.compile(r"\.([a-z_0-9]+)|\[(\d+|\.\.\.)\]")
_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<where>.*)`)?", re.DOTALL)
_RESULTS = re.compile(r"""(?<![\w$.'"])results\s*(?:\[|\??\.)""")
_DEBOUNCING = (
    "debounce_delay_s",
    "debounce_key",
    "debounce_args_to_accumulate",
    "max_total_debouncing_time",
    "max_total_debounces_amount",
)
_TOO_DEEP = f"The value is nested too deeply: more than {DEEPEST} lists and objects stand in others."
_NULL = msgspec.Raw(b"null")
_EMPTY = (b"null", b"{}")


class Expression(msgspec.Struct, frozen=True, kw_only=True):
    """An expression and where it stands; without a module: in the flow itself."""

    module: str | None
    field: str
    text: str


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A value that can be run as far as it alone tells; what is named stands with the module that names it first."""

    flow: Flow
    scripts: Mapping[str, str]
    """Paths of scripts."""
    versions: Mapping[str, str]
    """Hashes of versions of scripts."""
    flows: Mapping[str, str]
    """Paths of flows."""
    expressions: Sequence[Expression]
    locks: Mapping[str, str | None]
    """The lock of each module of its own code that was sent without one, None where it is still to be found."""


def read(value: bytes) -> Checked:
    """Return what a flow is made of; raises Unprocessable or BadRequest, naming the module and the field."""
    if len(value) > LONGEST:
        raise BadRequest("The value must not be longer than 10 MiB.")
    flow = _decoded(value)
    _check_flow(flow)
    everything = list(_modules(flow))
    if len(everything) > MOST_MODULES:
        raise Unprocessable(f"The flow has {len(everything)} modules, more than {MOST_MODULES}.")
    _check_ids(flow)
    _check_preprocessor(flow)
    expressions = list(_of_flow(flow))
    scripts: dict[str, str] = {}
    versions: dict[str, str] = {}
    subflows: dict[str, str] = {}
    locks: dict[str, str | None] = {}
    left = MOST_READ
    for module in everything:
        _check_module(module, same_worker=flow.same_worker or False)
        expressions += _expressions(module)
        match module.value:
            case Script(hash=None | "", path=path):
                scripts.setdefault(path, module.id)
            case Script(hash=str(version)):
                versions.setdefault(version, module.id)
            case SubFlow(path=path):
                subflows.setdefault(path, module.id)
            case RawScript(lock=None) as code:
                left -= len(code.content)
                locks[module.id] = None if left < 0 else _lock(module.id, code)
            case _:
                pass
    return Checked(flow=flow, scripts=scripts, versions=versions, flows=subflows, expressions=expressions, locks=locks)


def wrong_expression(expression: Expression, why: str) -> Unprocessable:
    """Return what is wrong with a flow because of an expression that can't be read."""
    return _wrong(expression.module, expression.field, f"is no JavaScript: {why}")


def _decoded(value: bytes) -> Flow:
    try:
        plain = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise BadRequest(f"The value is not valid JSON: {error}.") from None
    except RecursionError:
        raise BadRequest(_TOO_DEEP) from None
    if _depth(plain) > DEEPEST:
        raise BadRequest(_TOO_DEEP)
    try:
        return flows.read(value)
    except msgspec.ValidationError as error:
        raise Unprocessable(_sentence(error, plain)) from None


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
    return depth


def _sentence(error: msgspec.ValidationError, plain: Any) -> str:
    """Return what is wrong with the shape, at a field of the innermost module around it."""
    parts = _WHERE.fullmatch(str(error))
    assert parts is not None
    what = parts["what"][:1].lower() + parts["what"][1:].replace("`", "")
    module, field, here = None, "", plain
    for key, index in _STEP.findall(parts["where"] or ""):
        field += f".{key}" if key else f"[{index}]"
        if key and isinstance(here, dict):
            here = here.get(key)
        elif index.isdigit() and isinstance(here, list) and int(index) < len(here):
            here = here[int(index)]
        else:
            here = None
        if isinstance(here, dict) and isinstance(here.get("id"), str) and "value" in here:
            module, field = here["id"], ""
    return _said(module, field.removeprefix(".") or "value", f"is not allowed: {what}")


def _said(module: str | None, field: str, what: str) -> str:
    of = "of the flow" if module is None else f"of the module {module!r}"
    return f"The field {field} {of} {what}."


def _wrong(module: str | None, field: str, what: str) -> Unprocessable:
    return Unprocessable(_said(module, field, what))


def _modules(flow: Flow) -> Iterator[Module]:
    """Yield all modules; raises Unprocessable where they are nested too deeply."""
    level: Sequence[Module] = [
        *flow.modules,
        *(each for each in (flow.failure_module, flow.preprocessor_module) if each is not None),
    ]
    for _ in range(MOST_NESTED):
        if not level:
            return
        yield from level
        level = [inner for module in level for _, body in flows.bodies(module) for inner in body]
    if level:
        raise _wrong(
            level[0].id, "value", f"is nested too deeply: no more than {MOST_NESTED} modules may stand in others"
        )


def _check_ids(flow: Flow) -> None:
    seen: set[str] = set()
    for module in flows.walk(flow.modules):
        if _ID.fullmatch(module.id) is None:
            raise _wrong(module.id, "id", "must be 1 to 100 letters, digits, '_' and '-'")
        if module.id in RESERVED_IDS | _UNSAFE_IDS:
            raise _wrong(module.id, "id", "is reserved")
        if module.id in seen:
            raise _wrong(module.id, "id", "is taken by another module of the flow")
        seen.add(module.id)
    for name, apart in ((FAILURE, flow.failure_module), (PREPROCESSOR, flow.preprocessor_module)):
        if apart is None:
            continue
        if apart.id != name:
            raise _wrong(apart.id, "id", f"must be {name}, because it is the {name}_module")
        if not isinstance(apart.value, RawScript | Script):
            raise _wrong(apart.id, "value.type", "must be rawscript or script")


def _check_flow(flow: Flow) -> None:
    for name in _DEBOUNCING:
        if getattr(flow, name):
            raise _wrong(None, name, "is not supported: runs are not debounced yet")
    if flow.concurrency_time_window_s:
        raise _wrong(
            None, "concurrency_time_window_s", "is not supported: a limit counts what runs at once, not in a window"
        )
    if flow.chat_input_enabled:
        raise _wrong(None, "chat_input_enabled", "is not supported: there are no flows with a conversation yet")
    _check_range(None, "concurrent_limit", flow.concurrent_limit, MOST_AT_ONCE)
    _check_range(None, "priority", flow.priority, 100)
    _check_range(None, "cache_ttl", flow.cache_ttl, LONGEST_WAIT_S)
    _check_range(None, "delete_after_secs", flow.delete_after_secs, LONGEST_WAIT_S)


def _check_preprocessor(flow: Flow) -> None:
    for expression in () if flow.preprocessor_module is None else _expressions(flow.preprocessor_module):
        if _RESULTS.search(expression.text):
            raise _wrong(PREPROCESSOR, expression.field, "refers to results, and no step runs before the preprocessor")


def _check_module(module: Module, *, same_worker: bool) -> None:
    for field, number, most in (
        ("priority", module.priority, 100),
        ("cache_ttl", module.cache_ttl, LONGEST_WAIT_S),
        ("delete_after_secs", module.delete_after_secs, LONGEST_WAIT_S),
    ):
        _check_range(module.id, field, number, most)
    if bytes(module.debouncing) not in _EMPTY:
        raise _wrong(module.id, "debouncing", "is not supported: runs are not debounced yet")
    if module.retry is not None:
        _check_retry(module.id, module.retry)
    if module.suspend is not None:
        _check_suspend(module.id, module.suspend)
    for field, transform, limit in _transforms(module):
        _check_transform(module.id, field, transform, limit)
    if module.cache_ttl and not isinstance(module.value, RawScript | Script | SubFlow):
        why = "is for scripts and flows only: what other steps answer hangs on more than their inputs"
        raise _wrong(module.id, "cache_ttl", why)
    _check_container(module)
    _check_value(module, same_worker=same_worker)


def _check_container(module: Module) -> None:
    """Refuse what would be passed over without a word."""
    value = module.value
    if not isinstance(value, ForLoop | WhileLoop | BranchAll | BranchOne):
        return
    if module.timeout is not None and not (isinstance(module.timeout, Static) and module.timeout.value == _NULL):
        raise _wrong(module.id, "timeout", "is for single steps: it is not supported for loops and branches")
    if isinstance(value, WhileLoop) and value.parallel:
        raise _wrong(module.id, "value.parallel", "is not supported for a loop whose end each iteration decides")
    if isinstance(value, ForLoop) and value.parallel and module.stop_after_if is not None:
        raise _wrong(module.id, "stop_after_if", "is not supported for a parallel loop: there is no next iteration")


def _check_value(module: Module, *, same_worker: bool) -> None:
    match module.value:
        case Agent():
            raise _wrong(module.id, "value.type", "is not supported: AI agents are not there yet")
        case RawScript() as code:
            _check_code(module.id, code)
        case Script() as script:
            _check_step_path(module.id, script.path)
            if script.hash and _HASH.fullmatch(script.hash) is None:
                raise _wrong(module.id, "value.hash", "must be the hexadecimal hash of a version")
            _check_tag(module.id, "value.tag_override", script.tag_override)
        case SubFlow(path=path):
            _check_step_path(module.id, path)
        case ForLoop(parallel=True) | BranchAll(parallel=True) if same_worker:
            raise _wrong(module.id, "value.parallel", "excludes same_worker: one worker does one thing at a time")
        case _:
            pass


def _check_code(module: str, code: RawScript) -> None:
    if code.language not in list(Language):
        raise _wrong(
            module,
            "value.language",
            f"is {code.language!r}, which this version does not run: {', '.join(Language)} are",
        )
    if code.path and (wrong := paths.why_not(code.path)) is not None:
        raise _wrong(module, "value.path", wrong)
    if code.concurrency_time_window_s:
        raise _wrong(
            module,
            "value.concurrency_time_window_s",
            "is not supported: a limit counts what runs at once, not in a window",
        )
    _check_range(module, "value.concurrent_limit", code.concurrent_limit, MOST_AT_ONCE)
    _check_tag(module, "value.tag", code.tag)


def _check_step_path(module: str, path: str) -> None:
    if path.startswith("hub/"):
        raise _wrong(module, "value.path", "is not supported: scripts and flows of a hub are not there yet")
    if not path.startswith("g/") and (wrong := paths.why_not(path)) is not None:
        raise _wrong(module, "value.path", wrong)


def _check_tag(module: str, field: str, tag: str | None) -> None:
    if tag and (wrong := tags.why_not_template(tag)) is not None:
        raise _wrong(module, field, wrong)
    if tag == FLOW_TAG:
        raise _wrong(module, field, f"must not be {FLOW_TAG!r}, which is only for flows")


def _check_retry(module: str, retry: Retry) -> None:
    if (constant := retry.constant) is not None:
        _check_range(module, "retry.constant.attempts", constant.attempts, MOST_ATTEMPTS)
        _check_range(module, "retry.constant.seconds", constant.seconds, LONGEST_WAIT_S)
    if (exponential := retry.exponential) is not None:
        _check_range(module, "retry.exponential.attempts", exponential.attempts, MOST_ATTEMPTS)
        _check_range(module, "retry.exponential.seconds", exponential.seconds, LONGEST_WAIT_S)
        _check_range(module, "retry.exponential.multiplier", exponential.multiplier, MOST_TIMES)
        _check_range(module, "retry.exponential.random_factor", exponential.random_factor, 100)
    attempts = sum(each.attempts for each in (constant, exponential) if each is not None)
    if attempts > MOST_ATTEMPTS:
        raise _wrong(module, "retry", f"must not ask for more than {MOST_ATTEMPTS} attempts in all")


def _check_suspend(module: str, suspend: Suspend) -> None:
    _check_range(module, "suspend.required_events", suspend.required_events, MOST_EVENTS)
    _check_range(module, "suspend.timeout", suspend.timeout, LONGEST_WAIT_S)


def _check_range(module: str | None, field: str, number: float | None, most: int) -> None:
    if number is not None and not 0 <= number <= most:
        raise _wrong(module, field, f"must be from 0 to {most}")


def _check_transform(module: str, field: str, transform: Transform | float, most: int | None) -> None:
    """Look at a transform, or at a number in place of one, which may not be more than `most` where that is given."""
    if isinstance(transform, ByAgent):
        raise _wrong(module, field, "is for the tools of AI agents, which are not there yet")
    if most is None or isinstance(transform, JavaScript):
        return
    number = msgspec.json.decode(transform.value) if isinstance(transform, Static) else transform
    if number is None:
        return
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _wrong(module, field, "must be a number or an expression")
    _check_range(module, field, number, most)


def _transforms(module: Module) -> Iterator[tuple[str, Transform | float, int | None]]:
    """Yield what becomes a value when the module is reached, and the most that it may be where it is a number."""
    if module.sleep is not None:
        yield "sleep", module.sleep, LONGEST_WAIT_S
    if module.timeout is not None:
        yield "timeout", module.timeout, LONGEST_RUN_S
    if module.suspend is not None and module.suspend.user_groups_required is not None:
        yield "suspend.user_groups_required", module.suspend.user_groups_required, None
    match module.value:
        case RawScript(input_transforms=inputs) | Script(input_transforms=inputs) | SubFlow(input_transforms=inputs):
            for name, transform in inputs.items():
                yield f"value.input_transforms.{name}", transform, None
        case ForLoop(iterator=iterator, parallelism=parallelism):
            yield "value.iterator", iterator, None
            if parallelism is not None:
                yield "value.parallelism", parallelism, MOST_AT_ONCE
        case WhileLoop(parallelism=parallelism) if parallelism is not None:
            yield "value.parallelism", parallelism, MOST_AT_ONCE
        case _:
            pass


def _expressions(module: Module) -> Iterator[Expression]:
    for field, transform, _ in _transforms(module):
        if isinstance(transform, JavaScript):
            yield Expression(module=module.id, field=field, text=transform.expr)
    for field, condition in (
        ("stop_after_if", module.stop_after_if),
        ("stop_after_all_iters_if", module.stop_after_all_iters_if),
        ("skip_if", module.skip_if),
        ("retry.retry_if", None if module.retry is None else module.retry.retry_if),
    ):
        if condition is not None:
            yield Expression(module=module.id, field=f"{field}.expr", text=condition.expr)
    if isinstance(module.value, BranchOne):
        for no, case in enumerate(module.value.branches):
            yield Expression(module=module.id, field=f"value.branches[{no}].expr", text=case.expr)


def _of_flow(flow: Flow) -> Iterator[Expression]:
    for field, text in (("skip_expr", flow.skip_expr), ("early_return", flow.early_return)):
        if text:
            yield Expression(module=None, field=field, text=text)


def _lock(module: str, code: RawScript) -> str | None:
    try:
        return requirements.of(code.language, code.content).lock
    except NotUnderstood as wrong:
        raise _wrong(module, "value.content", f"can't be deployed: {str(wrong).rstrip('.')}") from wrong
