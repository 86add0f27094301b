"""Every function that a service may call is called once by that service: none waits for its first user to fail."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.architecture.grants import SCHEMAS
from tests.support.database import Connection, DatabaseUrls, connected
from tests.support.queue import Queue, a_job, queue_of
from tidemill.shared.catalog import Service

OURS = [schema for schema in SCHEMAS if schema != "public"]

PLANNING = {"search_path", "plan_cache_mode", "enable_seqscan", "enable_hashjoin", "enable_mergejoin"}
"""What a function may set for itself: where it looks for names, and how it is planned."""

CALLS: Mapping[str, str] = {
    "audit.drop_day": "(current_date - 400)",
    "audit.prepare_days": "(3)",
    "bus.forget": "(ARRAY[1, 2])",
    "bus.say_all": "(:said, '00-trace')",
    "bus.take_stranded": "('1 second', 10)",
    "platform.flow_definition": "('w', 1)",
    "platform.flow_to_run": "('w', 'u/ann/flow', 'ann', false)",
    "platform.keep_flow_locks": "('w', 1, :job, '{}')",
    "platform.keep_lock": "('w', '00ff00ff00ff00ff', :job, '')",
    "platform.may_read": "('u/ann/script', 'ann', false)",
    "platform.may_write": "('u/ann/script', 'ann', false)",
    "platform.script_source": "('w', '00ff00ff00ff00ff')",
    "platform.script_to_run": "('w', 'u/ann/script', NULL, 'ann', false)",
    "queue.advance_flow": "(:job, 0, '{}', 1000)",
    "queue.append_log": "(:job, :key, 0, 'printed', 7)",
    "queue.append_stream": "(:job, :key, 0, 'streamed', 8)",
    "queue.cached": "('key')",
    "queue.call_task": "(:token, :job, gen_random_uuid(), 'work', '{}', NULL, NULL)",
    "queue.cancel_job": "('w', :job, 'ann', 'because', true, NULL)",
    "queue.cancel_jobs": "('w', ARRAY[:job]::uuid[], 'ann', 'because', true, NULL)",
    "queue.child_results": "(:job, 1::smallint)",
    "queue.claim_job": "(ARRAY['python3'], :run, gen_random_uuid())",
    "queue.close_workspace": "('w', 'ann', 'because')",
    "queue.days_before": "(now() + interval '30 days')",
    "queue.delete_jobs": "('w', '{}', NULL)",
    "queue.ended_flows": "(ARRAY[:job]::uuid[])",
    "queue.explain_job": "('w', :job)",
    "queue.finish_job": """(:job, :key, '{"outcome": "success"}', '1')""",
    "queue.flow_args": "(:job)",
    "queue.flow_code": "(:job)",
    "queue.forget_code": "(current_date - 40)",
    "queue.forget_job": "('w', :job, NULL)",
    "queue.import_jobs": "('w', '[]', NULL)",
    "queue.job_result": "(:job)",
    "queue.json_contains": """('{"a": 1}', '{"a": 1}')""",
    "queue.keep_claimed_step": "(:job, :key, 'a', '1', now(), 1)",
    "queue.keep_state": "('w', :job, 'k', '1', 100, 1000, NULL)",
    "queue.load_flow": "(:job, 50, 1000)",
    "queue.keep_step": "(:token, :job, 'a', '1', now(), 1)",
    "queue.locate": "(:job)",
    "queue.move_on": "(current_date, now(), 10)",
    "queue.open_workspace": "('w')",
    "queue.prepare_days": "(20)",
    "queue.read_approval": """('w', '{"resume_id": 1}')""",
    "queue.read_checkpoint": "(:job, :key)",
    "queue.register_worker": "(gen_random_uuid(), 'n', 'i', 'g', ARRAY['bash'], 1, 'full', '0.1.0')",
    "queue.rehint": "('python3', 0, 10)",
    "queue.release_job": "(:job, :key)",
    "queue.renew": "(:run, ARRAY[:key]::uuid[], '1 s', 1, false)",
    "queue.request_job": "(:request, '{}', NULL)",
    "queue.resume_flow": """('w', '{"resume_id": 1, "username": "ann"}', '1', NULL)""",
    "queue.resume_signature": "('w', :job, true, 1, NULL)",
    "queue.resume_workflow": "(:job)",
    "queue.retire_worker": "(:run)",
    "queue.run_now": "('w', :job, NULL)",
    "queue.slots_of": "('python3')",
    "queue.step_result": "(:job, 1::smallint, 'a')",
    "queue.tell_progress": "('w', :job, 50::smallint, NULL)",
    "queue.suspend_workflow": """(:job, :key, '{"sleep": {"key": "a", "seconds": 1}}', '{}')""",
    "queue.tick": "('1 h', '4 s', '1 s', 10)",
    "queue.verify_job_token": "(:token)",
    "queue.wake_flows": "('5 s', 10)",
    "queue.workflow_signature": "('w', :job, 'k', NULL)",
    "queue.workflow_status": "(:job, now(), 10)",
}
"""Arguments for each function; `:names` are filled from a job that runs."""

_PUBLISHED = """
    SELECT DISTINCT n.nspname || '.' || p.proname AS name, a.grantee::regrole::text AS login
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) a
    JOIN pg_roles r ON r.oid = a.grantee AND r.rolcanlogin
    WHERE n.nspname = ANY ($1) AND a.privilege_type = 'EXECUTE' AND a.grantee <> p.proowner
    ORDER BY 1, 2
"""
SAYABLE = {Service.API: "job.scheduled.v1", Service.SCHEDULER: "job.scheduled.v1", Service.WORKER: "job.ticket.v1"}


@asynccontextmanager
async def a_running_job(queue: Queue) -> AsyncIterator[Mapping[str, Any]]:
    """Return what the calls are filled with."""
    await queue.start_worker()
    claim = await queue.a_claim()
    await queue.request(a_job())
    yield {
        "job": claim.job_id,
        "key": claim.key,
        "run": claim.run,
        "token": claim.row["token"],
        "request": json.dumps(a_job(id=uuid.uuid4(), chosen_id=True), default=str),
    }


async def test_every_function_can_be_called_by_everybody_who_may(own_database_urls: DatabaseUrls) -> None:
    async with connected(own_database_urls.admin) as admin:
        published = [(row["name"], row["login"]) for row in await admin.fetch(_PUBLISHED, OURS)]
    assert {name for name, _ in published} == set(CALLS), "CALLS has to know every function that a login may call"
    async with queue_of(own_database_urls) as queue, a_running_job(queue) as values:
        for name, login in published:
            service = Service(login.removeprefix("tidemill_"))
            said = json.dumps([{"type": SAYABLE.get(service, ""), "key": "k", "data": {}}])
            async with connected(own_database_urls[service]) as connection:
                await called(connection, name, {**values, "said": said})


async def called(connection: Connection, name: str, values: Mapping[str, Any]) -> None:
    """Call the function and undo what it did."""
    arguments = CALLS[name]
    for key, value in values.items():
        arguments = arguments.replace(f":{key}", "'" + str(value).replace("'", "''") + "'")
    transaction = connection.transaction()
    await transaction.start()
    await connection.fetch(f"SELECT * FROM {name}{arguments}")
    await transaction.rollback()


async def test_functions_that_run_as_their_owner_cannot_be_led_astray(database_urls: DatabaseUrls) -> None:
    async with connected(database_urls.admin) as admin:
        rows = await admin.fetch(
            "SELECT p.oid::regprocedure::text AS name, p.proconfig, p.prosrc, p.prosecdef FROM pg_proc p"
            " WHERE p.pronamespace::regnamespace::text = ANY ($1)",
            OURS,
        )
    assert rows
    for row in rows:
        if row["prosecdef"]:
            assert "search_path=pg_catalog, pg_temp" in row["proconfig"], row["name"]
            assert {each.partition("=")[0] for each in row["proconfig"]} <= PLANNING
            assert "EXECUTE " not in row["prosrc"], f"{row['name']} makes SQL out of text"


@pytest.mark.parametrize("what", ["function", "relation", "schema"])
async def test_nothing_is_open_to_everybody(database_urls: DatabaseUrls, what: str) -> None:
    queries = {
        "function": "SELECT p.oid::regprocedure::text FROM pg_proc p,"
        " aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        " WHERE a.grantee = 0 AND p.pronamespace::regnamespace::text = ANY ($1)",
        "relation": "SELECT c.oid::regclass::text FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE a.grantee = 0 AND c.relnamespace::regnamespace::text = ANY ($1)",
        "schema": "SELECT n.nspname FROM pg_namespace n, aclexplode(n.nspacl) a"
        " WHERE a.grantee = 0 AND n.nspname = ANY ($1)",
    }
    async with connected(database_urls.admin) as admin:
        assert [row[0] for row in await admin.fetch(queries[what], OURS)] == []
