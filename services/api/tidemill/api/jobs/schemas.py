"""Jobs as they travel: what clients send, what they get; an optional field without a value is left out."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.http.paging import MOST, Paged, PageSize
from tidemill.api.jobs.flow_status import FlowStatus

LONGEST_RUN_S = 7 * 24 * 3600
Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
RunSeconds = Annotated[int, msgspec.Meta(ge=0, le=LONGEST_RUN_S, description="0 is no limit of its own")]
Contained = Annotated[str, msgspec.Meta(max_length=20_000, description="JSON that is to be found within")]
Raw = Annotated[msgspec.Raw, msgspec.Meta(description="any JSON")]


class RequestQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How a job is to be run."""

    job_id: UUID | None = None
    parent_job: UUID | None = None
    tag: str | None = None
    timeout: RunSeconds | None = None
    include_header: str | None = None
    include_query: str | None = None
    invisible_to_owner: bool = False
    queue_limit: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None


class PayloadQuery(RequestQuery, frozen=True, kw_only=True):
    """How a job that is waited for is to be run, and its arguments where there is no body."""

    payload: str | None = None
    cache_ttl: Seconds | None = None


class WaitQuery(RequestQuery, frozen=True, kw_only=True):
    """How a job that is waited for is to be run, and how its body becomes arguments."""

    wrap_body: bool = False
    raw: bool = False
    cache_ttl: Seconds | None = None


class RunQuery(WaitQuery, frozen=True, kw_only=True):
    """How and when a job is to be run."""

    scheduled_for: datetime | None = None
    scheduled_in_secs: Seconds | None = None


class RestartQuery(RequestQuery, frozen=True, kw_only=True):
    """How and when a run is taken up."""

    scheduled_for: datetime | None = None
    scheduled_in_secs: Seconds | None = None


class FlowPayloadQuery(PayloadQuery, frozen=True, kw_only=True):
    """The same for a flow."""

    skip_preprocessor: bool = False
    skip_early_return: bool = False


class FlowWaitQuery(WaitQuery, frozen=True, kw_only=True):
    """The same for a flow."""

    skip_preprocessor: bool = False
    skip_early_return: bool = False


class FlowRunQuery(RunQuery, frozen=True, kw_only=True):
    """The same for a flow."""

    skip_preprocessor: bool = False


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """Code to run without deploying it."""

    content: str
    language: str
    args: msgspec.Raw = msgspec.Raw(b"{}")
    path: str | None = None
    tag: str | None = None
    kind: str | None = None


Place = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
Version = Annotated[int, msgspec.Meta(ge=0, le=999_999_999_999_999_999)]


class RestartFlow(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run that has ended is taken up, and by which version of its flow."""

    step_id: str
    branch_or_iteration_n: Place | None = None
    flow_version: Version | None = None


class RestartedFrom(msgspec.Struct, frozen=True, kw_only=True):
    """Which run is taken up, and where."""

    flow_job_id: UUID | None = None
    step_id: str | None = None
    branch_or_iteration_n: Place | None = None
    flow_version: Raw | UnsetType = UNSET
    branch_chosen: Raw | UnsetType = UNSET
    nested: Raw | UnsetType = UNSET


class FlowPreview(msgspec.Struct, frozen=True, kw_only=True):
    """A flow to run without deploying it."""

    value: Annotated[msgspec.Raw, msgspec.Meta(description="OpenFlow")]
    args: msgspec.Raw = msgspec.Raw(b"{}")
    path: str | None = None
    tag: str | None = None
    restarted_from: RestartedFrom | None = None


class FlowDependencies(msgspec.Struct, frozen=True, kw_only=True):
    """A flow the locks of whose own code are wanted."""

    path: str
    flow_value: Annotated[msgspec.Raw, msgspec.Meta(description="OpenFlow")]


class RawScript(msgspec.Struct, frozen=True, kw_only=True):
    """Code whose dependencies are wanted."""

    raw_code: str
    language: str
    path: str | None = None
    script_path: str | None = None


class RawDependencies(msgspec.Struct, frozen=True, kw_only=True):
    """One script, as a list, whose lock is wanted; the entrypoint is its path."""

    raw_scripts: Annotated[list[RawScript], msgspec.Meta(min_length=1, max_length=1)]
    entrypoint: str


class CancelReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job is canceled."""

    reason: str | None = None


MOST_SELECTED = 1000
Selection = Annotated[list[UUID], msgspec.Meta(max_length=MOST_SELECTED, description="the ids of jobs")]


class InputTransform(msgspec.Struct, frozen=True, kw_only=True):
    """What an argument becomes."""

    type: str
    value: Raw | UnsetType = UNSET
    expr: str | UnsetType = UNSET


class RerunOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the jobs of one script or flow are run again."""

    input_transforms: dict[str, InputTransform] = {}
    use_latest_version: bool = False


class BatchRerun(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are run again, and how those of each script and flow."""

    job_ids: Selection
    script_options_by_path: dict[str, RerunOptions] = {}
    flow_options_by_path: dict[str, RerunOptions] = {}


class SchemaGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one version."""

    schema: Raw
    script_hash: str
    job_ids: list[UUID]


class JobGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one script or flow, by their versions."""

    kind: Literal["script", "flow"]
    script_path: str
    latest_schema: Raw
    schemas: list[SchemaGroup]


class SelectionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How a selection of jobs is canceled."""

    force_cancel: bool = False


class GetQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What of a job to leave out."""

    no_logs: bool = False
    no_code: bool = False


class ResultQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a result is wanted."""

    path: Annotated[str, msgspec.Meta(max_length=1000, description="keys and numbers with dots between")] | None = None


class UpdateQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller knows of a job already."""

    running: bool = False
    log_offset: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    stream_offset: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    no_logs: bool = False
    get_progress: bool = False

    @property
    def without_logs(self) -> bool:
        """Whether the log is left out."""
        return self.no_logs

    @property
    def only_the_end(self) -> bool:
        """Whether it does not matter how far a flow is."""
        return False


class FollowQuery(UpdateQuery, frozen=True, kw_only=True):
    """What the caller of a stream knows already, and whether only the end matters."""

    only_result: bool = False

    @property
    def without_logs(self) -> bool:
        """Whether the log is left out."""
        return self.no_logs or self.only_result

    @property
    def only_the_end(self) -> bool:
        """Whether it does not matter how far a flow is."""
        return self.only_result


class ListQuery(Paged, frozen=True, kw_only=True):
    """Which jobs to list; any value of a comma list fits, or after a leading `!` none of them."""

    created_by: str | None = None
    script_path_exact: str | None = None
    script_path_start: str | None = None
    allow_wildcards: bool = False
    """A * stands for any text in script_path_exact, tag and worker."""
    script_hash: str | None = None
    job_kinds: str | None = None
    tag: str | None = None
    worker: str | None = None
    trigger_kind: str | None = None
    schedule_path: str | None = None
    trigger_path: str | None = None
    concurrency_key: str | None = None
    label: str | None = None
    broad_filter: (
        Annotated[
            str, msgspec.Meta(max_length=200, description="text in the id, path, tag, kind or maker, in any case")
        ]
        | None
    ) = None
    args: Contained | None = None
    result: Contained | None = None
    parent_job: UUID | None = None
    has_null_parent: bool | None = None
    is_flow_step: bool | None = None
    excludes_entrypoint_override: bool = False
    resolved: bool | None = None
    started_before: datetime | None = None
    started_after: datetime | None = None
    created_before: datetime | None = None
    created_after: datetime | None = None
    created_or_started_before: datetime | None = None
    created_or_started_after: datetime | None = None
    running: bool | None = None
    suspended: bool | None = None
    scheduled_for_before_now: bool | None = None
    success: bool | None = None
    status: str | None = None
    is_skipped: bool | None = None
    completed_before: datetime | None = None
    completed_after: datetime | None = None
    all_workspaces: bool = False
    order_desc: bool = True
    cursor: (
        Annotated[
            str, msgspec.Meta(max_length=80, description="where the next page begins, from the answer's Link header")
        ]
        | None
    ) = None


LONGEST_PAGE = 10_000


class QueueListQuery(ListQuery, frozen=True, kw_only=True):
    """The same filters, for jobs that have not ended: clients ask for all of them at once."""

    per_page: Annotated[
        int, msgspec.Meta(ge=1, le=100_000, description=f"a page never holds more than {LONGEST_PAGE}")
    ] = 30


class IdsQuery(ListQuery, frozen=True, kw_only=True):
    """The same filters, for ids only: a page is as long as may be."""

    per_page: PageSize = MOST


class QueueCountQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Of which workspaces jobs are counted."""

    all_workspaces: bool = False


class EndedCountQuery(QueueCountQuery, frozen=True, kw_only=True):
    """Which of the jobs that have ended are counted."""

    completed_after_s_ago: Seconds | None = None
    success: bool | None = None
    tags: Annotated[str, msgspec.Meta(max_length=10_000, description="a comma list")] | None = None


class TagCountQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How far back jobs are counted, and of which workspace."""

    horizon_secs: Seconds = 3600
    workspace_id: str = ""


class TagCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs of a tag have ended."""

    tag: str
    count: int


class QueueCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs have not ended."""

    database_length: int
    suspended: int


class CompletedCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs have ended."""

    database_length: int


class WorkflowStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far one step of a workflow written as code is."""

    name: str
    scheduled_for: datetime
    started_at: datetime | UnsetType = UNSET
    duration_ms: int | UnsetType = UNSET


class _Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job at any time."""

    id: UUID
    workspace_id: str
    created_by: str
    created_at: datetime
    scheduled_for: datetime
    job_kind: str
    permissioned_as: str
    email: str
    visible_to_owner: bool
    tag: str
    canceled: bool
    language: str | UnsetType = UNSET
    is_flow_step: bool = False
    parent_job: UUID | UnsetType = UNSET
    script_path: str | UnsetType = UNSET
    script_hash: str | UnsetType = UNSET
    args: msgspec.Raw | UnsetType = UNSET
    raw_code: str | UnsetType = UNSET
    logs: str | UnsetType = UNSET
    canceled_by: str | UnsetType = UNSET
    canceled_reason: str | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    trigger_kind: str | UnsetType = UNSET
    worker: str | UnsetType = UNSET
    flow_step_id: str | UnsetType = UNSET
    flow_innermost_root_job: UUID | UnsetType = UNSET
    raw_flow: Raw | UnsetType = UNSET
    flow_status: FlowStatus | UnsetType = UNSET
    workflow_as_code_status: dict[str, WorkflowStatus] | UnsetType = UNSET


class QueuedJob(_Job, frozen=True, kw_only=True, tag_field="type", tag="QueuedJob"):
    """A job that has not ended; `running` tells whether a worker has it, and of a flow whether it waits for nobody.

    `suspend` is how many approvals a flow still waits for.
    """

    running: bool
    suspend: int | UnsetType = UNSET
    started_at: datetime | UnsetType = UNSET
    last_ping: datetime | UnsetType = UNSET


class CompletedJob(_Job, frozen=True, kw_only=True, tag_field="type", tag="CompletedJob"):
    """A job that has ended; one that never started has started when it ended."""

    started_at: datetime
    completed_at: datetime
    duration_ms: int
    success: bool
    is_skipped: bool
    deleted: bool = False
    result: msgspec.Raw | UnsetType = UNSET
    mem_peak: int | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET


Job = QueuedJob | CompletedJob


class ResultMaybe(msgspec.Struct, frozen=True, kw_only=True):
    """A job's result, once it has one."""

    completed: bool
    result: msgspec.Raw
    success: bool
    started: bool


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When a job ran."""

    created_at: datetime
    started_at: datetime
    duration_ms: int


class JobUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What is new about a job; offsets count UTF-16 code units, as JavaScript does."""

    running: bool
    completed: bool
    new_logs: str | UnsetType = UNSET
    log_offset: int | UnsetType = UNSET
    new_result_stream: str | UnsetType = UNSET
    stream_offset: int | UnsetType = UNSET
    mem_peak: int | UnsetType = UNSET
    flow_status: FlowStatus | UnsetType = UNSET
    progress: int | UnsetType = UNSET
    workflow_as_code_status: dict[str, WorkflowStatus] | UnsetType = UNSET


class Update(JobUpdate, frozen=True, kw_only=True, tag_field="type", tag="update"):
    """Something new about a job; `only_result` is its result, where only that was asked for."""

    only_result: Raw | UnsetType = UNSET


class Ping(msgspec.Struct, frozen=True, tag_field="type", tag="ping"):
    """Nothing new."""


class TimeIsUp(msgspec.Struct, frozen=True, tag_field="type", tag="timeout"):
    """The stream has lasted long enough; the job may go on."""


class Gone(msgspec.Struct, frozen=True, tag_field="type", tag="not_found"):
    """There is no such job that you may see."""


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """The job can't be followed at this moment."""

    error: str


StreamEvent = Update | Ping | TimeIsUp | Gone | Broken


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place in the workspace's line, from 1."""

    position: int
