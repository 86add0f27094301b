"""A goal is judged by the figure it names, and by nothing else."""

from tests.bench.figures import Figure, Measured, spread
from tests.bench.goals import GOALS, Judgement, judge
from tests.bench.measurements import MEASUREMENTS


def outcome(measured: Measured, figure: str) -> tuple[Judgement, str]:
    (verdict,) = [each for each in judge([measured]) if each.goal.figure == figure]
    return verdict.judgement, verdict.reason


def test_a_latency_at_the_bound_meets_its_goal_and_one_above_misses_it() -> None:
    at, above = (
        Measured(measurement="p1", shape="all-in-one", figures=[Figure("one job p50", value, "ms")])
        for value in (7.0, 7.1)
    )
    assert outcome(at, "one job p50") == (Judgement.MET, "")
    assert outcome(above, "one job p50") == (Judgement.MISSED, "")


def test_a_rate_has_to_reach_its_bound() -> None:
    slow, fast = (
        Measured(measurement="p4", shape="all-in-one", figures=[Figure("isolated Python", value, "jobs/s")])
        for value in (129.0, 130.0)
    )
    assert outcome(slow, "isolated Python")[0] is Judgement.MISSED
    assert outcome(fast, "isolated Python")[0] is Judgement.MET


def test_what_could_not_be_measured_keeps_its_reason_and_is_never_met() -> None:
    refused = Measured(measurement="p4", shape="distributed", missing={"no-op": "not available yet: 422"})
    assert outcome(refused, "no-op") == (Judgement.MISSING, "not available yet: 422")
    failed = Measured(measurement="p4", shape="distributed", missing={"everything": "failed: TimeoutError"})
    assert outcome(failed, "no-op") == (Judgement.MISSING, "failed: TimeoutError")


def test_every_goal_is_about_a_measurement_that_exists() -> None:
    assert {goal.measurement for goal in GOALS} <= set(MEASUREMENTS)


def test_percentiles_are_milliseconds_and_never_beyond_the_samples() -> None:
    latency = spread(number / 1000 for number in range(1, 102))
    assert (latency.p50, latency.p95, latency.p99, latency.samples) == (51, 96, 100, 101)
    assert spread([0.002]).p99 == 2
