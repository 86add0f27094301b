"""The scheduler's one statement a second: what is due, who is lost, what is stranded, which tickets may be lost."""

import logging
from datetime import timedelta

from tidemill.chassis.loops import Turn
from tidemill.chassis.outbox import hint_of
from tidemill.scheduler.clockwork import redispatch
from tidemill.scheduler.context import Context
from tidemill.scheduler.store import queue
from tidemill.shared.messages import JobAnswered, JobProgressed
from tidemill.shared.messages.jobs import Progress

log = logging.getLogger(__name__)

_AT_ONCE = 1000


async def run_once(ctx: Context) -> Turn:
    """Dispatch, rescue, relay and redispatch, and come back when the next job is due."""
    tick = await queue.tick(ctx.database, ctx.database.reachable_for, ctx.chassis.lease, ctx.chassis.beat, _AT_ONCE)
    ctx.outbox.publish_soon(tick.said)
    for ended in tick.ended:
        if ended.reply_to is not None:
            ctx.broker.hint(hint_of(JobAnswered(job_id=ended.job_id), "/tidemill/scheduler", replica=ended.reply_to))
        ctx.broker.hint(hint_of(JobProgressed(job_id=ended.job_id, what=Progress.ENDED), "/tidemill/scheduler"))
    if tick.requeued or tick.failed:
        log.warning("jobs of silent workers", extra={"requeued": tick.requeued, "failed": tick.failed})
    relayed = await ctx.outbox.relay(tick.stranded) if tick.stranded != "[]" else 0
    rehinted = await redispatch.run_once(ctx, tick.stale_tags)
    busy = tick.dispatched >= _AT_ONCE or tick.requeued >= _AT_ONCE
    return Turn(
        counts={
            "dispatched": tick.dispatched,
            "requeued": tick.requeued,
            "failed": tick.failed,
            "relayed": relayed,
            "rehinted": rehinted,
        },
        next_in=timedelta(0) if busy else tick.next_due_in,
    )
