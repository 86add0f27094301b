"""What the worker is made of."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from uuid import uuid4

from tidemill.chassis.errors import DatabaseUnavailable, StartRefused
from tidemill.chassis.inbox import listen
from tidemill.chassis.loops import Loop, run
from tidemill.chassis.service import Frame, ServiceSpec, background
from tidemill.shared.catalog import Service, worker_inbox
from tidemill.shared.script import FLOW_TAG
from tidemill.worker import beat, descriptors
from tidemill.worker.context import Context
from tidemill.worker.environments.environments import Environments
from tidemill.worker.handlers import handlers
from tidemill.worker.held import Halt, Held
from tidemill.worker.network import endpoints
from tidemill.worker.sandbox.execution import Room
from tidemill.worker.sandbox.pool import Sandbox
from tidemill.worker.sandbox.settings import SandboxSettings, SandboxUnavailable
from tidemill.worker.settings import WorkerSettings
from tidemill.worker.sharing import Sharing
from tidemill.worker.slots import Slots
from tidemill.worker.store import queue
from tidemill.worker.store.queue import Identity
from tidemill.worker.store.scripts import Sources

log = logging.getLogger(__name__)

_LAST_CALLS = 5


@asynccontextmanager
async def open_worker(frame: Frame) -> AsyncIterator[None]:
    """Take jobs and run them; on the way out give running ones their grace and hand back what can't finish."""
    settings = frame.read(WorkerSettings)
    if FLOW_TAG in settings.worker_tags:
        raise StartRefused(
            f"TIDEMILL_WORKER_TAGS names the tag {FLOW_TAG}, which no worker serves: the scheduler runs flows. "
            "Leave it out."
        )
    descriptors.raise_limit()
    async with _sandbox(settings) as sandbox:
        ctx = Context(
            chassis=frame.settings,
            settings=settings,
            me=_identity(settings, sandbox.isolation),
            database=frame.database,
            broker=frame.broker,
            outbox=frame.outbox,
            sandbox=sandbox,
            sources=Sources(frame.database),
            environments=Environments(settings, frame.settings.home, frame.environ, sandbox.tier),
            held=Held(),
            sharing=Sharing(sandbox, frame.database, settings.job_disk_bytes),
        )
        slots = Slots(ctx)
        draining = asyncio.Event()
        beating = Loop(
            name="beat", every=frame.settings.beat, turn=lambda: beat.run_once(ctx, draining=draining.is_set())
        )
        await queue.register(frame.database, ctx.me)
        inbox = listen(frame.broker, worker_inbox(str(ctx.me.worker_run)), handlers(ctx.held))
        async with background(run(beating, frame.health), ctx.environments.tend(), ctx.sharing.tend()), inbox:
            await slots.open()
            log.info("worker takes jobs", extra={"worker": ctx.me.name, "isolation": ctx.me.isolation})
            try:
                yield
            finally:
                draining.set()
                await slots.close()
                await _drain(ctx)
        with suppress(DatabaseUnavailable, TimeoutError):
            await asyncio.wait_for(queue.retire(frame.database, ctx.me.worker_run), _LAST_CALLS)


async def _drain(ctx: Context) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(ctx.held.wait_until_empty(), ctx.settings.worker_drain.total_seconds())
        return
    log.info("jobs go back into the line", extra={"held": len(ctx.held.keys())})
    ctx.held.end_all(Halt.DRAINED)
    with suppress(TimeoutError):
        await asyncio.wait_for(ctx.held.wait_until_empty(), _LAST_CALLS)


@asynccontextmanager
async def _sandbox(settings: WorkerSettings) -> AsyncIterator[Sandbox]:
    try:
        async with Sandbox(
            SandboxSettings(
                isolation=settings.isolation,
                job_uid=settings.job_uid,
                idle_children=settings.idle_children,
                room=Room(
                    tmp_bytes=settings.job_disk_bytes,
                    memory_bytes=settings.job_memory_bytes,
                    processes=settings.job_processes,
                    cpu_percent=settings.job_cpu,
                ),
                warm_children=settings.warm_children,
                warm_memory_bytes=settings.warm_memory_bytes,
                warm_idle=settings.warm_idle,
                network=settings.job_network,
                relays=endpoints((settings.api_url, settings.base_url or settings.api_url)),
            )
        ) as sandbox:
            yield sandbox
    except SandboxUnavailable as error:
        raise StartRefused(str(error)) from error


def _identity(settings: WorkerSettings, isolation: str) -> Identity:
    host = socket.gethostname()
    return Identity(
        worker_run=uuid4(),
        name=f"wk-{settings.worker_group}-{host}-{secrets.token_hex(3)}",
        instance=f"{host}-{os.getpid()}",
        group=settings.worker_group,
        tags=settings.worker_tags,
        slots=settings.worker_slots,
        isolation=isolation,
        version=version("tidemill-worker"),
    )


SERVICE = ServiceSpec(name=Service.WORKER, settings=WorkerSettings, open=open_worker)
