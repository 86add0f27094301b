"""The environment of a running job: the names that the existing SDKs read, and nothing of ours."""

from collections.abc import Mapping

from tidemill.worker.settings import WorkerSettings
from tidemill.worker.store.queue import Claim


def variables(claim: Claim, settings: WorkerSettings, worker_group: str) -> Mapping[str, str]:
    """Return a job's environment; what has no value is left out, because an empty id would be taken for one."""
    username = claim.permissioned_as.removeprefix("u/")
    path = claim.path or f"u/{username}/preview_{claim.id.hex}"
    state_path = f"u/{username}/{path.replace('/', '_')}"
    named = {
        "BASE_INTERNAL_URL": settings.api_url,
        "BASE_URL": settings.api_url,
        "WM_BASE_URL": settings.base_url or settings.api_url,
        "WM_TOKEN": claim.token,
        "WM_WORKSPACE": claim.workspace_id,
        "WM_JOB_ID": str(claim.id),
        "WM_ROOT_JOB_ID": str(claim.root_job) if claim.root_job else None,
        "WM_FLOW_JOB_ID": str(claim.parent_job) if claim.root_flow else None,
        "WM_ROOT_FLOW_JOB_ID": str(claim.root_flow) if claim.root_flow else None,
        "WM_FLOW_STEP_ID": claim.step_id if claim.root_flow else None,
        "WM_FLOW_PATH": claim.flow_path,
        "WM_JOB_PATH": claim.path,
        "WM_OBJECT_PATH": f"{claim.workspace_id}/{path}/{claim.due_at:%Y%m%dT%H%M%S}_{claim.id}",
        "WM_STATE_PATH": state_path,
        "WM_STATE_PATH_NEW": state_path,
        "WM_EMAIL": claim.email,
        "WM_USERNAME": claim.created_by,
        "WM_PERMISSIONED_AS": claim.permissioned_as,
        "WM_RUNNABLE_ID": claim.hash,
        "MAIN_OVERRIDE": claim.entrypoint,
        "WM_SCHEDULED_FOR": claim.due_at.isoformat(),
        "WM_WORKER_GROUP": worker_group,
        "TRACEPARENT": claim.traceparent,
    }
    own = dict(each.split("=", 1) for each in claim.envs if "=" in each)
    return {**own, **{name: value for name, value in named.items() if value}}
