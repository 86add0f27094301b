"""Where a job may write."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """The job's folders: its working folder, its temporary files and its shared memory."""

    job: str
    tmp: str
    shm: str = "/dev/shm"
