"""Folders that jobs share which run one after the other: made and removed by us, written by jobs, never trusted.

They lie in the sandbox's scratch folder, which goes with the worker: so do the folders of flows that have lost it.
"""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta
from pathlib import Path

MOST_FILES = 200_000
_REMOVAL = timedelta(minutes=1)


def path(scratch: Path, name: str) -> Path:
    """Return where the folder of this name is."""
    return scratch / f"shared-{name}"


def make(scratch: Path, name: str, job_uid: int) -> Path:
    """Make the folder, unless it is there, for jobs alone."""
    folder = path(scratch, name)
    if not folder.exists():
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, job_uid, job_uid)
    return folder


def is_full(folder: str, most_bytes: int) -> bool:
    """Tell whether there is more in it than there may be, or something is hidden in there.

    Jobs may change it meanwhile: no link is followed.
    """
    size = files = 0
    hidden: list[OSError] = []
    try:
        for _, folders, names, here in os.fwalk(folder, onerror=hidden.append):
            files += len(folders) + len(names)
            for name in names:
                try:
                    size += os.stat(name, dir_fd=here, follow_symlinks=False).st_blocks * 512
                except OSError:  # it has gone
                    continue
            if size > most_bytes or files > MOST_FILES or any(isinstance(each, PermissionError) for each in hidden):
                return True
    except RecursionError:  # nested deeper than anything of use
        return True
    return any(isinstance(each, PermissionError) for each in hidden)


def remove(folder: str) -> None:
    """Remove it with all that is in it, however deep."""
    # Not shutil.rmtree, which gives up beyond the depth that Python can nest calls.
    for command in (["chmod", "-R", "u+rwX"], ["rm", "-rf"]):
        subprocess.run([*command, "--", folder], check=False, capture_output=True, timeout=_REMOVAL.total_seconds())
