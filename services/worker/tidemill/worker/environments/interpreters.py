"""The interpreters of this machine: our own, and others that a script or a lock may ask for."""

import re
import sys
from dataclasses import dataclass
from datetime import timedelta

from tidemill.worker.environments.failure import NotInstallable, NotStarted
from tidemill.worker.environments.uv import Uv, execute
from tidemill.worker.sandbox.settings import own_interpreter

OLDEST = (3, 11)
_PROBE = """\
import os, sys
print(os.path.realpath("%s/bin/python%d.%d" % (sys.base_exec_prefix, *sys.version_info[:2])))
print("%d.%d.%d" % sys.version_info[:3])
"""
_NOT_FOUND = "No interpreter found"
_PROBE_TIMEOUT = timedelta(seconds=20)
_PART = re.compile(r"(===|[~=!<>]=|[<>])?(3(?:\.\d+){0,2})(\.\*)?")


@dataclass(frozen=True)
class Interpreter:
    """One interpreter, by its real path, and its version as `3.11.7`."""

    path: str
    version: str

    @property
    def minor(self) -> str:
        """The version without its last part, which is what locks name."""
        return ".".join(self.version.split(".")[:2])


class Interpreters:
    """Looked for once for each wish."""

    def __init__(self, uv: Uv) -> None:
        self._uv = uv
        self._own = Interpreter(own_interpreter(), ".".join(map(str, sys.version_info[:3])))
        self._found: dict[str, Interpreter] = {}

    async def find(self, wanted: str | None) -> Interpreter:
        """Return our own interpreter if it is what is wanted, else another of this machine; raises NotInstallable."""
        if wanted is None or allows(wanted, self._own.version):
            return self._own
        if wanted not in self._found:
            self._found[wanted] = await self._look_for(wanted)
        return self._found[wanted]

    async def _look_for(self, wanted: str) -> Interpreter:
        missing = NotInstallable(
            "InterpreterMissing", f"This worker has no Python {wanted}; its own is {self._own.version}."
        )
        try:
            path = (await self._uv.run("python", "find", "--system", wanted)).strip()
        except NotInstallable as none:
            if _NOT_FOUND in str(none):
                raise missing from none
            raise
        try:
            code, printed, _ = await execute([path, "-I", "-S", "-c", _PROBE], {}, _PROBE_TIMEOUT)
        except NotStarted:
            raise missing from None
        lines = printed.splitlines()
        if code != 0 or len(lines) != 2:
            raise missing
        found = Interpreter(*lines)
        if tuple(map(int, found.version.split(".")))[:2] < OLDEST:
            raise NotInstallable("InterpreterMissing", f"Python {found.version} is too old: 3.11 is the oldest.")
        return found


def allows(wanted: str, version: str) -> bool:
    """Return whether a version fits a wish such as `3.12` or `>=3.11,<3.13`."""
    return all(_fits(part, version) for part in wanted.split(","))


def _fits(part: str, version: str) -> bool:
    found = _PART.fullmatch(part)
    if found is None:
        return False
    operator = found[1] or "=="
    bound = tuple(map(int, found[2].split(".")))
    actual = tuple(map(int, version.split(".")))
    begins = actual[: len(bound)] == bound
    full = bound + (0,) * (3 - len(bound))
    match operator:
        case "==" | "===":
            return begins
        case "!=":
            return not begins
        case ">=":
            return actual >= full
        case "<":
            return actual < full
        case ">":
            return actual > full and not begins
        case "<=":
            return actual <= full or begins
        case _:
            return actual >= full and actual[: max(1, len(bound) - 1)] == bound[: max(1, len(bound) - 1)]
