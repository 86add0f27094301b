"""The data folder: private to its owner, held by one running instance, and the place where secrets are made once."""

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidemill.chassis.errors import StartRefused

LOCK = "lock"
SECRETS = "secrets"


@contextmanager
def opened(home: Path) -> Iterator[Path]:
    """Create the data folder when it is missing and hold it, so that no second instance can use it meanwhile."""
    folder = private_folder(home.absolute())
    # The kernel drops the lock with the last holder of this descriptor, however we die: no stale lock is possible.
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise StartRefused(
                f"the data folder {folder} is in use by process {holder}; stop it, or set TIDEMILL_HOME to another one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield folder
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> Path:
    """Return the folder, created if necessary, with all access of others taken away."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(folder.stat().st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise StartRefused(
            f"the data folder {folder} cannot be used: {error.strerror}; set TIDEMILL_HOME to a folder of your own"
        ) from error
    return folder


def secret(home: Path, name: str) -> str:
    """Return the secret of this name, made of 192 random bits and stored in a 0600 file at the first call."""
    file = secret_file(home, name)
    try:
        return file.read_text("ascii").strip()
    except FileNotFoundError:
        pass
    private_folder(file.parent)
    draft = file.with_name(f".{name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(24) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        # A link, not a rename: of two callers at once the first one wins, and both return what it wrote.
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
    return file.read_text("ascii").strip()


def secret_file(home: Path, name: str) -> Path:
    """Return where the secret of this name is or will be stored."""
    return home / SECRETS / name
