"""Environments on disk: found, lent, built under a lock, and removed when they are too many.

Who uses one holds its lock shared, who builds or removes it exclusively. The kernel lets go of the locks of a process
that was killed, and uv inherits the builder's, so that nobody clears up under an unpacking that still goes on.
"""

import asyncio
import fcntl
import json
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import ParamSpec

from tidemill.worker.environments import tree

log = logging.getLogger(__name__)

COMPLETE = "complete"
_BUILDING, _GOING = "tmp-", "gone-"
_LOOK_AGAIN = 0.05
P = ParamSpec("P")


async def to_its_end(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Do it in a thread and return when it is done, also when we are cancelled: a thread can't be stopped."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    canceled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait({working})
        except asyncio.CancelledError as again:
            canceled = again
    if canceled is not None:
        raise canceled
    await working


class Store:
    """The folder of environments, by digest."""

    def __init__(self, cache: Path) -> None:
        self._environments = cache / "environments"
        self._locks = cache / "locks"
        self._lent: dict[str, tuple[int, int]] = {}

    def prepare(self) -> None:
        """Make the folders."""
        for folder in (self._environments, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        self._environments.chmod(0o755)

    def find(self, digest: str) -> Path | None:
        """Return the libraries of a complete environment."""
        folder = self._environments / digest
        try:
            libraries = folder / str(json.loads((folder / COMPLETE).read_text())["libraries"])
        except (FileNotFoundError, ValueError, KeyError):
            return None
        return libraries if libraries.is_dir() else None

    def borrow(self, digest: str) -> Path | None:
        """Return the libraries and keep them from being removed; None when there are none or they are being built."""
        lock, count = self._lent.get(digest, (None, 0))
        if lock is None:
            lock = self._lock(digest, fcntl.LOCK_SH)
        if lock is None:
            return None
        self._lent[digest] = lock, count + 1
        try:
            libraries = self.find(digest)
            if libraries is not None:
                os.utime(libraries.parent / COMPLETE)
                return libraries
        except BaseException:
            self.give_back(digest)
            raise
        self.give_back(digest)
        return None

    def give_back(self, digest: str) -> None:
        """Let the libraries be removed when nobody else uses them."""
        lock, count = self._lent.pop(digest)
        if count > 1:
            self._lent[digest] = lock, count - 1
        else:
            os.close(lock)

    @asynccontextmanager
    async def building(self, digest: str) -> AsyncIterator[int]:
        """Be the only one who builds an environment for the block; gives the lock, for those who work for us."""
        while (lock := self._lock(digest, fcntl.LOCK_EX)) is None:  # noqa: ASYNC110 - another process lets go of it
            await asyncio.sleep(_LOOK_AGAIN)
        try:
            yield lock
        finally:
            os.close(lock)

    @asynccontextmanager
    async def draft(self, digest: str) -> AsyncIterator[Path]:
        """Give an empty folder that is to become the environment, and clear it away unless it does.

        Nothing of it is left to do when the block has been left: whoever holds the lock for it may let go then.
        """
        folder = self._environments / f"{_BUILDING}{digest}-{secrets.token_hex(4)}"
        libraries = folder / f"lib-{secrets.token_hex(4)}"
        libraries.mkdir(parents=True)
        try:
            yield libraries
        finally:
            await to_its_end(tree.remove, folder)

    def publish(self, digest: str, libraries: Path, packages: int) -> None:
        """Make a draft read-only and durable, and let it be the environment."""
        size = tree.seal(libraries)
        draft = libraries.parent
        (draft / COMPLETE).write_text(json.dumps({"libraries": libraries.name, "packages": packages, "bytes": size}))
        draft.chmod(0o755)
        tree.sync(draft)
        final = self._environments / digest
        tree.remove(final)
        draft.rename(final)
        tree.sync(self._environments)

    def collect(self, most_bytes: int) -> int:
        """Remove what killed builders have left, and the environments longest unused beyond a size; return how many."""
        if not self._environments.is_dir():
            return 0
        for folder in self._environments.glob(f"{_GOING}*"):
            tree.remove(folder)
        for folder in self._environments.glob(f"{_BUILDING}*"):
            with self._alone(folder.name.removeprefix(_BUILDING).partition("-")[0]) as alone:
                if alone:
                    tree.remove(folder)
        known = sorted(self._known())
        total = sum(size for _, size, _ in known)
        removed = 0
        for _, size, digest in known:
            if total <= most_bytes:
                break
            if self._forget(digest):
                total -= size
                removed += 1
        return removed

    def _known(self) -> Iterator[tuple[float, int, str]]:
        for folder in self._environments.iterdir():
            if folder.name.startswith((_BUILDING, _GOING)):
                continue
            with suppress(FileNotFoundError, ValueError, KeyError):
                complete = folder / COMPLETE
                yield complete.stat().st_mtime, json.loads(complete.read_text())["bytes"], folder.name

    def _forget(self, digest: str) -> bool:
        with self._alone(digest) as alone:
            if not alone:
                return False
            going = self._environments / f"{_GOING}{digest}-{secrets.token_hex(4)}"
            with suppress(FileNotFoundError):
                (self._environments / digest).rename(going)
            (self._locks / digest).unlink(missing_ok=True)
        tree.remove(going)
        log.info("environment removed", extra={"digest": digest})
        return True

    @contextmanager
    def _alone(self, digest: str) -> Iterator[bool]:
        lock = self._lock(digest, fcntl.LOCK_EX)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                os.close(lock)

    def _lock(self, digest: str, kind: int) -> int | None:
        """Return the locked file, or None when somebody else has it."""
        path = self._locks / digest
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            # Who removes an environment removes its lock as well: one that is not there any more guards nothing.
            if os.fstat(file).st_ino == path.stat().st_ino:
                return file
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None
