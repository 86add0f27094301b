"""The worker's sign of life: one call renews all it holds and learns which runs to stop."""

import logging

from asyncpg import PostgresError

from tidemill.chassis.database import sqlstate
from tidemill.chassis.loops import Turn
from tidemill.chassis.telemetry import Metric, gauge
from tidemill.worker.context import Context
from tidemill.worker.store import queue

log = logging.getLogger(__name__)

_NOT_REGISTERED = "TM004"


async def run_once(ctx: Context, *, draining: bool) -> Turn:
    """Renew once. While Postgres is away the runs go on: the lease counts only time in which renewing was possible."""
    held, claimed = ctx.held.keys(), ctx.held.claimed()
    try:
        verdicts, said = await queue.renew(
            ctx.database, ctx.me.worker_run, held, ctx.chassis.beat, ctx.held.executed, draining
        )
    except PostgresError as error:
        if sqlstate(error) != _NOT_REGISTERED:
            raise
        log.warning("worker was forgotten and registers again")
        ctx.outbox.publish_soon(await queue.register(ctx.database, ctx.me))
        return Turn()
    gauge(Metric.SLOTS_BUSY, len(held))
    gauge(Metric.WARM_CHILDREN, len(ctx.sandbox.warm))
    ctx.outbox.publish_soon(said)
    ctx.held.judge(verdicts, claimed)
    return Turn(counts={"held": len(held)})
