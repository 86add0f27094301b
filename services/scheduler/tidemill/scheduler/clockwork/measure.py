"""How much waits and for how long, for the metrics."""

from datetime import timedelta

from tidemill.chassis.loops import Turn
from tidemill.chassis.telemetry import Metric, gauge
from tidemill.scheduler.context import Context
from tidemill.scheduler.store import queue


class Measure:
    """Remembers which tags it has reported, so that one whose line is empty is reported as empty."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._tags: set[str] = set()

    async def run_once(self) -> Turn:
        """Report each tag's backlog."""
        backlog = {each.tag: each for each in await queue.backlog(self._ctx.database)}
        self._tags |= backlog.keys()
        for tag in self._tags:
            waiting = backlog.get(tag)
            gauge(Metric.JOBS_WAITING, waiting.waiting if waiting else 0, tag=tag)
            oldest = waiting.oldest if waiting else timedelta(0)
            gauge(Metric.OLDEST_WAITING, oldest.total_seconds(), tag=tag)
        return Turn(counts={"waiting": sum(each.waiting for each in backlog.values())})
