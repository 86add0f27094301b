"""Queued rows whose tickets were lost get new ones: the row is the truth and a ticket only a hint."""

from collections.abc import Sequence

from tidemill.scheduler.context import Context
from tidemill.scheduler.store import queue
from tidemill.shared.catalog import tickets

_AT_ONCE = 1000


async def run_once(ctx: Context, tags: Sequence[str]) -> int:
    """Write new tickets for those tags whose queue holds fewer than there are queued rows; return how many tags."""
    rehinted = 0
    for tag in tags:
        ready = await ctx.broker.ready_count(tickets(tag))
        if ready is None:
            # No queue for this tag yet, or no broker: a worker that announces the tag brings us back here.
            ready = 0
        said = await queue.rehint(ctx.database, tag, ready, _AT_ONCE)
        ctx.outbox.publish_soon(said)
        rehinted += said != "[]"
    return rehinted
