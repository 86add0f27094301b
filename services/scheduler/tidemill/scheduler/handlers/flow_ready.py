"""A flow may go on."""

from tidemill.scheduler.context import Context
from tidemill.shared.messages import FlowReady


async def handle(message: FlowReady, ctx: Context) -> None:
    """Walk it as far as it can go; its rows say what has happened."""
    await ctx.walks.walk(message.flow_id)
