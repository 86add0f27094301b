"""What the scheduler is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidemill.chassis.inbox import listen
from tidemill.chassis.loops import Waker, run
from tidemill.chassis.service import Frame, ServiceSpec, background
from tidemill.scheduler.clockwork import CLOCKWORK
from tidemill.scheduler.context import Context
from tidemill.scheduler.handlers import handlers
from tidemill.scheduler.settings import SchedulerSettings
from tidemill.shared.catalog import SCHEDULER_WAKEUPS, Service


@asynccontextmanager
async def open_scheduler(frame: Frame) -> AsyncIterator[None]:
    """Listen and turn the clockwork; any number of schedulers may do so at once."""
    ctx = Context(
        chassis=frame.settings,
        settings=frame.read(SchedulerSettings),
        database=frame.database,
        broker=frame.broker,
        outbox=frame.outbox,
        tick=Waker(),
    )
    loops = [make(ctx) for make in CLOCKWORK]
    turning = [run(loop, frame.health, ctx.tick if loop.name == "tick" else None) for loop in loops]
    async with listen(frame.broker, SCHEDULER_WAKEUPS, handlers(ctx)), background(*turning):
        yield


SERVICE = ServiceSpec(name=Service.SCHEDULER, settings=SchedulerSettings, open=open_scheduler)
