"""One installation under attack: how to hurt it, what it was asked for, and whether it kept its word.

    async with site.clients() as load:
        site.kill(Service.WORKER)
        await site.recovered("the worker was killed")
    await site.kept(load)

The ledger is what the jobs' own code printed, claim by claim: their sandbox leaves them no other way out.
"""

import asyncio
import json
import os
import re
import signal
import sys
import time
import uuid
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from tests.chaos import faultpoints
from tests.chaos.load import Client, Load, client, clients
from tests.support.installation import Installation, Shape, installation
from tests.support.waiting import eventually
from tests.support.wheels import only_from, wheels_of
from tidemill.allinone.logins import service_urls
from tidemill.allinone.postgres import PostgresAddress, PostgresNode
from tidemill.allinone.rabbitmq import RabbitMqNode
from tidemill.audit.command import verified
from tidemill.shared.catalog import Service

SLOTS = 4
WORK, ONE_AT_A_TIME, ONE_SECOND = "u/admin/work", "u/admin/one_at_a_time", "u/admin/one_second"
CONSUMER_TIMEOUT = timedelta(seconds=4)
_IMPATIENT = f"""\
[{{rabbit, [{{consumer_timeout, {CONSUMER_TIMEOUT // timedelta(milliseconds=1)}}}, {{channel_tick_interval, 1000}}]}}].
"""
ROOT = Path(__file__).parents[2]

_SCRIPT = """\
import time

def main(seconds: float = 0):
    print("begun", flush=True)
    time.sleep(seconds)
    print("ended", flush=True)
    return "done"
"""
_LOG = "SELECT job_id, claim_no FROM queue.log_chunk WHERE job_id = ANY ($1) GROUP BY 1, 2"
_BEGUN = f"{_LOG} HAVING string_agg(text, '' ORDER BY seq) ~ '(?n)^begun$'"
_ENDED = f"{_LOG} HAVING string_agg(text, '' ORDER BY seq) ~ '(?n)^ended$'"
_DIED = re.compile(r"^(\w+) +\| died \((.+)\)")
_PATIENCE = 45

RECOVERIES: list[tuple[str, str, float]] = []
"""Shape, fault, and the seconds until a job that was asked for after it had ended."""
FINDINGS: list[str] = []
"""What a case counted, for the summary."""


@dataclass(frozen=True)
class Account:
    """What became of the jobs of one case."""

    jobs: int
    outcomes: Counter[str]
    claims: Counter[int]
    begun: Counter[uuid.UUID]
    """How often the job's own code has begun, as far as its log tells."""

    @property
    def rerun(self) -> int:
        """How many were claimed more than once."""
        return sum(count for claims, count in self.claims.items() if claims > 1)


class Site:
    """An installation with servers of its own, so that they can be stopped and started."""

    def __init__(self, shape: Shape, home: Path) -> None:
        self.shape = shape
        self.home = home
        self.postgres = PostgresNode(home / "p")
        self.rabbit = RabbitMqNode(home / "r") if shape == "distributed" else None
        self.kills: Counter[str] = Counter()
        self._faults = home / "faults"
        self._database: PostgresAddress | None = None
        self._tidemill: Installation | None = None
        self._running = AsyncExitStack()
        self._hurt = time.monotonic()

    async def open(self) -> None:
        """Start the servers and the installation, and save the script that all jobs run."""
        self._faults.mkdir()
        faultpoints.install(self.home / "site")
        wheels_of(self.home / "wheels", "wmill")
        self._database = await self.postgres.start()
        if self.rabbit is not None:
            folder = self.home / "r" / "rabbitmq"
            folder.mkdir(parents=True)
            folder.joinpath("advanced.config").write_text(_IMPATIENT)
            await self.rabbit.start()
        await self._start()
        await self.tidemill.save_script(WORK, _SCRIPT)
        await self.tidemill.save_script(ONE_AT_A_TIME, _SCRIPT, concurrent_limit=1)
        await self.tidemill.save_script(ONE_SECOND, _SCRIPT, timeout=1)

    async def close(self) -> None:
        """Stop everything."""
        try:
            await self._running.aclose()
        finally:
            if self.rabbit is not None:
                await self.rabbit.stop()
            await self.postgres.stop()

    @property
    def database(self) -> PostgresAddress:
        """Where the database is."""
        assert self._database is not None
        return self._database

    @property
    def broker(self) -> RabbitMqNode:
        """The RabbitMQ of a distributed installation."""
        assert self.rabbit is not None
        return self.rabbit

    @property
    def tidemill(self) -> Installation:
        """The installation that runs now."""
        assert self._tidemill is not None
        return self._tidemill

    async def _start(self) -> None:
        environ = {
            "TIDEMILL_DATABASE_URL": self.database.migrator_dsn,
            "TIDEMILL_WORKER_SLOTS": str(SLOTS),
            "TIDEMILL_WORKER_DRAIN": "1s",
            "TIDEMILL_AUDIT_ANCHOR": "1s",
            "PYTHONPATH": f"{self.home / 'site'}{os.pathsep}{ROOT}",
            faultpoints.FOLDER: str(self._faults),
            **only_from(self.home / "wheels"),
        }
        if self.rabbit is not None:
            environ |= {f"TIDEMILL_{service.upper()}_AMQP_URL": self.rabbit.url_of(service) for service in Service}
        home = self.home / "t"
        self._tidemill = await self._running.enter_async_context(installation(self.shape, environ, home))

    # --- How to hurt it

    def arm(self, fault: str, blow: signal.Signals = signal.SIGKILL) -> None:
        """Have a service struck at `<service>.<before|after>.<what it calls>`, once."""
        draft = self._faults / ".draft"
        draft.write_text(str(int(blow)))
        draft.rename(self._faults / fault)

    async def struck(self, fault: str) -> int:
        """Wait until the fault has struck, and return the process; one that was killed is awaited and counted."""

        async def look() -> Path | None:
            return next(self._faults.glob(f"{fault}.*"), None)

        found = await eventually(look, _PATIENCE)
        assert found is not None
        blow = int(found.read_text())
        self.hurts()
        found.unlink()
        pid = int(found.suffix.removeprefix("."))
        if blow == signal.SIGKILL:
            await self._count_death(fault.partition(".")[0])
        return pid

    def hurts(self) -> None:
        """Note that a fault strikes now, for the time that it takes to recover."""
        self._hurt = time.monotonic()

    async def kill(self, *services: Service) -> None:
        """kill -9 of services; of the whole process where all are in one."""
        victims = {(await self.process_of(service)).pid for service in services}
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        self.hurts()
        for service in services if self.shape == "distributed" else services[:1]:
            await self._count_death(service)

    def wake(self, pid: int) -> None:
        """Let a frozen process go on."""
        os.kill(pid, signal.SIGCONT)

    async def _count_death(self, service: str) -> None:
        if self.shape == "distributed":
            self.kills[service] += 1
            return
        await self.tidemill.process.wait()
        await self._running.aclose()
        await self._start()

    async def process_of(self, service: Service) -> psutil.Process:
        """Return the process that the service runs in, as soon as its supervisor has started it again."""
        whole = psutil.Process(self.tidemill.process.pid)

        async def look() -> psutil.Process | None:
            for each in whole.children():
                with suppress(psutil.NoSuchProcess):
                    if f"tidemill.{service}" in each.cmdline():
                        return each
            return None

        found = whole if self.shape == "all-in-one" else await eventually(look, _PATIENCE)
        assert found is not None
        return found

    @asynccontextmanager
    async def another(self, service: Service, **settings: str) -> AsyncIterator[Process]:
        """Run one more replica of a service, with other settings; it has to end well when it is asked to."""
        known = (await self.process_of(service)).environ()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", f"tidemill.{service}"),
            env={**known, **{f"TIDEMILL_{name.upper()}": value for name, value in settings.items()}},
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            ended = await asyncio.wait_for(process.wait(), _PATIENCE)
        assert ended == 0

    # --- What it is asked for

    def _address(self) -> tuple[str, str]:
        return self.tidemill.url, self.tidemill.token

    def clients(self, path: str = WORK, *, count: int = 4, pause: float = 0.2) -> AbstractAsyncContextManager[Load]:
        """Let several clients ask for jobs for the block."""
        return clients(self._address, path, count=count, pause=pause)

    async def ask(self, load: Load, path: str = WORK, query: Mapping[str, Any] | None = None, **args: Any) -> uuid.UUID:
        """Ask for one job and return its id."""
        async with self.client() as one:
            return uuid.UUID(await one.ask(load, path, args, **(query or {})))

    async def ask_flow(self, load: Load, path: str, **args: Any) -> uuid.UUID:
        """Ask for one run of a flow and return its id."""
        async with self.client() as one:
            return uuid.UUID(await one.ask(load, path, args, run="f"))

    def client(self) -> AbstractAsyncContextManager[Client]:
        """Open a client."""
        return client(self._address)

    async def recovered(self, fault: str) -> None:
        """Wait until a job that is asked for now has its end, and note how long that was after the fault."""
        await self.ended(await self.ask(Load()))
        RECOVERIES.append((self.shape, fault, time.monotonic() - self._hurt))

    # --- What can be seen

    async def look(self, query: str, *values: Any) -> list[asyncpg.Record]:
        """Ask the database as its superuser, as soon as it answers."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                try:
                    connection = await asyncpg.connect(**self.database.admin, timeout=5)
                    try:
                        return await connection.fetch(query, *values)
                    finally:
                        await connection.close(timeout=5)
                except (
                    OSError,
                    asyncpg.PostgresConnectionError,
                    asyncpg.CannotConnectNowError,
                    asyncpg.InterfaceError,
                ):
                    await asyncio.sleep(0.05)

    async def value(self, query: str, *values: Any) -> Any:
        """Return the first value of the answer."""
        rows = await self.look(query, *values)
        return rows[0][0] if rows else None

    async def until(self, query: str, *values: Any) -> Any:
        """Wait until the first value of the answer is true, and return it."""
        return await eventually(lambda: self.value(query, *values), _PATIENCE, 0.05)

    async def until_accepted(self, load: Load, count: int) -> None:
        """Wait until so many requests have been acknowledged."""

        async def enough() -> bool:
            return len(load.accepted) >= count

        await eventually(enough, _PATIENCE)

    async def says(self, text: str) -> None:
        """Wait until a process of ours has logged this."""

        async def look() -> bool:
            return any(text in line for line in self.tidemill.output)

        await eventually(look, _PATIENCE)

    async def running(self, job: uuid.UUID) -> None:
        """Wait until the job's own code has begun."""
        await self.until(f"SELECT count(*) FROM ({_BEGUN}) begun", [job])

    async def ended(self, job: uuid.UUID) -> asyncpg.Record:
        """Wait until the job's end is recorded, and return it."""
        await self.until("SELECT count(*) FROM queue.finished_job WHERE id = $1", job)
        return (await self.look("SELECT * FROM queue.finished_job WHERE id = $1", job))[0]

    async def cancel(self, job: uuid.UUID) -> None:
        """Cancel a job as its user does."""
        await self.tidemill.call("POST", f"/w/:w/jobs_u/queue/cancel/{job}", {})

    # --- Whether it kept its word

    async def kept(self, load: Load) -> Account:
        """Wait until nothing waits any more and return the account, having found no fault in it."""
        jobs = load.jobs
        assert jobs
        assert len(set(jobs)) == len(jobs), "two requests were given one job"
        await self._nothing_waits(jobs)
        account = await self._account(jobs)
        assert account.outcomes.total() == len(jobs), "a job has no outcome, or more than one"
        # An api that died between commit and answer is asked again under the same key: no second job.
        requests = await self.value("SELECT count(*) FROM queue.request_key WHERE job_id = ANY ($1)", jobs)
        assert requests == len(jobs)
        await self._nothing_is_held()
        await self._all_is_audited(jobs)
        await self._all_slots_work()
        self._nobody_died_by_himself()
        return account

    async def flows_kept(self, load: Load, result: Any, steps: Mapping[str, int]) -> None:
        """Wait until nothing waits any more; each flow has come to this, each step has this many recorded ends."""
        flows = load.jobs
        await self._nothing_waits(flows)
        rows = await self.look("SELECT outcome, result FROM queue.finished_job WHERE id = ANY ($1)", flows)
        assert [(row["outcome"], json.loads(row["result"])) for row in rows] == [("success", result)] * len(flows)
        below = "FROM queue.job j JOIN queue.finished_job f USING (id) WHERE j.root_job = $1 AND j.kind = 'flowscript'"
        for flow in flows:
            recorded = await self.look(f"SELECT j.step_id, count(*) {below} AND f.outcome = 'success' GROUP BY 1", flow)
            assert {row["step_id"]: row["count"] for row in recorded} == steps
            assert await self.value("SELECT count(*) FROM queue.live_job WHERE root_job = $1", flow) == 0
        await self._nothing_is_held()
        await self._all_is_audited(flows)
        self._nobody_died_by_himself()

    async def _nothing_waits(self, jobs: list[uuid.UUID]) -> None:
        unfinished = "SELECT array_agg(id || ' ' || state) FROM queue.live_job WHERE id = ANY ($1)"

        async def none() -> bool:
            left = await self.value(unfinished, jobs)
            if left:
                raise _Waits(str(left))
            return True

        await _patiently(none)

    async def _nothing_is_held(self) -> None:
        await self.until("SELECT count(*) = 0 FROM bus.outbox")
        await self.until("SELECT count(*) = 0 FROM queue.live_job WHERE holds_limit")

    async def _all_is_audited(self, jobs: list[uuid.UUID]) -> None:
        spans = [str(job) for job in jobs]
        entries = "FROM audit.entry WHERE span = ANY ($1) AND action_kind = 'Execute'"
        await self.until(f"SELECT count(DISTINCT span) = $2 {entries}", spans, len(jobs))
        assert await self.value(f"SELECT count(*) {entries}", spans) == len(jobs)
        url = service_urls(self.database.migrator_dsn)[Service.AUDIT]
        assert await verified({"TIDEMILL_AUDIT_DATABASE_URL": url, "TIDEMILL_HOME": str(self.home / "t")}, None)

    async def _all_slots_work(self) -> None:
        load = Load()
        jobs = [await self.ask(load, seconds=600) for _ in range(SLOTS)]
        for job in jobs:
            await self.running(job)
        for job in jobs:
            await self.cancel(job)
        for job in jobs:
            assert (await self.ended(job))["outcome"] == "canceled"

    async def _account(self, jobs: list[uuid.UUID]) -> Account:
        rows = await self.look(
            "SELECT id, outcome, claims, claim_key FROM queue.finished_job WHERE id = ANY ($1)", jobs
        )
        begun = Counter(row["job_id"] for row in await self.look(_BEGUN, jobs))
        ended = {(row["job_id"], row["claim_no"]) for row in await self.look(_ENDED, jobs)}
        for row in rows:
            assert begun[row["id"]] <= row["claims"], "a job ran more often than it was claimed"
            if row["outcome"] == "success":
                assert (row["id"], row["claims"]) in ended, "a job succeeded by a run that never came to its end"
        return Account(
            jobs=len(jobs),
            outcomes=Counter(row["outcome"] for row in rows),
            claims=Counter(row["claims"] for row in rows),
            begun=begun,
        )

    def _nobody_died_by_himself(self) -> None:
        assert self.tidemill.process.returncode is None
        deaths = [match for line in self.tidemill.output if (match := _DIED.match(line))]
        assert Counter(match[1] for match in deaths) == self.kills, "\n".join(self.tidemill.output[-60:])
        assert {match[2] for match in deaths} <= {"SIGKILL"}


class _Waits(AssertionError):
    """Something still waits."""


async def _patiently(look: Any) -> None:
    deadline = asyncio.get_running_loop().time() + _PATIENCE
    while True:
        try:
            await look()
        except _Waits:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)
        else:
            return
