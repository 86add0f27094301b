"""What is done to whole folders: measured, sealed, brought to the disk, removed."""

import ctypes
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PROGRAM, _FILE = 0o555, 0o444
_libc = ctypes.CDLL(None, use_errno=True)


def seal(folder: Path) -> int:
    """Take the right to write from everybody, give everybody the right to read, and return the size."""
    size = 0
    for path, status in _below(folder):
        if stat.S_ISLNK(status.st_mode):
            continue
        is_folder = stat.S_ISDIR(status.st_mode)
        size += 0 if is_folder else status.st_size
        wanted = _PROGRAM if is_folder or status.st_mode & 0o111 else _FILE
        if stat.S_IMODE(status.st_mode) != wanted:
            path.chmod(wanted)
    folder.chmod(_PROGRAM)
    return size


def size(folder: Path) -> int:
    """Return what the files below a folder take, a file with several names once for all of them."""
    return sum({each.st_ino: each.st_size for _, each in _below(folder) if stat.S_ISREG(each.st_mode)}.values())


def sync(folder: Path) -> None:
    """Bring to the disk what was written, before a rename says that it is there."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(file) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(folder))
    finally:
        os.close(file)


def remove(folder: Path) -> None:
    """Remove a folder, sealed or not, if it is there."""
    if not folder.exists():
        return
    with suppress(OSError):
        # Also for those who are not root; what can't be removed now is tried again by the next who clears up.
        for path in [folder, *(path for path, status in _below(folder) if stat.S_ISDIR(status.st_mode))]:
            path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            yield path, path.lstat()
