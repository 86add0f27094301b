"""A worker listens to new tags."""

from tidemill.scheduler.clockwork import redispatch
from tidemill.scheduler.context import Context
from tidemill.shared.messages import WorkerAnnounced


async def handle(message: WorkerAnnounced, ctx: Context) -> None:
    """Give tickets to rows that waited for a worker of these tags: theirs were dropped as unroutable."""
    await redispatch.run_once(ctx, message.tags)
