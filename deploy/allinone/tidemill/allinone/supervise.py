"""Keep several commands running in one process group, as an orchestrator would: restart one, stop all together."""

import asyncio
import os
import signal
import subprocess
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random

from tidemill.allinone.daemon import Say, how_it_ended
from tidemill.allinone.lifeline import child_setup
from tidemill.allinone.output import relay
from tidemill.chassis.backoff import delay

FIRST_PAUSE = timedelta(milliseconds=500)
LONGEST_PAUSE = timedelta(seconds=30)
LONG_RUN = timedelta(seconds=10)  # after it, earlier deaths are forgotten
RNG = Random()  # noqa: S311 - jitter, not a secret


@dataclass(frozen=True)
class Command:
    """One program to keep running; its output appears line by line behind its name."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(repr=False)


async def supervise(commands: Sequence[Command], say: Say, *, grace: timedelta) -> None:
    """Keep all commands running until cancelled, then end them together: SIGTERM, and after the grace SIGKILL."""
    width = max(len(command.name) for command in commands)
    async with asyncio.TaskGroup() as group:
        for command in commands:
            group.create_task(_keep(command, say, f"{command.name:{width}} |", grace), name=command.name)


async def _keep(command: Command, say: Say, prefix: str, grace: timedelta) -> None:
    loop = asyncio.get_running_loop()
    short_runs = 0
    while True:
        began = loop.time()
        try:
            ended = await _run_once(command, lambda line: say(f"{prefix} {line}"), grace)
        except OSError as error:
            ended = f"it cannot be started: {error}"
        short_runs = 1 if loop.time() - began >= LONG_RUN.total_seconds() else short_runs + 1
        pause = delay(short_runs, FIRST_PAUSE, LONGEST_PAUSE, RNG)
        say(f"{prefix} died ({ended}), starts again in {pause.total_seconds():.1f} s")
        await asyncio.sleep(pause.total_seconds())


async def _run_once(command: Command, say: Say, grace: timedelta) -> str:
    """Run the command until it ends, or until we are cancelled, and tell how it ended."""
    reader, writer = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer,
            env=dict(command.env),
            # SIGKILL: an orchestrator that vanishes is a power cut, and leases are made for that.
            preexec_fn=child_setup(signal.SIGKILL),
        )
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    output = asyncio.create_task(relay(reader, say))
    try:
        return how_it_ended(await process.wait())
    finally:
        await asyncio.shield(_end(process, say, grace))
        # A grandchild may hold the pipe open for ever: what it says after the end of its parent is not waited for.
        await asyncio.wait((output,), timeout=0.5)
        output.cancel()


async def _end(process: Process, say: Say, grace: timedelta) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), grace.total_seconds())
    except TimeoutError:
        say(f"did not stop within {grace.total_seconds():.0f} s: killed")
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
