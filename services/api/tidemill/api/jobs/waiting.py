"""Those who wait for jobs at this replica: a message says "look", the row says how it is.

    request_job ── job runs ── finish_job commits ── JobAnswered to this replica ── one look at all that were hinted
         │                                                │ lost                          │
    expect(id) registers first                            └── every 2 s, and after the queue stood up again:
                                                              one look at all that wait   ──► futures resolve

A look is one statement for any number of jobs, so waiting costs one read a job and one poll a replica. Followers are
woken by JobProgressed, for which this replica binds while somebody follows; their own patience bounds a lost one.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from uuid import UUID

from asyncpg import PostgresError

from tidemill.api.http.errors import NotFound, TooManyRequests
from tidemill.api.jobs import store
from tidemill.api.jobs.ports import Early, Ended
from tidemill.chassis.broker import Broker, BrokerUnavailable, Delivery, Subscription
from tidemill.chassis.database import Database
from tidemill.chassis.errors import DatabaseUnavailable
from tidemill.chassis.service import background
from tidemill.shared.catalog import replica_inbox
from tidemill.shared.ids import ReplicaId
from tidemill.shared.message import BrokenMessage, Envelope, open_envelope, read
from tidemill.shared.messages import JobAnswered, JobProgressed

log = logging.getLogger(__name__)

Look = Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, Ended | Early | None]]]
"""Returns those of the jobs that have ended or answered early, and None for those that are not there."""

POLL = timedelta(seconds=2)
MOST_STREAMS = 50
"""How many streams one person may hold open at one replica."""
LINGER = timedelta(seconds=5)
"""How long a followed job stays bound after its last follower left: most come back at once."""


@asynccontextmanager
async def waiting_room(
    database: Database, broker: Broker, replica: ReplicaId, *, poll: timedelta = POLL, linger: timedelta = LINGER
) -> AsyncIterator["WaitingRoom"]:
    """Open this replica's inbox and let clients wait for jobs for as long as the context lasts."""

    async def look(ids: Sequence[UUID]) -> Mapping[UUID, Ended | Early | None]:
        return await store.ended(database, ids)

    room = WaitingRoom(replica, look, poll=poll, linger=linger)
    inbox = broker.subscribe(replica_inbox(replica), room.hear, prefetch=256, on_ready=room.look_at_all)
    async with inbox as subscription:
        room.subscription = subscription
        async with background(room.run(), room.unbind_left()):
            yield room


class Follower:
    """One who looks at a job while it goes on."""

    def __init__(self) -> None:
        self._news = asyncio.Event()

    def tell(self) -> None:
        """There may be something new."""
        self._news.set()

    async def wait(self, longest: timedelta) -> bool:
        """Return True when there may be something new since the last call, and False after `longest`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest.total_seconds()):
                await self._news.wait()
        told = self._news.is_set()
        self._news.clear()
        return told


class WaitingRoom:
    """The waiters and followers of one replica."""

    def __init__(self, replica: ReplicaId, look: Look, *, poll: timedelta, linger: timedelta) -> None:
        self.subscription: Subscription | None = None
        self._replica = replica
        self._look = look
        self._poll = poll.total_seconds()
        self._linger = linger.total_seconds()
        self._waiting: defaultdict[UUID, set[asyncio.Future[Ended | Early]]] = defaultdict(set)
        self._early: set[asyncio.Future[Ended | Early]] = set()
        """Those of the waiters whom an answer satisfies that comes before the end."""
        self._requested: set[UUID] = set()
        """Those of them that are there: until then a job that is not found is still to come."""
        self._hinted: set[UUID] = set()
        self._hint_came = asyncio.Event()
        self._followers: dict[UUID, set[Follower]] = {}
        """Each key is bound; one with an empty set is so for a while only."""
        self._left: dict[UUID, float] = {}
        self._streams: Counter[str] = Counter()

    @property
    def replica(self) -> ReplicaId:
        """The address of this replica: what a job's `reply_to` has to be."""
        return self._replica

    @property
    def count(self) -> int:
        """How many jobs are waited for."""
        return len(self._waiting)

    def waiting_for(self, job_id: UUID) -> int:
        """How many wait for one job."""
        return len(self._waiting.get(job_id, ()))

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return self._streams.total()

    @contextmanager
    def expect(
        self, job_id: UUID, *, known: bool = False, early: bool = False
    ) -> Iterator[asyncio.Future[Ended | Early]]:
        """Wait for a job from now on, before it is requested; the future resolves when it has ended.

        One that is `known` was requested before and is looked at once now. What a flow answers `early` is enough.
        """
        answer: asyncio.Future[Ended | Early] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(answer)
        if early:
            self._early.add(answer)
        if known:
            self.requested(job_id, at_once=True)
        try:
            yield answer
        finally:
            answer.cancel()
            self._early.discard(answer)
            self._waiting[job_id].discard(answer)
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                self._requested.discard(job_id)

    def requested(self, job_id: UUID, *, at_once: bool = False) -> None:
        """Note that a job that is expected is there: if it is so no more, the future raises NotFound.

        One that may have ended `at_once`, of which nobody says so, is looked at now.
        """
        if job_id in self._waiting:
            self._requested.add(job_id)
        if at_once:
            self._hint(job_id)

    @asynccontextmanager
    async def follow(self, job_id: UUID) -> AsyncIterator[Follower]:
        """Hear of a job's progress for as long as the context lasts."""
        follower = Follower()
        bound = job_id in self._followers
        self._followers.setdefault(job_id, set()).add(follower)
        self._left.pop(job_id, None)
        try:
            if not bound and self.subscription is not None:
                await self.subscription.bind(f"follow.{job_id}")
            yield follower
        finally:
            self._followers[job_id].discard(follower)
            if not self._followers[job_id]:
                self._left[job_id] = time.monotonic()

    @contextmanager
    def stream(self, who: str) -> Iterator[None]:
        """Count one more open stream of somebody; raises TooManyRequests when they have their share."""
        if self._streams[who] >= MOST_STREAMS:
            raise TooManyRequests(f"You have {MOST_STREAMS} streams open already; close one first.")
        self._streams[who] += 1
        try:
            yield
        finally:
            self._streams[who] -= 1
            if not self._streams[who]:
                del self._streams[who]

    async def hear(self, delivery: Delivery) -> None:
        """Note what a message hints at."""
        try:
            self._note(open_envelope(delivery.body))
        except BrokenMessage as broken:
            with suppress(BrokerUnavailable):
                await delivery.bury(str(broken))
        else:
            await delivery.ack()

    async def look_at_all(self) -> None:
        """Look at every job that is waited for: messages may have been missed."""
        for job_id in self._waiting:
            self._hint(job_id)
        for followers in self._followers.values():
            for follower in followers:
                follower.tell()

    async def run(self) -> None:
        """Look at what was hinted at once, and at everything that is waited for every two seconds."""
        next_poll = time.monotonic() + self._poll
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_poll - time.monotonic())):
                    await self._hint_came.wait()
            if time.monotonic() >= next_poll:
                next_poll = time.monotonic() + self._poll
                self._hinted.update(self._waiting)
            self._hint_came.clear()
            ids, self._hinted = [each for each in self._hinted if each in self._waiting], set()
            if ids:
                await self._answer(ids)

    async def unbind_left(self) -> None:
        """Unbind from jobs that nobody has followed for a while."""
        while True:
            await asyncio.sleep(self._linger)
            long_ago = time.monotonic() - self._linger
            for job_id in [each for each, since in self._left.items() if since <= long_ago]:
                if self._left.pop(job_id, None) is not None and self.subscription is not None:
                    del self._followers[job_id]
                    await self.subscription.unbind(f"follow.{job_id}")

    def _note(self, envelope: Envelope) -> None:
        if envelope.type == JobAnswered.TYPE:
            self._hint(read(envelope, JobAnswered).job_id)
        elif envelope.type == JobProgressed.TYPE:
            for follower in self._followers.get(read(envelope, JobProgressed).job_id, ()):
                follower.tell()
        else:
            raise BrokenMessage(f"nobody here waits for {envelope.type}")

    def _hint(self, job_id: UUID) -> None:
        if job_id in self._waiting:
            self._hinted.add(job_id)
            self._hint_came.set()

    async def _answer(self, ids: Sequence[UUID]) -> None:
        # Before the look: what is requested meanwhile may be missing from it.
        requested = self._requested.intersection(ids)
        try:
            ended = await self._look(ids)
        except DatabaseUnavailable:
            # They are looked at again with the next poll.
            log.warning("looking at awaited jobs failed", extra={"jobs": len(ids)})
            return
        except PostgresError:
            log.exception("looking at awaited jobs failed", extra={"jobs": len(ids)})
            return
        for job_id, how in ended.items():
            for answer in self._waiting.get(job_id, ()):
                if answer.done():
                    continue
                if how is not None:
                    if answer in self._early and how.early is not None:
                        answer.set_result(Early(how.early))
                    elif isinstance(how, Ended):
                        answer.set_result(how)
                elif job_id in requested:
                    answer.set_exception(NotFound(f"The job {job_id} was deleted before it had a result."))
