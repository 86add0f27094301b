"""What the scheduler can be told."""

from datetime import timedelta
from typing import Annotated

import msgspec

from tidemill.chassis.settings import doc


class SchedulerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Rhythm and retention."""

    retention: Annotated[timedelta, doc("finished jobs, their results and logs are kept for this long")] = timedelta(
        days=30
    )
    job_result: Annotated[int, doc("list of a loop's results in KiB; a longer one fails the loop", ge=1)] = 16384
