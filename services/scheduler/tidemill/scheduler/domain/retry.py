"""When a step that failed is tried again."""

from datetime import timedelta

from tidemill.shared.flow import Retry

LONGEST = timedelta(hours=6)


def pause(retry: Retry | None, failures: int, luck: float) -> timedelta | None:
    """Return how long to wait after so many failures before this one, or None when it was the last try.

    Constant tries come first and count in the exponent of the others: `multiplier * seconds ** (failures + 1)`, at most
    six hours, give or take up to `random_factor` percent. `luck` lies between 0 and 1.
    """
    if retry is None:
        return None
    constant, exponential = retry.constant, retry.exponential
    if constant is not None and failures < constant.attempts:
        return min(timedelta(seconds=constant.seconds), LONGEST)
    tried = failures - (constant.attempts if constant is not None else 0)
    if exponential is None or tried >= exponential.attempts:
        return None
    # Compared as integers: a high power does not fit a timedelta.
    seconds = min(exponential.multiplier * exponential.seconds ** min(failures + 1, 64), int(LONGEST.total_seconds()))
    swing = min(exponential.random_factor, 100) / 100 * (2 * luck - 1)
    return min(timedelta(seconds=seconds * (1 + swing)), LONGEST)
