"""The very first start: somebody has to be able to log in.

Runs at every start and does nothing once anybody exists. Several replicas may start at once: one does it, under a lock,
and the password file is written before the commit, so that there is never an admin whose password nobody knows. A start
that died in between leaves the file, and the next one uses the password in it.
"""

import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from tidemill.api.settings import ApiSettings
from tidemill.api.users.passwords import Passwords
from tidemill.api.users.rules import normal_email
from tidemill.chassis.database import Database
from tidemill.chassis.sql import load

log = logging.getLogger(__name__)

QUERIES = load("tidemill.api", "bootstrap.sql")
PASSWORD_FILE = "admin-password"  # noqa: S105 - the name of a file
USERNAME = "admin"
WORKSPACES = {"admins": "Admins", "starter": "Starter"}


@dataclass(frozen=True, kw_only=True)
class FirstAdmin:
    """Who was made at the first start, and where their password is."""

    email: str
    password_file: Path | None
    """None when the password came from the settings."""


async def make_first_admin(
    database: Database, passwords: Passwords, settings: ApiSettings, home: Path
) -> FirstAdmin | None:
    """Make the first superadmin and two workspaces, and return who it is; None when somebody was there already."""
    if await database.fetchval(QUERIES.anybody):
        return None
    email = normal_email(settings.admin_email)
    file = None if settings.admin_password else home / PASSWORD_FILE
    async with database.transaction() as tx:
        await tx.execute(QUERIES.take_turns)
        if await tx.fetchval(QUERIES.anybody):
            return None
        password = settings.admin_password or _password_in(home / PASSWORD_FILE)
        await tx.execute(QUERIES.add_superadmin, email, await passwords.hash(password))
        for workspace, name in WORKSPACES.items():
            await tx.execute(QUERIES.add_workspace, workspace, name, email)
            await tx.execute(QUERIES.add_admin, workspace, USERNAME, email)
    log.info("first admin made", extra={"email": email, "password_file": str(file) if file else "(from the settings)"})
    return FirstAdmin(email=email, password_file=file)


def _password_in(file: Path) -> str:
    """Return the password in the file, after writing a new one there if there is none."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        kept = file.read_text(encoding="utf-8").strip()
        if kept:
            return kept
        descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)
    password = secrets.token_urlsafe(18)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(password + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    return password
