"""kill -9 between any two lines while a workflow written as code goes on: the same result, and no step twice."""

import json

import aiohttp
import pytest

from tests.chaos.load import Load
from tests.chaos.site import Site
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow

WORKFLOW = "u/admin/workflow"
_CODE = """\
from wmill import parallel, sleep, step, task, workflow

@task
def more(x):
    return x + 1

@workflow
async def main():
    print("begun", flush=True)
    here = await step("here", lambda: 1)
    first = await more(here)
    both = await parallel([first, first + 1], more)
    await sleep(1)
    print("ended", flush=True)
    return both
"""


async def deployed(site: Site) -> None:
    """Have the workflow there, with its packages."""
    if not await site.tidemill.call("GET", f"/w/:w/scripts/exists/p/{WORKFLOW}"):
        await site.tidemill.save_script(WORKFLOW, _CODE)

    async def serves() -> bool:
        try:
            await site.tidemill.call("POST", f"/w/:w/jobs/run_wait_result/p/{WORKFLOW}", {})
        except (aiohttp.ClientError, AssertionError):
            return False
        return True

    await eventually(serves, 60, 0.5)


@pytest.mark.parametrize(
    "fault",
    [
        "worker.before.queue.suspend_workflow",
        "worker.after.queue.suspend_workflow",
        "worker.before.queue.read_checkpoint",
        "worker.after.queue.read_checkpoint",
        "worker.before.queue.finish_job",
        "worker.after.queue.finish_job",
        "worker.before.queue.keep_claimed_step",
        "worker.after.queue.keep_claimed_step",
        "scheduler.before.queue.resume_workflow",
        "scheduler.after.queue.resume_workflow",
    ],
)
async def test_a_workflow_comes_to_the_same_end(site: Site, fault: str) -> None:
    await deployed(site)
    load = Load()
    site.arm(fault)
    job = await site.ask(load, WORKFLOW)
    await site.struck(fault)
    await site.recovered(fault)
    assert (await site.kept(load)).outcomes == {"success": 1}
    assert json.loads(await site.value("SELECT result FROM queue.finished_job WHERE id = $1", job)) == [3, 4]
    tasks = await site.look("SELECT args FROM queue.job WHERE parent_job = $1", job)
    assert sorted(json.loads(task["args"])["x"] for task in tasks) == [1, 2, 3]
