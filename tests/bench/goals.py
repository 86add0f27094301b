"""What we aim for on two cores with everything on: durable rows, bus, sandbox, logs."""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from tests.bench.figures import TIMES, Measured
from tests.support.installation import SHAPES, Shape

ALL_IN_ONE, DISTRIBUTED = SHAPES


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """A bound of one figure."""

    measurement: str
    figure: str
    limit: float
    unit: str
    shapes: Sequence[Shape] = SHAPES
    at_least: bool = False

    @property
    def text(self) -> str:
        """The bound as the table shows it."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}".rstrip()


GOALS: Sequence[Goal] = (
    Goal(measurement="p1", figure="one job p50", limit=7, unit="ms", shapes=(ALL_IN_ONE,)),
    Goal(measurement="p1", figure="one job p99", limit=20, unit="ms", shapes=(ALL_IN_ONE,)),
    Goal(measurement="p1", figure="one job p50", limit=9, unit="ms", shapes=(DISTRIBUTED,)),
    Goal(measurement="p1", figure="one job p99", limit=25, unit="ms", shapes=(DISTRIBUTED,)),
    Goal(measurement="p1", figure="one job in cold Pythons", limit=0.5, unit=""),
    Goal(measurement="p1", figure="one warm job p50", limit=4, unit="ms", shapes=(ALL_IN_ONE,)),
    Goal(measurement="p2", figure="40 isolated steps p50", limit=0.28, unit="s", shapes=(ALL_IN_ONE,)),
    Goal(measurement="p2", figure="40 isolated steps p50", limit=0.36, unit="s", shapes=(DISTRIBUTED,)),
    Goal(measurement="p2", figure="40 warm steps p50", limit=0.16, unit="s"),
    Goal(measurement="p3", figure="3 isolated steps p50", limit=22, unit="ms"),
    Goal(measurement="p3", figure="3 inline steps, warm p50", limit=6, unit="ms"),
    Goal(measurement="p4", figure="isolated Python", limit=130, unit="jobs/s", at_least=True),
    Goal(measurement="p4", figure="warm Python", limit=700, unit="jobs/s", at_least=True),
    Goal(measurement="p4", figure="no-op", limit=1200, unit="jobs/s", at_least=True),
    Goal(measurement="p5", figure="killed until claimed again", limit=5, unit="s"),
    Goal(measurement="p7", figure="an iteration", limit=10, unit="ms"),
    Goal(measurement="p8", figure="statements", limit=2, unit="/s", shapes=(ALL_IN_ONE,)),
    Goal(measurement="p8", figure="resident memory", limit=250, unit="MB", shapes=(ALL_IN_ONE,)),
    Goal(measurement="p9", figure="with its audit entry", limit=2048, unit="bytes"),
    Goal(measurement="p9", figure="without its audit entry", limit=2048, unit="bytes"),
    Goal(measurement="p10", figure="make up until the first answer", limit=8, unit="s"),
    Goal(measurement="p11", figure="claim p50, long line against empty", limit=1.2, unit=TIMES),
    Goal(measurement="p11", figure="list runs p95, long line against empty", limit=1.2, unit=TIMES),
)


class Judgement(StrEnum):
    """How a goal came out."""

    MET = "met"
    MISSED = "missed"
    MISSING = "not available"


class Verdict(msgspec.Struct, frozen=True):
    """One goal beside what was measured for it."""

    goal: Goal
    shape: Shape
    value: float | None
    judgement: Judgement
    reason: str = ""


def judge(measured: Iterable[Measured]) -> list[Verdict]:
    """Return a verdict on every goal whose measurement ran."""
    ran = {(each.measurement, each.shape): each for each in measured}
    verdicts = []
    for goal in GOALS:
        for shape in goal.shapes:
            one = ran.get((goal.measurement, shape))
            if one is None:
                continue
            value = one.find(goal.figure)
            if value is None:
                reason = one.missing.get(goal.figure) or one.missing.get("everything", "it was not measured")
                verdicts.append(Verdict(goal, shape, None, Judgement.MISSING, reason))
                continue
            met = value >= goal.limit if goal.at_least else value <= goal.limit
            verdicts.append(Verdict(goal, shape, value, Judgement.MET if met else Judgement.MISSED))
    return verdicts
