"""Whether the job's own folders are full."""

from __future__ import annotations

import os
from contextlib import suppress

_folders: list[str] = []


def watch(*folders: str) -> None:
    """Take note of the folders that the job may write to."""
    _folders[:] = folders


def exhausted() -> str | None:
    """Return `files` when no more files can be made in one of the job's folders, `disk` when nothing fits into it."""
    for folder in _folders:
        with suppress(OSError):
            room = os.statvfs(folder)
            if room.f_files and not room.f_favail:
                return "files"
            if room.f_blocks and not room.f_bavail:
                return "disk"
    return None
