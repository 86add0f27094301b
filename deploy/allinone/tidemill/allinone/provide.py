"""Make sure that the tests have what no wheel brings: a RabbitMQ, and a tool that gives jobs a network of their own.

| what | looked for | else, as root on Debian | else |
|---|---|---|---|
| RabbitMQ | TIDEMILL_AMQP_URL, this machine | it is installed | one line says what to install; nothing is tested |
| network | pasta, slirp4netns | passt is installed | the tests that need it are left out and say so |
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tidemill.allinone.rabbitmq import RabbitMqNotFound, find_rabbitmq
from tidemill.chassis.errors import StartRefused

INSTALL = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends")
UPDATE = ("apt-get", "update", "--quiet")
POLICY = Path("/usr/sbin/policy-rc.d")
UPLINKS = ("pasta", "slirp4netns")


def main() -> None:
    """Say what will be used, or end with one line that says what to install."""
    try:
        for line in (rabbitmq(os.environ), uplink(os.environ)):
            sys.stdout.write(f"tidemill: {line}\n")
    except StartRefused as error:
        sys.exit(f"tidemill: {error}")


def rabbitmq(environment: Mapping[str, str]) -> str:
    """Return a line that tells which RabbitMQ the tests will use, after installing one where that is needed."""
    if environment.get("TIDEMILL_AMQP_URL"):
        return "tests use the RabbitMQ of TIDEMILL_AMQP_URL"
    try:
        return f"tests use a private node of the RabbitMQ in {find_rabbitmq()}"
    except RabbitMqNotFound:
        if not can_install():
            raise
    if (reason := install("rabbitmq-server", environment)) is not None:
        raise StartRefused(f"rabbitmq-server can't be installed ({reason}); install RabbitMQ, or set TIDEMILL_AMQP_URL")
    return f"tests use a private node of the RabbitMQ in {find_rabbitmq()}"


def uplink(environment: Mapping[str, str]) -> str:
    """Return a line that tells what connects the jobs' networks in the tests, after installing it where possible."""
    reason = "neither pasta nor slirp4netns is here; install passt"
    if not any(map(shutil.which, UPLINKS)) and can_install():
        reason = install("passt", environment) or reason
    tool = next(filter(shutil.which, UPLINKS), None)
    return f"tests connect jobs' networks by {tool}" if tool else f"tests of jobs' networks are left out: {reason}"


def can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str, environment: Mapping[str, str]) -> str | None:
    """Install Debian's package without letting it start a server of its own; return why it could not be done."""
    sys.stdout.write(f"tidemill: installing Debian's package {package} ...\n")
    sys.stdout.flush()
    environment = {**environment, "DEBIAN_FRONTEND": "noninteractive"}
    command = [*INSTALL, package]
    with no_service_starts():
        if subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0:
            return None
        # A fresh image has no lists of packages yet.
        subprocess.run(UPDATE, env=environment, capture_output=True, check=False)
        second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return None if second.returncode == 0 else (second.stderr.strip().splitlines() or ["no reason given"])[-1]


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
