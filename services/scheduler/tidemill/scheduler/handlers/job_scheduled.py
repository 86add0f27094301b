"""A job waits for its time."""

from tidemill.scheduler.context import Context
from tidemill.shared.messages import JobScheduled


async def handle(_: JobScheduled, ctx: Context) -> None:
    """Look again: this job may be due before the moment until which the tick sleeps."""
    ctx.tick.wake()
