"""What the worker sees: give a script's requirements or its lock, have its environment for the length of a block."""

import asyncio
import hashlib
import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tidemill.shared import requirements
from tidemill.shared.requirements import NotUnderstood, Requirements
from tidemill.worker.environments import index, tree
from tidemill.worker.environments import lock as locks
from tidemill.worker.environments.build import build
from tidemill.worker.environments.failure import NotInstallable
from tidemill.worker.environments.interpreters import Interpreter, Interpreters
from tidemill.worker.environments.lock import Lock
from tidemill.worker.environments.resolve import Resolver
from tidemill.worker.environments.store import Store
from tidemill.worker.environments.together import Say, Together
from tidemill.worker.environments.uv import Uv, translated
from tidemill.worker.sandbox.settings import Tier
from tidemill.worker.settings import WorkerSettings

log = logging.getLogger(__name__)

_ATTEMPTS = 5
_SHORT = 20_000
_DIGITS = 40


@dataclass(frozen=True)
class Environment:
    """An interpreter and the folders of libraries that it looks into."""

    interpreter: str
    folders: tuple[str, ...] = ()


class Environments:
    """All environments below one cache."""

    def __init__(self, settings: WorkerSettings, home: Path, environ: Mapping[str, str], tier: Tier) -> None:
        cache = (settings.cache or home / "cache").absolute()
        self._settings = settings
        self._tier = tier
        self._uv = Uv(cache / "uv", index.sources(environ), settings.install_timeout, offline=settings.offline)
        self._interpreters = Interpreters(self._uv)
        self._resolver = Resolver(cache / "resolutions", self._uv, self._interpreters, settings.resolutions_kept)
        self._store = Store(cache)
        self._together: Together[None] = Together()
        self._built = asyncio.Event()

    async def lock_of(self, language: str, code: str, say: Say, stop: asyncio.Event) -> str:
        """Return the lock of a script as the indexes have it now; raises NotInstallable, or Stopped."""
        return await self._resolver.fresh(await _wanted(language, code), say, stop)

    @asynccontextmanager
    async def lent(
        self, language: str, code: str, lock: str | None, say: Say, stop: asyncio.Event
    ) -> AsyncIterator[Environment]:
        """Give the environment of a script, which stays as it is for the block; raises NotInstallable, or Stopped.

        A lock that is None is found on the way.
        """
        if language != "python3":
            yield Environment((await self._interpreters.find(None)).path)
            return
        if lock is None:
            lock = await self._resolver.remembered(await _wanted(language, code), say, stop)
        pinned = locks.read(lock)
        interpreter = await self._interpreters.find(pinned.python)
        if not pinned.pins:
            yield Environment(interpreter.path)
            return
        digest = _digest(pinned, interpreter)
        for _ in range(_ATTEMPTS):
            libraries = self._borrow(digest)
            if libraries is not None:
                try:
                    self._check_way(libraries)
                    yield Environment(interpreter.path, (str(libraries),))
                finally:
                    self._store.give_back(digest)
                return
            await self._together.join(digest, lambda tell: self._build(digest, pinned, interpreter, tell), say, stop)
        raise NotInstallable("CacheUnavailable", "The packages were removed as soon as they had been installed.")

    async def tend(self) -> None:
        """Clear away what killed builders left and what is too much: now, and after whatever is built."""
        while True:
            self._built.clear()
            try:
                await self.collect()
            except (OSError, NotInstallable) as error:
                log.warning("the cache of packages could not be cleared up", extra={"error": str(error)})
            await self._built.wait()

    async def collect(self) -> None:
        """Clear up once."""
        most = self._settings.cache_size_bytes
        await asyncio.to_thread(self._resolver.forget_old)
        removed = await asyncio.to_thread(self._store.collect, most)
        if removed:
            log.info("environments removed", extra={"environments": removed})
        if await asyncio.to_thread(tree.size, self._uv.cache) > most:
            # Environments are hard links: they keep what they need.
            await self._uv.run("cache", "clean", "--quiet")
            log.info("downloads forgotten")

    def _borrow(self, digest: str) -> Path | None:
        try:
            self._store.prepare()
            return self._store.borrow(digest)
        except OSError as error:
            raise translated(error) from error

    async def _build(self, digest: str, lock: Lock, interpreter: Interpreter, say: Say) -> None:
        await build(self._store, self._uv, digest, lock, interpreter, self._settings.install_timeout, say)
        self._built.set()

    def _check_way(self, libraries: Path) -> None:
        """Raise NotInstallable where jobs, as another user and without mounts of their own, can't enter the folder."""
        if self._tier != "reduced" or os.geteuid() != 0:
            return
        for folder in libraries.parents:
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise NotInstallable(
                    "CacheUnavailable",
                    f"Without namespaces, jobs can't enter {folder}: set TIDEMILL_CACHE to one that everybody may.",
                )


async def _wanted(language: str, code: str) -> Requirements:
    try:
        if len(code) < _SHORT:
            return requirements.of(language, code)
        return await asyncio.to_thread(requirements.of, language, code)
    except NotUnderstood as wrong:
        raise NotInstallable("RequirementsNotUnderstood", str(wrong)) from wrong


def _digest(lock: Lock, interpreter: Interpreter) -> str:
    of = [lock.pins, interpreter.path, interpreter.version]
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:_DIGITS]
