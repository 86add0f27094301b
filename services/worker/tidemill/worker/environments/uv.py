"""uv as a program: its environment, its time-out, its end when nobody waits any more, and what its errors mean."""

import asyncio
import errno
import logging
import os
import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random

from uv import find_uv_bin

from tidemill.chassis.backoff import delays
from tidemill.worker.environments.failure import NotInstallable, NotStarted, Unreachable
from tidemill.worker.environments.index import Sources

log = logging.getLogger(__name__)

ATTEMPTS = 3
_FIRST_PAUSE = timedelta(seconds=1)
_LONGEST_PAUSE = timedelta(seconds=8)
_LONGEST_MESSAGE = 4000
_CREDENTIALS = re.compile(r"(://)[^/@\s]+@")
_FRAME = re.compile(r"^[\s\u00d7╰╭│─▶├·]+|^(?:error|hint):\s*", re.MULTILINE)
_DISK_FULL = ("No space left on device", "Disk quota exceeded")
_UNREACHABLE = (
    "error sending request",
    "Connection refused",
    "Connection reset",
    "client error (Connect)",
    "connection closed",
    "dns error",
    "timed out",
    "HTTP status server error (5",
    "Request failed after",
    "Could not connect",
    "error decoding response body",
)
_OFFLINE = ("network was disabled", "Network connectivity is disabled", "offline")
_NO_WHEEL = ("no usable wheels", "building from source is disabled", "no wheels with a matching", "has no binary")
_ONLY_WHEELS = "Only wheels are installed: a package that comes as source alone can't be used."
_WHILE_OFFLINE = (
    "This worker is offline (TIDEMILL_OFFLINE): install the package once while it is online, or name a folder of"
    " wheels by UV_FIND_LINKS or PIP_FIND_LINKS."
)


class Uv:
    """uv with one cache, one set of indexes and one time-out."""

    def __init__(self, cache: Path, sources: Sources, timeout: timedelta, *, offline: bool) -> None:
        self.cache = cache
        self.sources = sources
        self._timeout = timeout
        self._offline = offline
        self.variables = {
            "UV_HTTP_RETRIES": "1",
            **sources.variables,
            "UV_CACHE_DIR": str(cache),
            "UV_NO_CONFIG": "1",
            "UV_NO_PROGRESS": "1",
            "UV_PYTHON_DOWNLOADS": "never",
            "NO_COLOR": "1",
            **({"UV_OFFLINE": "1"} if offline else {}),
        }

    async def run(self, *arguments: str, stdin: str = "", keeps: Sequence[int] = ()) -> str:
        """Return what uv prints; raises NotInstallable. An index that does not answer is asked again, within a bound.

        `keeps` are file descriptors that stay open for as long as it runs, even when this process is killed.
        """
        pauses = delays(_FIRST_PAUSE, _LONGEST_PAUSE, Random())  # noqa: S311 - jitter, not a secret
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(arguments, stdin, keeps)
            except Unreachable as error:
                if attempt == ATTEMPTS:
                    raise
                log.warning("an index did not answer", extra={"error": str(error), "attempt": attempt})
            await asyncio.sleep(next(pauses).total_seconds())
        raise AssertionError("unreachable")

    async def _once(self, arguments: Sequence[str], stdin: str, keeps: Sequence[int]) -> str:
        code, printed, complained = await execute(
            [find_uv_bin(), *arguments], self.variables, self._timeout, stdin=stdin, keeps=keeps
        )
        if code != 0:
            raise self._failure("ResolutionFailed" if "compile" in arguments else "InstallationFailed", complained)
        return printed

    def _failure(self, name: str, complained: str) -> NotInstallable:
        said = _FRAME.sub("", _CREDENTIALS.sub(r"\1", complained.replace("\0", ""))).strip()[:_LONGEST_MESSAGE]
        if any(sign in said for sign in _DISK_FULL):
            return disk_full()
        if self._offline and any(sign in said for sign in _OFFLINE):
            return NotInstallable("Offline", f"{said}\n{_WHILE_OFFLINE}")
        if any(sign in said for sign in _UNREACHABLE):
            return Unreachable("IndexUnreachable", said)
        if any(sign in said for sign in _NO_WHEEL):
            said = f"{said}\n{_ONLY_WHEELS}"
        return NotInstallable(name, said or "uv failed without saying why")


def disk_full() -> NotInstallable:
    return NotInstallable("DiskFull", "There is no space left on the worker's disk for the packages.")


def translated(error: OSError) -> NotInstallable:
    """Return what a failing file system means for the job."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full()
    return NotInstallable("CacheUnavailable", f"The worker can't keep packages in its TIDEMILL_CACHE: {error}.")


async def execute(
    command: Sequence[str],
    environ: Mapping[str, str],
    timeout: timedelta,
    *,
    stdin: str = "",
    keeps: Sequence[int] = (),
) -> tuple[int, str, str]:
    """Return exit code and both outputs; on cancellation and after the time-out its whole group is killed.

    Raises NotInstallable after the time-out, and NotStarted.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            pass_fds=tuple(keeps),
            cwd="/",
        )
    except OSError as error:
        raise NotStarted("NotStarted", f"The worker can't start {command[0]}: {error}.") from error
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            printed, complained = await process.communicate(stdin.encode())
    except TimeoutError:
        raise NotInstallable(
            "InstallTimeout", f"The packages were not there within {timeout.total_seconds():g} s."
        ) from None
    finally:
        # Also when it has ended by itself: nothing that it started goes on.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert process.returncode is not None
    return process.returncode, printed.decode(errors="replace"), complained.decode(errors="replace")
