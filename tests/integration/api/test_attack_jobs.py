"""A27 through HTTP: what a job's token reaches, and that it is over with the job."""

import pytest

from tests.integration.api.conftest import Api
from tests.integration.api.test_identity import a_job_of


@pytest.mark.parametrize("end", ["finished", "canceled", "lost"])
async def test_a27_a_jobs_token_is_dead_with_the_next_request_after_its_end(api: Api, end: str) -> None:
    """A27: in every way a token can be sent, and what it could reach is out of reach."""
    workspace = await api.workspace()
    ann = await api.person("ann", workspace=workspace)
    job, claim = await a_job_of(api, ann, workspace)
    here = f"/w/{workspace}/users/whoami"
    assert (await job.get(here)).status == 200
    match end:
        case "finished":
            assert await api.queue.finish(claim) == "done"
        case "canceled":
            answer = await ann.post(f"/w/{workspace}/jobs_u/queue/force_cancel/{claim.job_id}", {})
            assert answer.status == 200, answer.text
        case _:
            await api.queue.release(claim)
    assert (await job.get(here)).status == 401
    assert (await api.nobody.get(f"{here}?token={job.token}")).status == 401
    assert (await api.nobody.get(here, headers={"Cookie": f"token={job.token}"})).status == 401
    run = {"content": "true", "language": "bash", "args": {}}
    assert (await job.post(f"/w/{workspace}/jobs/run/preview", run)).status == 401


async def test_a27_a_jobs_token_reaches_no_job_of_another_workspace(api: Api) -> None:
    """A27: neither under its own workspace's name nor under the other's."""
    one, two = await api.workspace(), await api.workspace()
    ann = await api.person("ann", workspace=one)
    bob = await api.person("bob", workspace=two)
    ours, _ = await a_job_of(api, ann, one, is_admin=True)
    _, theirs = await a_job_of(api, bob, two)
    for method, path in (
        ("GET", f"jobs_u/get/{theirs.job_id}"),
        ("GET", f"jobs_u/get_logs/{theirs.job_id}"),
        ("GET", f"jobs_u/completed/get_result_maybe/{theirs.job_id}"),
        ("GET", f"jobs_u/getupdate/{theirs.job_id}"),
        ("POST", f"jobs_u/queue/cancel/{theirs.job_id}"),
        ("POST", f"jobs_u/queue/force_cancel/{theirs.job_id}"),
        ("POST", f"jobs/queue/run_now/{theirs.job_id}"),
    ):
        body: dict[str, str] | None = {} if method == "POST" else None
        assert (await ours.call(method, f"/w/{one}/{path}", body)).status == 404, path
        assert (await ours.call(method, f"/w/{two}/{path}", body)).status == 403, path
    canceled = await ours.post(f"/w/{one}/jobs/queue/cancel_selection", [str(theirs.job_id)])
    assert (canceled.status, canceled.json) == (200, [])
    assert await api.queue.state_of(theirs.job_id) == "running"


async def test_a27_a_jobs_token_cannot_be_turned_into_anothers(api: Api) -> None:
    """A27: the parts of two tokens do not make a third."""
    workspace = await api.workspace()
    ann = await api.person("ann", workspace=workspace)
    (one, _), (two, _) = await a_job_of(api, ann, workspace), await a_job_of(api, ann, workspace)
    parts = [token.token.split("_") for token in (one, two)]
    here = f"/w/{workspace}/users/whoami"
    for at in range(1, len(parts[0])):
        mixed = [*parts[0]]
        mixed[at] = parts[1][at]
        if mixed not in parts:
            assert (await one.with_token("_".join(mixed)).get(here)).status == 401
    assert (await one.get(here)).status == 200
