"""A whole Tidemill in this process and one of everything in it, for tests that call every route there is.

Whoever may take the ground away, and with it every other test's, gets a piece of their own.
"""

import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.integration.api.conftest import ADMIN_EMAIL, Answer, Api, Client, an_api
from tests.support.database import DatabaseUrls
from tests.support.flow_rows import a_flow
from tests.support.suspended import a_flow_unheard, a_module, park, start
from tests.support.waiting import eventually
from tidemill.api.http.route import NEEDS_NO_LOGIN, Route
from tidemill.scheduler.service import SERVICE as SCHEDULER
from tidemill.worker.service import SERVICE as WORKER

SCRIPT = "u/boss/greet"
FLOW = "u/boss/tour"
GREET = "def main(name: str = ''):\n    print('greeting', name)\n    return {'greeted': name}"

SACRIFICED: Mapping[str, str] = MappingProxyType(
    {
        "POST /auth/logout": "it ends the token that asks",
        "POST /users/setpassword": "it changes the password of who asks",
        "POST /users/update/{email}": "it may disable the person",
        "DELETE /users/delete/{email}": "it removes the person",
        "POST /users/set_password_of/{email}": "it ends the person's sessions",
        "POST /w/{workspace}/users/update/{username}": "it may disable the member",
        "DELETE /w/{workspace}/users/delete/{username}": "it removes the member",
        "POST /w/{workspace}/workspaces/leave": "it ends who asks in the workspace",
        "POST /w/{workspace}/workspaces/archive": "it closes the workspace",
        "POST /workspaces/unarchive/{id}": "the workspace has to be closed",
        "DELETE /workspaces/delete/{id}": "it removes the workspace",
        "POST /users/tokens/update_scopes/{token_prefix}": "it limits the token",
        "DELETE /users/tokens/delete/{token_prefix}": "it revokes the token",
        "POST /w/{workspace}/scripts/archive/p/{path...}": "it archives the script",
        "POST /w/{workspace}/scripts/archive/h/{hash}": "it archives the script",
        "POST /w/{workspace}/flows/archive/{path...}": "it archives the flow",
        "DELETE /w/{workspace}/flows/delete/{path...}": "it deletes the flow",
        "POST /w/{workspace}/jobs/completed/delete/{id}": "it empties the job",
        "POST /w/{workspace}/jobs/delete": "it removes the job",
        "POST /w/{workspace}/jobs_u/queue/cancel_persistent/{path...}": "it cancels all jobs of the script",
    }
)
"""Routes that would take away what other tests stand on, and how."""


@dataclass(frozen=True)
class Plot:
    """One workspace with what there is in it, and somebody who may do everything."""

    who: Client
    someone: Client
    workspace: str
    version: str
    flow_version: str
    job: str

    def named(self, route: Route) -> Mapping[str, str]:
        """Return what stands in a route's path so that it finds something."""
        numbers = {"audit": "1", "workspaces": self.workspace}
        values = {
            "workspace": self.workspace,
            "path": FLOW if of_flows(route) else SCRIPT,
            "version": self.flow_version,
            "hash": self.version,
            "id": numbers.get(route.policy.domain, self.job),
            "email": self.someone.email,
            "username": self.someone.username,
            "token_prefix": self.who.token[:10],
            "key": "base_url",
            "scheduled_for": "1700000000000",
            "node_id": "a",
            "resume_id": "1",
            "signature": "0" * 64,
            "entrypoint": "work",
            "step_key": "manager",
        }
        return {name: values[name] for name in route.parameters}


def of_flows(route: Route) -> bool:
    """Return whether a path in the route's path is that of a flow."""
    return route.policy.domain == "flows" or route.resource.startswith("flows")


@dataclass(frozen=True)
class Ground:
    """A running Tidemill and the plot that all share."""

    api: Api
    shared: Plot

    async def plot(self) -> Plot:
        """Return a new plot."""
        return await a_plot(self.api)

    async def plot_for(self, route: Route) -> Plot:
        """Return the plot that a route is called on, with a token of its own."""
        if route.name in SACRIFICED:
            return await self.plot()
        return self.shared


async def a_plot(api: Api) -> Plot:
    workspace = await api.workspace()
    who = await api.person("boss", workspace=workspace, super_admin=True)
    someone = await api.person("someone", workspace=workspace)
    script = {"path": SCRIPT, "content": GREET, "language": "python3", "summary": "", "description": ""}
    version = await who.post(f"/w/{workspace}/scripts/create", script)
    assert version.status == 201, version.text
    job = await a_job(who, workspace)

    async def ended() -> bool:
        return (await who.get(f"/w/{workspace}/jobs_u/completed/get/{job}")).status == 200

    await eventually(ended, 60)
    flow = {"path": FLOW, "summary": "", "value": TOUR, "schema": {"type": "object"}}
    await done(who.post(f"/w/{workspace}/flows/create", flow))
    flow_version = (await who.get(f"/w/{workspace}/flows/get_latest_version/{FLOW}")).json["id"]
    return Plot(who, someone, workspace, version.text, str(flow_version), job)


async def a_job(who: Client, workspace: str, query: str = "") -> str:
    """Request a run of the plot's script and return its id."""
    job = await who.post(f"/w/{workspace}/jobs/run/p/{SCRIPT}{query}", {"name": "you"})
    assert job.status == 201, job.text
    return job.text


@asynccontextmanager
async def a_ground(
    urls: DatabaseUrls, home: Path, settings: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Ground]:
    """Run a whole Tidemill for the block; no synchronous run is waited for long, unless the settings say so."""
    # What a fuzzer asks to run may never find a worker.
    own = {"TIDEMILL_WAIT_RESULT_TIMEOUT": "2s", "TIDEMILL_WORKER_SLOTS": "2"}
    async with an_api(urls, home, {**own, **settings}, also=(SCHEDULER, WORKER)) as api:
        yield Ground(api, await a_plot(api))


@dataclass(frozen=True)
class Good:
    """What has to be sent so that a route does what it is there for."""

    body: Any = None
    named: Mapping[str, str] = field(default_factory=dict)
    """What has to stand in the path instead of what the plot has."""
    who: Client | None = None
    """Who has to ask, where it is nobody of the plot."""


async def good_request(ground: Ground, route: Route) -> tuple[Plot, Good]:
    """Return whose plot a route is called on and what to send; fails for a route that takes a body of no known kind."""
    plot = await ground.plot_for(route)
    made = await GOOD[route.name](ground.api, plot) if route.name in GOOD else Good()
    assert made.body is not None or route.body is None or route.name in NO_BODY, f"what is a good body of {route.name}?"
    if made.who is not None:
        plot = replace(plot, who=made.who)
    return plot, Good(made.body, {**plot.named(route), **made.named})


async def succeed(plot: Plot, route: Route, good: Good) -> Answer:
    """Make a good request and return its answer; fails when it is none of success."""
    path = route.path.replace("...}", "}").format(**good.named)
    answer = await plot.who.call(route.method, path, good.body)
    assert answer.status < 300, f"{route.name}: {answer.status} {answer.text}"
    return answer


def always(body: Any) -> Callable[[Api, Plot], Awaitable[Good]]:
    """Return what makes the same good body each time."""

    async def make(_: Api, __: Plot) -> Good:
        return Good(body)

    return make


async def a_login(api: Api, _: Plot) -> Good:
    return Good({"email": ADMIN_EMAIL, "password": api.password})


async def a_new_person(_: Api, __: Plot) -> Good:
    return Good({"email": f"made-{secrets.token_hex(4)}@example.com", "super_admin": False})


async def a_new_workspace(_: Api, __: Plot) -> Good:
    name = f"made-{secrets.token_hex(4)}"
    return Good({"id": name, "name": name})


async def a_stranger(api: Api, _: Plot) -> Good:
    return Good({"email": (await api.person("stranger")).email, **ROLE})


async def somebody_invited(api: Api, plot: Plot) -> Good:
    stranger = await a_stranger(api, plot)
    await done(plot.who.post(f"/w/{plot.workspace}/workspaces/invite_user", stranger.body))
    return stranger


async def an_invitation(api: Api, plot: Plot) -> Good:
    other = await api.workspace()
    await done(plot.who.post(f"/w/{other}/workspaces/invite_user", {"email": plot.who.email, **ROLE}))
    return Good({"workspace_id": other})


async def a_new_script(_: Api, __: Plot) -> Good:
    path = f"u/boss/made_{secrets.token_hex(4)}"
    return Good({"path": path, "content": GREET, "language": "python3", "summary": "", "description": ""})


async def a_new_flow(_: Api, __: Plot) -> Good:
    return Good({"path": f"u/boss/made_{secrets.token_hex(4)}", "summary": "", "value": TOUR})


async def a_waiting_job(_: Api, plot: Plot) -> Good:
    return Good(named={"id": await a_job(plot.who, plot.workspace, "?scheduled_in_secs=3600")})


async def a_flow_that_ended(api: Api, plot: Plot) -> Good:
    value = {"modules": [{"id": "a", "value": {"type": "identity"}}]}
    boss = {"created_by": "boss", "permissioned_as": "u/boss", "email": plot.who.email}
    job = await a_flow(api.queue, value, workspace_id=plot.workspace, **boss)

    async def ended() -> bool:
        return (await plot.who.get(f"/w/{plot.workspace}/jobs_u/completed/get/{job}")).status == 200

    await eventually(ended, 60)
    return Good(named={"id": str(job)})


async def a_flow_to_take_up(api: Api, plot: Plot) -> Good:
    return Good({"step_id": "a"}, (await a_flow_that_ended(api, plot)).named)


async def waiting_jobs(api: Api, plot: Plot) -> Good:
    return Good([(await a_waiting_job(api, plot)).named["id"]])


async def any_waiting_job(api: Api, plot: Plot) -> Good:
    await a_waiting_job(api, plot)
    return Good({"reason": "enough of it"})


async def the_job(_: Api, plot: Plot) -> Good:
    return Good([plot.job])


async def the_job_again(_: Api, plot: Plot) -> Good:
    return Good({"job_ids": [plot.job], "script_options_by_path": {}, "flow_options_by_path": {}})


def by_a_running_job(body: Any, **named: str) -> Callable[[Api, Plot], Awaitable[Good]]:
    """Return what makes a request that a job makes of itself while it runs."""

    async def make(api: Api, plot: Plot) -> Good:
        asleep = {"content": "sleep 600", "language": "bash", "args": {}}
        tag = f"asleep-{secrets.token_hex(4)}"
        await done(plot.who.post(f"/w/{plot.workspace}/jobs/run/preview?tag={tag}", asleep))
        run = await api.queue.start_worker(tag, run=uuid.uuid4())
        await api.look.execute(
            "UPDATE queue.worker SET beat_at = beat_at + interval '1 day' WHERE worker_run = $1", run
        )
        claim = await api.queue.claimed(tag, run=run)
        return Good(body, {"id": str(claim.job_id), **named}, plot.who.with_token(claim.row["token"]))

    return make


async def jobs_of_scripts_alone(api: Api, _: Plot) -> Good:
    """The generated client reads no export with a result that is not an object, such as a line of Bash."""
    return Good(named={"workspace": (await a_plot(api)).workspace})


async def an_ended_job(_: Api, plot: Plot) -> Good:
    began, ended = (datetime.now(UTC) - timedelta(days=days) for days in (2, 1))
    moments = {"created_at": began.isoformat(), "completed_at": ended.isoformat()}
    return Good([{**a_foreign_job(plot), **moments, "status": "success", "result": {"greeted": "you"}, "logs": "hi"}])


async def an_unfinished_job(_: Api, plot: Plot) -> Good:
    now = datetime.now(UTC)
    moments = {"created_at": now.isoformat(), "scheduled_for": (now + timedelta(days=1)).isoformat()}
    return Good([{**a_foreign_job(plot), **moments}])


async def a_step(api: Api, plot: Plot) -> Good:
    return Good(named={"id": (await a_waiting_flow(api, plot)).step})


async def a_flow_that_waits(api: Api, plot: Plot) -> Good:
    return Good(named={"id": (await a_waiting_flow(api, plot)).id})


async def some_progress(api: Api, plot: Plot) -> Good:
    return Good({"percent": 50}, (await a_waiting_job(api, plot)).named)


async def a_job_with_progress(api: Api, plot: Plot) -> Good:
    waiting = await some_progress(api, plot)
    await done(plot.who.post(f"/w/{plot.workspace}/job_metrics/set_progress/{waiting.named['id']}", waiting.body))
    return Good(named=waiting.named)


async def an_owners_word(api: Api, plot: Plot) -> Good:
    return Good({"payload": {"ok": True}}, named={"id": (await a_waiting_flow(api, plot)).id})


async def an_approval(api: Api, plot: Plot) -> Good:
    flow = await a_waiting_flow(api, plot)
    signature = (await plot.who.get(f"/w/{plot.workspace}/jobs/job_signature/{flow.step}/1")).text
    return Good(named={"id": flow.step, "resume_id": "1", "signature": signature})


@dataclass(frozen=True)
class WaitingFlow:
    """A flow that waits for an approval, and the job after which it does."""

    id: str
    step: str


async def a_waiting_flow(api: Api, plot: Plot) -> WaitingFlow:
    """Let a flow of the plot's owner wait for an approval."""
    value = {"modules": [a_module("a", suspend={"required_events": 1})]}
    asked = {
        "workspace_id": plot.workspace,
        "created_by": plot.who.username,
        "permissioned_as": f"u/{plot.who.username}",
        "email": plot.who.email,
    }
    flow = await a_flow_unheard(api.queue, value, **asked)
    step = await start(api.queue, flow, 0, "a", answered=True)
    await park(api.queue, flow, 1, "a", step)
    return WaitingFlow(str(flow), str(step))


def a_foreign_job(plot: Plot) -> dict[str, Any]:
    """Return what is the same of a job from elsewhere, whether it has ended or not."""
    return {
        "id": str(uuid.uuid4()),
        "created_by": "boss",
        "permissioned_as": "u/boss",
        "email": plot.who.email,
        "visible_to_owner": True,
        "job_kind": "script",
        "script_path": SCRIPT,
        "script_hash": plot.version,
        "language": "python3",
        "tag": "python3",
        "args": {"name": "you"},
    }


async def done(call: Awaitable[Answer]) -> None:
    answer = await call
    assert answer.status < 300, answer.text


ROLE = {"is_admin": False, "operator": False}
PASSWORD = {"password": "correct horse battery"}
CODE = {"content": "echo done", "language": "bash", "args": {}}
TOUR = {"modules": [{"id": "a", "value": {"type": "script", "path": SCRIPT, "input_transforms": {}}}]}
RAW = {
    "raw_scripts": [{"raw_code": "import os", "language": "python3", "path": "u/ann/raw"}],
    "entrypoint": "u/ann/raw",
}
NO_BODY = frozenset(
    {
        "POST /w/{workspace}/jobs_u/queue/cancel/{id}",
        "POST /w/{workspace}/jobs_u/queue/force_cancel/{id}",
        "POST /w/{workspace}/jobs/flow/resume/{id}",
        "POST /w/{workspace}/jobs/flow/user_states/{id}/{key}",
        "POST /w/{workspace}/jobs_u/resume/{id}/{resume_id}/{signature}",
        "POST /w/{workspace}/jobs_u/cancel/{id}/{resume_id}/{signature}",
    }
)
GOOD: Mapping[str, Callable[[Api, Plot], Awaitable[Good]]] = MappingProxyType(
    {
        "POST /auth/login": a_login,
        "POST /users/create": a_new_person,
        "POST /users/update/{email}": always({"name": "New"}),
        "POST /users/setpassword": always(PASSWORD),
        "POST /users/set_password_of/{email}": always(PASSWORD),
        "POST /w/{workspace}/users/update/{username}": always({"operator": True}),
        "POST /users/tokens/create": always({"label": "made"}),
        "POST /users/tokens/update_label/{token_prefix}": always({"label": "new"}),
        "POST /users/tokens/update_scopes/{token_prefix}": always({"scopes": ["users:read"]}),
        "POST /workspaces/exists": always({"id": "starter"}),
        "POST /workspaces/create": a_new_workspace,
        "POST /w/{workspace}/workspaces/add_user": a_stranger,
        "POST /w/{workspace}/workspaces/invite_user": a_stranger,
        "POST /w/{workspace}/workspaces/delete_invite": somebody_invited,
        "POST /users/accept_invite": an_invitation,
        "POST /users/decline_invite": an_invitation,
        "POST /w/{workspace}/scripts/create": a_new_script,
        "POST /w/{workspace}/flows/create": a_new_flow,
        "POST /w/{workspace}/flows/update/{path...}": always({"summary": "New", "value": TOUR}),
        "POST /w/{workspace}/flows/archive/{path...}": always({"archived": True}),
        "POST /w/{workspace}/flows/history_update/v/{version}": always({"deployment_msg": "why"}),
        "POST /w/{workspace}/jobs/run/preview_flow": always({"value": TOUR, "args": {}}),
        "POST /w/{workspace}/jobs/run_wait_result/preview_flow": always({"value": TOUR, "args": {}}),
        "POST /w/{workspace}/jobs/run/flow_dependencies_async": always({"path": FLOW, "flow_value": TOUR}),
        "POST /w/{workspace}/jobs/run/preview": always(CODE),
        "POST /w/{workspace}/jobs/run_wait_result/preview": always(CODE),
        "POST /w/{workspace}/jobs/run_inline/preview": always(CODE),
        "POST /w/{workspace}/jobs/run/dependencies": always(RAW),
        "POST /w/{workspace}/jobs/run/dependencies_async": always(RAW),
        "POST /w/{workspace}/jobs_u/queue/cancel/{id}": a_waiting_job,
        "POST /w/{workspace}/jobs_u/queue/force_cancel/{id}": a_waiting_job,
        "POST /w/{workspace}/jobs/queue/run_now/{id}": a_waiting_job,
        "POST /w/{workspace}/jobs/queue/cancel_selection": waiting_jobs,
        "POST /w/{workspace}/jobs_u/queue/cancel_persistent/{path...}": any_waiting_job,
        "GET /w/{workspace}/jobs/queue/scheduled_for/{id}": a_waiting_job,
        "GET /w/{workspace}/jobs/result_by_id/{id}/{node_id}": a_flow_that_ended,
        "POST /w/{workspace}/jobs/restart/f/{id}": a_flow_to_take_up,
        "POST /w/{workspace}/jobs/run/batch_rerun_jobs": the_job_again,
        "POST /w/{workspace}/jobs/list_selected_job_groups": the_job,
        "POST /w/{workspace}/jobs/wac/inline_checkpoint/{id}": by_a_running_job({"key": "now", "result": 1}),
        "POST /w/{workspace}/jobs/run/workflow_as_code/{id}/{entrypoint}": by_a_running_job(
            {"args": {}}, entrypoint="work"
        ),
        "POST /w/{workspace}/jobs/delete": the_job,
        "GET /w/{workspace}/jobs/completed/export": jobs_of_scripts_alone,
        "POST /w/{workspace}/jobs/completed/import": an_ended_job,
        "POST /w/{workspace}/jobs/queue/import": an_unfinished_job,
        "GET /w/{workspace}/jobs/resume_urls/{id}/{resume_id}": a_step,
        "GET /w/{workspace}/jobs/job_signature/{id}/{resume_id}": a_step,
        "GET /w/{workspace}/jobs_u/resume/{id}/{resume_id}/{signature}": an_approval,
        "POST /w/{workspace}/jobs_u/resume/{id}/{resume_id}/{signature}": an_approval,
        "GET /w/{workspace}/jobs_u/cancel/{id}/{resume_id}/{signature}": an_approval,
        "POST /w/{workspace}/jobs_u/cancel/{id}/{resume_id}/{signature}": an_approval,
        "GET /w/{workspace}/jobs_u/get_flow/{id}/{resume_id}/{signature}": an_approval,
        "POST /w/{workspace}/jobs/flow/resume/{id}": a_flow_that_waits,
        "POST /w/{workspace}/jobs_u/flow/resume_suspended/{id}": an_owners_word,
        "GET /w/{workspace}/jobs_u/flow/approval_info/{id}": a_flow_that_waits,
        "POST /w/{workspace}/jobs/flow/user_states/{id}/{key}": a_flow_that_waits,
        "GET /w/{workspace}/jobs/flow/user_states/{id}/{key}": a_flow_that_waits,
        "POST /w/{workspace}/job_metrics/set_progress/{id}": some_progress,
        "POST /w/{workspace}/job_metrics/get/{id}": always({}),
        "GET /w/{workspace}/job_metrics/get_progress/{id}": a_job_with_progress,
    }
)
"""What each route needs that is not on the plot anyhow; a new route with a body gets its line here."""


def takes_input(route: Route) -> bool:
    """Return whether a request to the route can be wrong at all."""
    return bool(route.parameters or route.query or route.body or route.raw_body)


def is_open(route: Route) -> bool:
    """Return whether the route wants no token."""
    return route.policy.who in NEEDS_NO_LOGIN
