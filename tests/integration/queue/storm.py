"""A storm over the queue: many workers, schedulers and impatient users at once, on a network that loses answers.

    requesters ──▶ jobs ◀── workers: claim, print, beat, finish, drain, crash, start again as somebody else
    cancelers ───────┘ └─── schedulers: tick with leases of milliseconds

Every call may be applied and its answer lost; then it is repeated with the same key, sometimes while the first one is
still going on. What must hold after any storm is in `weathered`; what must hold at each instant, in `watch`.
"""

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TypeVar

import asyncpg

from tests.support.queue import ROOT_CANCELED, TAKEN, Claim, Queue, Request, a_job

TAGS = ("python3", "bash")
PATIENCE = 40
"""Seconds after which a storm that has not passed never will."""
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How bad it gets; the shares are between 0 and 1."""

    seed: int
    jobs: int = 40
    workers: int = 6
    schedulers: int = 2
    ceilings: Sequence[int] = (1, 2)
    limited: float = 0.5
    delayed: float = 0.2
    children: float = 0.2
    lost_answers: float = 0.1
    crashes: float = 0.05
    drains: float = 0.05
    cancels: float = 0.1
    lease: timedelta = timedelta(milliseconds=150)


@dataclass
class Storm:
    """One storm and what was seen of it from outside."""

    queue: Queue
    weather: Weather
    requested: list[uuid.UUID] = field(default_factory=list)
    """Jobs that the queue has taken."""
    done: Counter[uuid.UUID] = field(default_factory=Counter)
    """How often a job's end was answered with `done`."""
    ended_by: dict[uuid.UUID, uuid.UUID] = field(default_factory=dict)
    """The claim that was told that it has ended the job."""
    claims: dict[uuid.UUID, set[uuid.UUID]] = field(default_factory=dict)
    deadlocks: int = 0
    samples: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.weather.seed)
        self._asking_is_over = asyncio.Event()
        self._all_is_over = asyncio.Event()

    async def pass_over(self) -> None:
        """Return when every job has ended."""
        weather = self.weather
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
            for _ in range(weather.workers):
                tasks.create_task(self._work())
            for _ in range(weather.schedulers):
                tasks.create_task(self._schedule())
            tasks.create_task(self._cancel())
            tasks.create_task(self._watch())
            async with asyncio.TaskGroup() as asking:
                for share in range(4):
                    asking.create_task(self._ask(weather.jobs // 4 + (share < weather.jobs % 4)))
            self._asking_is_over.set()

    # Those who ask.

    async def _ask(self, count: int) -> None:
        for _ in range(count):
            asked = self._a_request()
            try:
                await self._call(partial(self.queue.request, asked))
            except asyncpg.PostgresError as refused:
                if refused.sqlstate == ROOT_CANCELED:
                    continue
                # An id that nobody else knows can only be taken by our own first try.
                if refused.sqlstate != TAKEN:
                    raise
            self.requested.append(uuid.UUID(str(asked["id"])))

    def _a_request(self) -> Request:
        weather, some = self.weather, self._random
        asked = a_job(
            tag=some.choice(TAGS),
            priority=some.choice((0, 0, 0, 5)),
            created_by=f"user{some.randrange(3)}",
        )
        if some.random() < 0.2:
            asked |= {"id": uuid.UUID(int=some.getrandbits(128)), "chosen_id": True}
        if some.random() < weather.limited:
            number = some.randrange(len(weather.ceilings))
            asked |= {"limit_key": f"key{number}", "limit_ceiling": weather.ceilings[number]}
        if some.random() < weather.delayed:
            asked |= {"due_in_ms": some.randrange(1, 80)}
        if self.requested and some.random() < weather.children:
            asked |= {"parent_job": some.choice(self.requested)}
        return asked

    async def _cancel(self) -> None:
        while not self._all_is_over.is_set():
            if self.requested and self._random.random() < self.weather.cancels:
                job, force = self._random.choice(self.requested), self._random.random() < 0.5
                canceled = await self._call(partial(self.queue.cancel, job, force=force))
                assert canceled.answer in ("canceled", "requested", "finished")
            await asyncio.sleep(0.005)

    # Those who work.

    async def _work(self) -> None:
        run = await self.queue.start_worker(*TAGS, run=uuid.uuid4())
        while not self._all_is_over.is_set():
            key = uuid.uuid4()
            claim = await self._call(partial(self.queue.claim, *TAGS, run=run, key=key))
            if claim is None:
                await self.queue.renew(run=run, beat=timedelta(milliseconds=50))
                await asyncio.sleep(0.005)
                continue
            self.claims.setdefault(claim.job_id, set()).add(key)
            fate = self._random.random()
            if fate < self.weather.crashes:
                run = await self.queue.start_worker(*TAGS, run=uuid.uuid4())
            elif fate < self.weather.crashes + self.weather.drains:
                await self._call(partial(self.queue.release, claim))
            else:
                await self._run(claim)

    async def _run(self, claim: Claim) -> None:
        for seq in range(self._random.randrange(3)):
            if not await self._call(partial(self.queue.append_log, claim, seq, f"{seq} ")):
                return
        if self._random.random() < 0.1:
            # Hangs until its lease is over, and comes back.
            await asyncio.sleep(self.weather.lease.total_seconds() * 1.5)
        verdicts = await self._call(partial(self.queue.renew, claim, run=claim.run))
        if verdicts[claim.key] == "drop":
            # It does not listen and finishes all the same; the fence holds.
            assert await self._finish(claim, "success") == "stale"
            return
        answer = await self._finish(claim, "canceled" if verdicts[claim.key] == "cancel" else "success")
        assert answer in ("done", "already_done", "stale")

    async def _finish(self, claim: Claim, outcome: str) -> str:
        async def say() -> str:
            answer = await self.queue.finish(claim, outcome, str(claim.key))
            self.done[claim.job_id] += answer == "done"
            if answer in ("done", "already_done"):
                assert self.ended_by.setdefault(claim.job_id, claim.key) == claim.key
            return answer

        return await self._call(say)

    # Those who look after it.

    async def _schedule(self) -> None:
        while not self._all_is_over.is_set():
            await self._call(partial(self.queue.tick, lease=self.weather.lease))
            await asyncio.sleep(0.01)
            if self._asking_is_over.is_set() and not await self.queue.look.fetchval(
                "SELECT EXISTS (SELECT FROM queue.live_job)"
            ):
                self._all_is_over.set()

    async def _watch(self) -> None:
        """Check at each instant that no key has more holders than its ceiling, and that nobody passes without one."""
        while not self._all_is_over.is_set():
            self.samples += 1
            for row in await self.queue.look.fetch(_HOLDERS):
                assert row["holders"] <= row["ceiling"], f"{row['limit_key']} has {row['holders']} holders"
                assert row["without_slot"] == 0

    # The network between them.

    async def _call(self, call: Callable[[], Awaitable[R]]) -> R:
        """Return the answer of a call that may be applied several times, each but the last with its answer lost."""
        while True:
            lost = self._random.random() < self.weather.lost_answers
            try:
                if lost and self._random.random() < 0.5:
                    # Given up in the middle: nobody knows whether it was done.
                    await asyncio.wait_for(call(), self._random.random() * 0.01)
                else:
                    answer = await call()
                    if not lost:
                        return answer
            except TimeoutError:
                continue
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                self.deadlocks += 1


_HOLDERS = """
    SELECT limit_key, max(limit_ceiling) AS ceiling, count(*) FILTER (WHERE holds_limit) AS holders,
           count(*) FILTER (WHERE state IN ('queued', 'running') AND NOT holds_limit) AS without_slot
    FROM queue.live_job WHERE limit_key IS NOT NULL GROUP BY limit_key
"""


async def weathered(storm: Storm) -> None:
    """Check what must hold after any storm."""
    look = storm.queue.look
    ended = await look.fetch("SELECT id, outcome, claim_key, claims, result FROM queue.finished_job")
    assert Counter(row["id"] for row in ended) == Counter(storm.requested)
    assert max(storm.done.values(), default=0) <= 1
    assert {row["id"]: row["claim_key"] for row in ended if row["claim_key"]} == storm.ended_by
    for row in ended:
        # What is stored is what the one claim has said that was told so, and nobody ran it more often than is known.
        assert (row["outcome"] == "success") <= (row["result"] == f'"{row["claim_key"]}"')
        assert len(storm.claims.get(row["id"], ())) <= row["claims"]
        assert row["outcome"] in ("success", "canceled", "failure")
    assert await look.fetchval("SELECT count(*) FROM queue.live_job") == 0
    assert storm.deadlocks == 0
    assert storm.samples > 0
