"""Jobs that find out what exactly a script needs installed; nothing of the script runs."""

from uuid import UUID

from aiohttp import web

from tidemill.api.flows import reading
from tidemill.api.http.route import Call
from tidemill.api.jobs import rules, run, store
from tidemill.api.jobs.args import NONE
from tidemill.api.jobs.rules import Runnable
from tidemill.api.jobs.schemas import FlowDependencies, RawDependencies, RequestQuery
from tidemill.api.scripts.schemas import NewScript
from tidemill.chassis.database import Executor
from tidemill.chassis.telemetry import current_traceparent
from tidemill.shared.script import DEPENDENCY_TAG, JobKind


async def request_for_version(tx: Executor, call: Call, new: NewScript, version: str, job_id: UUID) -> str:
    """Ask for the lock of a version as a part of its deployment, and return what was said, to be published."""
    runnable = Runnable(
        kind=JobKind.DEPENDENCIES, language=new.language, path=new.path, hash=version, tag=DEPENDENCY_TAG
    )
    return await _request(tx, call, runnable, job_id)


async def request_for_flow(tx: Executor, call: Call, path: str, version: int, job_id: UUID) -> str:
    """Ask for the locks of a flow's version as a part of its deployment, and return what was said."""
    runnable = Runnable(kind=JobKind.FLOW_DEPENDENCIES, path=path, hash=str(version), tag=DEPENDENCY_TAG)
    return await _request(tx, call, runnable, job_id)


async def find(call: Call) -> web.StreamResponse:
    """Request a job that finds the lock of the code in the body, and answer its id."""
    body: RawDependencies = call.body
    return await run.id_of(call, rules.dependencies(body), NONE)


async def wait_for(call: Call) -> web.StreamResponse:
    """Find the lock of the code in the body and answer it."""
    body: RawDependencies = call.body
    answer = await run.result_of(call, rules.dependencies(body), NONE)
    answer.set_status(201)
    return answer


async def find_for_flow(call: Call) -> web.StreamResponse:
    """Request a job that finds the locks of the flow in the body, and answer its id."""
    body: FlowDependencies = call.body
    await reading.read(bytes(body.flow_value))
    return await run.id_of(call, rules.flow_dependencies(body), NONE)


async def _request(tx: Executor, call: Call, runnable: Runnable, job_id: UUID) -> str:
    job = rules.request(
        runnable,
        RequestQuery(),
        NONE,
        call.viewer,
        call.workspace,
        job_id,
        traceparent=current_traceparent(),
        # Nobody asks for this job: it belongs to a deployment that is allowed.
        any_tag=True,
    )
    return await store.request(tx, job, NONE, None)
