"""`tidemill audit verify`: is the log as it was written?"""

import argparse
import asyncio
import os
from collections.abc import Mapping
from datetime import timedelta

from tidemill.audit.address import found
from tidemill.audit.key import kept, key_file
from tidemill.audit.settings import AuditSettings
from tidemill.audit.verify import verify
from tidemill.chassis.cli import Command
from tidemill.chassis.commands import print_line
from tidemill.chassis.database import Database
from tidemill.chassis.errors import DatabaseUnavailable, StartRefused
from tidemill.chassis.settings import ChassisSettings, read

_PATIENCE = 3
"""How many times the rhythm of the anchors the newest one may lag behind."""


async def verified(environ: Mapping[str, str], workspace: str | None) -> bool:
    """Verify the log and say what was found."""
    settings, own = read(ChassisSettings, environ), read(AuditSettings, environ)
    url, key = found(settings), kept(key_file(own, settings.home))
    async with Database(url, name="audit-verify", connections=2) as database:
        await database.wait_until_reachable(timedelta(seconds=5))
        findings = await verify(database, key, own.audit_anchor * _PATIENCE, print_line, workspace)
    print_line("✗ the audit log was tampered with" if findings else "✓ the audit log is whole")
    return not findings


def run(arguments: argparse.Namespace) -> int:
    """Return 0 when every chain is whole and 1 when one is not."""
    try:
        return 0 if asyncio.run(verified(os.environ, arguments.workspace)) else 1
    except DatabaseUnavailable as error:
        raise StartRefused(f"Postgres can't be reached: {error}") from error


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `tidemill audit`."""
    below = parser.add_subparsers(required=True, metavar="COMMAND")
    verify_parser = below.add_parser("verify", help="find the first altered, missing or inserted row of each chain")
    verify_parser.add_argument("--workspace", help="only the chain of this workspace (default: all)")


COMMAND = Command(name="audit", help="prove that the audit log is as it was written", run=run, configure=configure)
