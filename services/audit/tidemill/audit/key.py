"""The key that signs anchors: a file outside the database, made once."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from tidemill.audit.settings import AuditSettings
from tidemill.chassis.errors import StartRefused
from tidemill.chassis.settings import variable

_BYTES = 32


def key_file(settings: AuditSettings, home: Path) -> Path:
    """Return where the key is or will be."""
    return settings.audit_key_file or home / "secrets" / "audit-key"


def made(file: Path) -> bytes:
    """Return the key, made at the first call; of several callers at once all return the same."""
    if not file.exists():
        try:
            _make(file)
        except OSError as error:
            raise StartRefused(f"the audit key {file} can't be made: {error.strerror}; {_HINT}") from error
    return kept(file)


def kept(file: Path) -> bytes:
    """Return the key; raises StartRefused when there is none."""
    try:
        key = bytes.fromhex(file.read_text("ascii"))
    except OSError as error:
        raise StartRefused(f"the audit key {file} can't be read: {error.strerror}; {_HINT}") from error
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise StartRefused(f"{file} is no audit key; {_HINT}")
    return key


_HINT = f"set {variable('audit_key_file')} to the file of the key that signs the audit log"


def _make(file: Path) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_bytes(_BYTES).hex() + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        # A link, not a rename: of two callers at once the first one wins, and both return what it wrote.
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
