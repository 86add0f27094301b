"""From what a script wants to a lock: exact versions with their hashes, for one interpreter of this machine."""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from tidemill.shared.requirements import Requirements
from tidemill.worker.environments import lock as locks
from tidemill.worker.environments.interpreters import Interpreter, Interpreters
from tidemill.worker.environments.together import Say, Together
from tidemill.worker.environments.uv import Uv, translated

_DIGITS = 40


class Resolver:
    """Finds locks, and remembers them for a while for scripts that have none of their own."""

    def __init__(self, folder: Path, uv: Uv, interpreters: Interpreters, kept: timedelta) -> None:
        self._folder = folder
        self._uv = uv
        self._interpreters = interpreters
        self._kept = kept
        self._together: Together[str] = Together()

    async def fresh(self, wanted: Requirements, say: Say, stop: asyncio.Event) -> str:
        """Return the lock as the indexes have it now; raises NotInstallable, or Stopped."""
        if (known := wanted.lock) is not None:
            return known
        return await self._join(wanted, say, stop, lambda _: None)

    async def remembered(self, wanted: Requirements, say: Say, stop: asyncio.Event) -> str:
        """Return the lock, which may have been found a while ago; raises NotInstallable, or Stopped."""
        if (known := wanted.lock) is not None:
            return known
        return await self._join(wanted, say, stop, self._recall)

    def forget_old(self) -> None:
        """Remove what is remembered for too long."""
        for file in self._folder.glob("*"):
            if self._age(file) > self._kept.total_seconds():
                file.unlink(missing_ok=True)

    async def _join(
        self, wanted: Requirements, say: Say, stop: asyncio.Event, recall: Callable[[Path], str | None]
    ) -> str:
        interpreter = await self._interpreters.find(wanted.python)
        file = self._folder / self._digest(wanted, interpreter)
        if (known := recall(file)) is not None:
            return known
        return await self._together.join(
            file.name, lambda tell: self._resolve(wanted, interpreter, file, tell), say, stop
        )

    async def _resolve(self, wanted: Requirements, interpreter: Interpreter, file: Path, say: Say) -> str:
        began = time.monotonic()
        say(f"resolving {_count(len(wanted.packages), 'requirement')} for Python {interpreter.minor} ...")
        compiled = await self._uv.run(
            *("pip", "compile", "-", "--quiet", "--generate-hashes", "--only-binary", ":all:"),
            *self._uv.sources.options,
            *("--no-header", "--no-annotate", "--python", interpreter.path),
            stdin="\n".join(wanted.packages) + "\n",
        )
        lock = locks.write(interpreter.minor, compiled)
        found = len(locks.read(lock).pins)
        say(f"resolved to {_count(found, 'package')}, took {time.monotonic() - began:.1f} s")
        self._remember(file, lock)
        return lock

    def _recall(self, file: Path) -> str | None:
        try:
            return file.read_text() if self._age(file) <= self._kept.total_seconds() else None
        except FileNotFoundError:
            return None

    def _remember(self, file: Path, lock: str) -> None:
        draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(lock)
            draft.replace(file)
        except OSError as error:
            raise translated(error) from error

    def _age(self, file: Path) -> float:
        try:
            return time.time() - file.stat().st_mtime
        except FileNotFoundError:
            return float("inf")

    def _digest(self, wanted: Requirements, interpreter: Interpreter) -> str:
        of = [
            wanted.packages,
            interpreter.path,
            interpreter.version,
            sorted(self._uv.variables.items()),
            self._uv.sources.options,
        ]
        return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:_DIGITS]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
