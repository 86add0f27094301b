"""Make sure that the tests have a RabbitMQ: the one at TIDEMILL_AMQP_URL, one on this machine, or Debian's package."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.allinone.rabbitmq import RabbitMqNotFound, find_rabbitmq
from tidemill.chassis.errors import StartRefused

INSTALL = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "rabbitmq-server")
UPDATE = ("apt-get", "update", "--quiet")
POLICY = Path("/usr/sbin/policy-rc.d")


def main() -> None:
    """Say which RabbitMQ will be used, or end with one line that says what to install."""
    try:
        sys.stdout.write(f"tidemill: {provide(os.environ)}\n")
    except StartRefused as error:
        sys.exit(f"tidemill: {error}")


def provide(environment: dict[str, str] | os._Environ[str]) -> str:
    """Return a line that tells which RabbitMQ the tests will use, after installing one where that is needed."""
    if environment.get("TIDEMILL_AMQP_URL"):
        return "tests use the RabbitMQ of TIDEMILL_AMQP_URL"
    try:
        return f"tests use a private node of the RabbitMQ in {find_rabbitmq()}"
    except RabbitMqNotFound:
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise
    sys.stdout.write("tidemill: installing Debian's package rabbitmq-server ...\n")
    sys.stdout.flush()
    install_package({**environment, "DEBIAN_FRONTEND": "noninteractive"})
    return f"tests use a private node of the RabbitMQ in {find_rabbitmq()}"


def install_package(environment: dict[str, str]) -> None:
    """Install Debian's package without letting it start a server of its own."""
    with no_service_starts():
        first = subprocess.run(INSTALL, env=environment, capture_output=True, check=False)
        if first.returncode == 0:
            return
        # A fresh image has no lists of packages yet.
        subprocess.run(UPDATE, env=environment, capture_output=True, check=False)
        second = subprocess.run(INSTALL, env=environment, capture_output=True, text=True, check=False)
    if second.returncode != 0:
        reason = (second.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StartRefused(f"`{' '.join(INSTALL)}` failed ({reason}); install RabbitMQ, or set TIDEMILL_AMQP_URL")


@contextmanager
def no_service_starts() -> Iterator[None]:
    """Tell Debian's package scripts meanwhile to start nothing, unless the machine has a policy of its own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


if __name__ == "__main__":
    main()
