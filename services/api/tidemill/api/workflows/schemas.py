"""What jobs send of their own steps, and what they are answered."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from tidemill.api.jobs.schemas import Raw


class InlineStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step that has run inside its workflow's own job."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    result: Raw
    started_at: datetime | None = None
    duration_ms: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What a failed step will be told as from now on."""

    failure: Raw | UnsetType = UNSET


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a function of the job's own script is called with."""

    args: Raw = msgspec.Raw(b"{}")


class TaskQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Where the function is to run."""

    tag: str | None = None
