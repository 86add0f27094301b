"""The subcommands that every installation has: `settings` and `migrate`."""

import argparse
import os
import sys
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

import msgspec

from tidemill.chassis.cli import Command
from tidemill.chassis.errors import StartRefused
from tidemill.chassis.extensions import load
from tidemill.chassis.migrate import migrate
from tidemill.chassis.service import GROUP, ServiceSpec
from tidemill.chassis.settings import ChassisSettings, describe, read, refuse_unknown
from tidemill.shared.catalog import Service


def setting_kinds() -> Sequence[type[msgspec.Struct]]:
    """Return the structs that declare the settings of what is installed."""
    return [ChassisSettings, *(spec.settings for spec in load(GROUP, ServiceSpec))]


def list_settings(_: argparse.Namespace) -> int:
    """Print every setting with its value, what is allowed and what it means."""
    kinds = setting_kinds()
    refuse_unknown(kinds, os.environ)
    shown = set()
    for line in (each for kind in kinds for each in describe(read(kind, os.environ))):
        # Two services may read the same variable.
        if line.name not in shown:
            shown.add(line.name)
            mark = " " if line.is_default else "*"
            sys.stdout.write(f"{mark} {line.name}={line.value}\n      {line.description} ({line.allowed})\n")
    sys.stdout.write("* set in the environment\n")
    return 0


def apply_migrations(_: argparse.Namespace) -> int:
    """Bring the database to this version."""
    settings = read(ChassisSettings, os.environ)
    url = settings.migrator_database_url or settings.database_url
    if url is None:
        raise StartRefused(
            "set TIDEMILL_MIGRATOR_DATABASE_URL: the URL of a role with CREATEROLE that owns the database"
        )
    passwords = {}
    for service in Service:
        own = urlsplit(getattr(settings, f"{service.value}_database_url") or "")
        if own.username == f"tidemill_{service.value}" and own.password:
            passwords[service] = unquote(own.password)
    migrate(url, passwords, print_line)
    return 0


def print_line(line: str) -> None:
    """Print one line of progress at once, also into a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


SETTINGS = Command(name="settings", help="list all settings, their values and what is allowed", run=list_settings)
MIGRATE = Command(name="migrate", help="bring the database to this version", run=apply_migrations)
