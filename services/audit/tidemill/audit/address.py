"""Where the log's database is, for the command line.

An installation that brings its own Postgres makes up the logins itself, so nobody can know the audit service's. Its
socket is of use on this machine alone, so the service leaves that address beside its key; one that names a host is
never written down: whoever runs such a database has set it in the environment.
"""

import logging
import os
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from tidemill.chassis.errors import StartRefused
from tidemill.chassis.settings import ChassisSettings, variable
from tidemill.shared.catalog import Service

log = logging.getLogger(__name__)


def address_file(home: Path) -> Path:
    """Return where the address of a socket is left."""
    return home / "secrets" / "audit-database-url"


def leave(url: str, home: Path) -> None:
    """Write the address down for this machine's user when it is a socket."""
    if urlsplit(url).hostname:
        return
    try:
        _write(address_file(home), url)
    except OSError as error:
        # Only the command line misses it, and says what to set instead.
        log.warning("the audit database's address could not be left in the data folder", extra={"error": str(error)})


def _write(file: Path, url: str) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as stream:
        stream.write(url + "\n")
    draft.replace(file)


def found(settings: ChassisSettings) -> str:
    """Return the address from the settings, or the one that the running service has left."""
    if settings.audit_database_url or settings.database_url:
        return settings.database_url_of(Service.AUDIT)
    try:
        return address_file(settings.home).read_text("utf-8").strip()
    except OSError:
        raise StartRefused(
            f"set {variable('audit_database_url')} to the audit service's login, or {variable('home')} to the data "
            "folder of the installation on this machine"
        ) from None
