"""The `tidemill` command; its subcommands are found by entry points, so that each service brings its own."""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from tidemill.chassis.errors import StartRefused
from tidemill.chassis.extensions import load

GROUP = "tidemill.commands"


@dataclass(frozen=True, kw_only=True)
class Command:
    """One subcommand."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], int]
    configure: Callable[[argparse.ArgumentParser], None] = lambda _: None


def main() -> None:
    """Run the command line; a refused start is one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="tidemill", description="Scripts become jobs, webhooks, flows, schedules and triggers."
    )
    parser.add_argument("--version", action="version", version=f"tidemill {version('tidemill-chassis')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    try:
        for command in load(GROUP, Command):
            below = commands.add_parser(command.name, help=command.help, description=command.help)
            command.configure(below)
            below.set_defaults(run=command.run)
        chosen = parser.parse_args()
        sys.exit(chosen.run(chosen))
    except StartRefused as refused:
        sys.stderr.write(f"tidemill: {refused}\n")
        sys.exit(2)
    except BrokenPipeError:
        # Somebody piped us into `head`; nothing more can be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
