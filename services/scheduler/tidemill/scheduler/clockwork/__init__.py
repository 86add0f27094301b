"""What happens again and again, one file a task."""

from collections.abc import Callable
from datetime import timedelta

from tidemill.chassis.loops import Loop
from tidemill.scheduler.clockwork import prune, tick
from tidemill.scheduler.clockwork.measure import Measure
from tidemill.scheduler.context import Context

CLOCKWORK: tuple[Callable[[Context], Loop], ...] = (
    lambda ctx: Loop(name="tick", every=timedelta(seconds=1), turn=lambda: tick.run_once(ctx)),
    lambda ctx: Loop(name="measure", every=timedelta(seconds=15), turn=Measure(ctx).run_once),
    lambda ctx: Loop(
        name="prune", every=timedelta(hours=1), turn=lambda: prune.run_once(ctx), patience=timedelta(hours=3)
    ),
)
