"""Pauses double up to a cap and are spread."""

from datetime import timedelta
from itertools import islice
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tidemill.chassis.backoff import delay, delays

FIRST, CAP = timedelta(milliseconds=100), timedelta(seconds=15)


class Highest(Random):
    """Draws the upper end of every range."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


def test_pauses_double_until_the_cap() -> None:
    seconds = [pause.total_seconds() for pause in islice(delays(FIRST, CAP, Highest()), 10)]
    assert seconds == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]


def test_the_pause_of_an_attempt_is_the_same_as_in_a_row() -> None:
    row = list(islice(delays(FIRST, CAP, Highest()), 10))
    assert [delay(attempt, FIRST, CAP, Highest()) for attempt in range(1, 11)] == row


@given(st.integers(min_value=1, max_value=10**9), st.randoms(use_true_random=False))
def test_no_pause_is_longer_than_the_cap_or_shorter_than_half_the_first(attempt: int, rng: Random) -> None:
    assert FIRST / 2 <= delay(attempt, FIRST, CAP, rng) <= CAP


def test_two_processes_do_not_come_back_at_once() -> None:
    assert list(islice(delays(FIRST, CAP, Random(1)), 5)) != list(islice(delays(FIRST, CAP, Random(2)), 5))


def test_a_first_pause_above_the_cap_is_the_cap() -> None:
    assert next(delays(CAP * 2, CAP, Highest())) == CAP
