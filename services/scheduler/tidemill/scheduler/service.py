"""What the scheduler is made of."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tidemill.chassis.inbox import listen
from tidemill.chassis.javascript import JavaScript
from tidemill.chassis.loops import Waker, run
from tidemill.chassis.service import Frame, ServiceSpec, background
from tidemill.scheduler.clockwork import CLOCKWORK
from tidemill.scheduler.context import Context
from tidemill.scheduler.expressions import JAVASCRIPT, Expressions
from tidemill.scheduler.handlers import flow_handlers, handlers
from tidemill.scheduler.settings import SchedulerSettings
from tidemill.scheduler.walking.secrets import NoSecrets
from tidemill.scheduler.walking.walks import Walks
from tidemill.shared.catalog import SCHEDULER_FLOWS, SCHEDULER_WAKEUPS, Service

_FLOWS_AT_ONCE = 64


@asynccontextmanager
async def open_scheduler(frame: Frame) -> AsyncIterator[None]:
    """Listen and turn the clockwork; any number of schedulers may do so at once."""
    settings = frame.read(SchedulerSettings)
    async with JavaScript(JAVASCRIPT) as javascript:
        ctx = Context(
            chassis=frame.settings,
            settings=settings,
            database=frame.database,
            broker=frame.broker,
            outbox=frame.outbox,
            tick=Waker(),
            walks=Walks(
                frame.database,
                frame.broker,
                frame.outbox,
                Expressions(javascript),
                NoSecrets(),
                settings.job_result * 1024,
            ),
        )
        loops = [make(ctx) for make in CLOCKWORK]
        turning = [run(loop, frame.health, ctx.tick if loop.name == "tick" else None) for loop in loops]
        async with (
            listen(frame.broker, SCHEDULER_WAKEUPS, handlers(ctx)),
            listen(frame.broker, SCHEDULER_FLOWS, flow_handlers(ctx), prefetch=_FLOWS_AT_ONCE),
            background(*turning),
        ):
            yield


SERVICE = ServiceSpec(name=Service.SCHEDULER, settings=SchedulerSettings, open=open_scheduler)
