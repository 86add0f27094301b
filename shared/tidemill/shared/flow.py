"""What a flow is: OpenFlow as existing clients send it, as far as it is run.

    Flow ── modules ──▶ Module ── value ──▶ RawScript | Script | SubFlow | Identity       one job each
                                            ForLoop | WhileLoop | BranchOne | BranchAll   jobs for their bodies

The value of a flow is stored as it was sent; these structs are read from it wherever it is looked into. Fields that
only editors use are not here. One job of a flow walks through the modules of one `Body`: those of the flow itself, or
those of one branch or loop inside it. Module ids are unique in the whole flow, so that a body is named by its module
and branch: `c`, `b:1`.
"""

from collections.abc import Iterator, Sequence

import msgspec

PREPROCESSOR = "preprocessor"
FAILURE = "failure"
RESERVED_IDS = frozenset({PREPROCESSOR, FAILURE, "Input"})
DEFAULT_BRANCH = -1
"""The branch of a branchone that is taken when no expression is true."""

_NO_GROUPS = (b"null", b"[]", b'""')


class Static(msgspec.Struct, frozen=True, tag_field="type", tag="static"):
    """A value as it stands; `$res:path` and `$var:path` in it are resolved by the worker."""

    value: msgspec.Raw = msgspec.Raw(b"null")


class JavaScript(msgspec.Struct, frozen=True, tag_field="type", tag="javascript"):
    """What an expression answers when the step begins."""

    expr: str


class ByAgent(msgspec.Struct, frozen=True, tag_field="type", tag="ai"):
    """What an AI agent fills in; only its tools have such."""


Transform = Static | JavaScript | ByAgent
Transforms = dict[str, Transform]


class ConstantRetry(msgspec.Struct, frozen=True):
    """Try again `attempts` times, always after the same time."""

    attempts: int = 0
    seconds: int = 0


class ExponentialRetry(msgspec.Struct, frozen=True):
    """Try again `attempts` times, each time later; `random_factor` is in percent."""

    attempts: int = 0
    multiplier: int = 1
    seconds: int = 0
    random_factor: int = 0


class Condition(msgspec.Struct, frozen=True):
    """An expression that is true or false."""

    expr: str


class Retry(msgspec.Struct, frozen=True):
    """How often and when a failed step is tried again: first at constant pauses, then at growing ones."""

    constant: ConstantRetry | None = None
    exponential: ExponentialRetry | None = None
    retry_if: Condition | None = None


class Stop(msgspec.Struct, frozen=True):
    """When a flow, or the loop around the step, ends early: as a failure with an `error_message`, even an empty one."""

    expr: str
    skip_if_stopped: bool | None = None
    error_message: str | None = None
    error_include_result: bool | None = None


class Form(msgspec.Struct, frozen=True):
    """What an approver is asked for."""

    schema: msgspec.Raw = msgspec.Raw(b"null")


class Suspend(msgspec.Struct, frozen=True):
    """After the step the flow waits for so many resumes, at most `timeout` seconds."""

    required_events: int | None = None
    timeout: float | None = None
    resume_form: Form | None = None
    user_auth_required: bool | None = None
    user_groups_required: Transform | None = None
    self_approval_disabled: bool | None = None
    hide_cancel: bool | None = None
    continue_on_disapprove_timeout: bool | None = None

    @property
    def demands_nothing(self) -> bool:
        """Whether anybody may approve; what only an expression tells is taken for a demand."""
        groups = self.user_groups_required
        anybody = groups is None or (isinstance(groups, Static) and bytes(groups.value).strip() in _NO_GROUPS)
        return anybody and not self.user_auth_required and not self.self_approval_disabled


class Mock(msgspec.Struct, frozen=True):
    """A value that stands for what the step would answer."""

    enabled: bool | None = None
    return_value: msgspec.Raw = msgspec.Raw(b"null")


class RawScript(msgspec.Struct, frozen=True, tag_field="type", tag="rawscript"):
    """Code inside the flow."""

    content: str
    language: str
    input_transforms: Transforms = {}
    path: str | None = None
    lock: str | None = None
    tag: str | None = None
    concurrent_limit: int | None = None
    concurrency_time_window_s: int | None = None
    custom_concurrency_key: str | None = None


class Script(msgspec.Struct, frozen=True, tag_field="type", tag="script"):
    """A deployed script: the version that serves the path, or the one of the hash."""

    path: str
    input_transforms: Transforms = {}
    hash: str | None = None
    tag_override: str | None = None


class SubFlow(msgspec.Struct, frozen=True, tag_field="type", tag="flow"):
    """A deployed flow, with results of its own."""

    path: str
    input_transforms: Transforms = {}


class Identity(msgspec.Struct, frozen=True, tag_field="type", tag="identity"):
    """Answers what the step before it has answered."""

    flow: bool | None = None


class ForLoop(msgspec.Struct, frozen=True, tag_field="type", tag="forloopflow"):
    """Its modules for each value of a list."""

    modules: "list[Module]"
    iterator: Transform
    skip_failures: bool | None = None
    parallel: bool | None = None
    parallelism: int | Transform | None = None
    squash: bool | None = None


class WhileLoop(msgspec.Struct, frozen=True, tag_field="type", tag="whileloopflow"):
    """Its modules again and again until one of its stops is true."""

    modules: "list[Module]"
    skip_failures: bool | None = None
    parallel: bool | None = None
    parallelism: int | Transform | None = None
    squash: bool | None = None


class Case(msgspec.Struct, frozen=True):
    """The modules to go through when the expression is true."""

    expr: str
    modules: "list[Module]"
    summary: str | None = None


class BranchOne(msgspec.Struct, frozen=True, tag_field="type", tag="branchone"):
    """The first case that is true, else the default."""

    branches: list[Case]
    default: "list[Module]"


class Branch(msgspec.Struct, frozen=True):
    """One of several bodies that are all gone through."""

    modules: "list[Module]"
    summary: str | None = None
    skip_failure: bool | None = None


class BranchAll(msgspec.Struct, frozen=True, tag_field="type", tag="branchall"):
    """Every branch, one after the other or all at once."""

    branches: list[Branch]
    parallel: bool | None = None


class Agent(msgspec.Struct, frozen=True, tag_field="type", tag="aiagent"):
    """An AI agent; known by name, so that it can be refused by name."""


Plain = RawScript | Script | SubFlow | Identity
Container = ForLoop | WhileLoop | BranchOne | BranchAll
Value = RawScript | Script | SubFlow | Identity | ForLoop | WhileLoop | BranchOne | BranchAll | Agent


class Module(msgspec.Struct, frozen=True):
    """One step of a flow; its result is `results.<id>` for those behind it."""

    id: str
    value: Value
    summary: str | None = None
    stop_after_if: Stop | None = None
    stop_after_all_iters_if: Stop | None = None
    skip_if: Condition | None = None
    sleep: Transform | None = None
    cache_ttl: float | None = None
    cache_ignore_s3_path: bool | None = None
    timeout: float | Transform | None = None
    delete_after_use: bool | None = None
    delete_after_secs: int | None = None
    mock: Mock | None = None
    suspend: Suspend | None = None
    priority: int | None = None
    continue_on_error: bool | None = None
    retry: Retry | None = None
    debouncing: msgspec.Raw = msgspec.Raw(b"null")


class Flow(msgspec.Struct, frozen=True):
    """The value of a flow."""

    modules: list[Module]
    failure_module: Module | None = None
    preprocessor_module: Module | None = None
    same_worker: bool | None = None
    preserve_step_tags: bool | None = None
    concurrent_limit: int | None = None
    concurrency_key: str | None = None
    concurrency_time_window_s: int | None = None
    skip_expr: str | None = None
    cache_ttl: float | None = None
    cache_ignore_s3_path: bool | None = None
    delete_after_secs: int | None = None
    flow_env: dict[str, msgspec.Raw] | None = None
    priority: int | None = None
    early_return: str | None = None
    debounce_delay_s: int | None = None
    debounce_key: str | None = None
    debounce_args_to_accumulate: list[str] | None = None
    max_total_debouncing_time: int | None = None
    max_total_debounces_amount: int | None = None
    chat_input_enabled: bool | None = None


class Body(msgspec.Struct, frozen=True):
    """The name of the modules that one job walks through; without a module: those of the flow itself."""

    module: str | None = None
    branch: int | None = None

    def __str__(self) -> str:
        return (self.module or "") if self.branch is None else f"{self.module}:{self.branch}"

    @classmethod
    def parse(cls, text: str | None) -> "Body":
        """Return the body that `str()` of it has named."""
        if not text:
            return cls()
        module, _, branch = text.partition(":")
        if not branch:
            return cls(module)
        return cls(module, int(branch))


class NoSuchBody(Exception):
    """The flow has no modules of this name."""


_flows = msgspec.json.Decoder(Flow)


def read(value: bytes | str) -> Flow:
    """Return a flow's value as it is run; raises msgspec.ValidationError or DecodeError, naming the place."""
    return _flows.decode(value)


def bodies(module: Module) -> Iterator[tuple[Body, Sequence[Module]]]:
    """Yield the bodies of a container in order, and nothing for a plain step."""
    match module.value:
        case ForLoop(modules=modules) | WhileLoop(modules=modules):
            yield Body(module.id), modules
        case BranchOne(branches=cases, default=default):
            yield Body(module.id, DEFAULT_BRANCH), default
            for no, case in enumerate(cases):
                yield Body(module.id, no), case.modules
        case BranchAll(branches=branches):
            for no, branch in enumerate(branches):
                yield Body(module.id, no), branch.modules
        case _:
            return


def walk(modules: Sequence[Module]) -> Iterator[Module]:
    """Yield all modules, those inside of others right after these."""
    for module in modules:
        yield module
        for _, inner in bodies(module):
            yield from walk(inner)


def every_module(flow: Flow) -> Iterator[Module]:
    """Yield all modules of a flow with the two that stand apart."""
    yield from walk(flow.modules)
    for apart in (flow.failure_module, flow.preprocessor_module):
        if apart is not None:
            yield from walk([apart])


def modules_of(flow: Flow, body: Body) -> Sequence[Module]:
    """Return what a job of this body walks through; raises NoSuchBody."""
    if body.module is None:
        return flow.modules
    for module in every_module(flow):
        for name, modules in bodies(module):
            if name == body:
                return modules
    raise NoSuchBody(f"the flow has no body {body}")
