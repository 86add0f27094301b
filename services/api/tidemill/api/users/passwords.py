"""Passwords, as argon2id hashes; hashing is slow and large on purpose, so it runs in few threads and a short line."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from tidemill.api.http.errors import TooManyRequests

T = TypeVar("T")

_THREADS = 2
_LONGEST_LINE = 32


class Passwords:
    """Hashes and verifies; always the same work, whether or not there is such a person."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._waiting = 0
        # What the password of somebody unknown is compared with, so that time tells nothing about who exists.
        self._nobodys = self._hasher.hash(secrets.token_hex(32))

    async def hash(self, password: str) -> str:
        """Return what is stored instead of the password."""
        return await self._in_line(self._hasher.hash, password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Return whether the password is right."""
        return await self._in_line(self._verify, stored, password)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_line(self, work: Callable[..., T], *values: str | None) -> T:
        """Raise TooManyRequests while too many others wait for their answer."""
        if self._waiting >= _LONGEST_LINE:
            raise TooManyRequests("Too many passwords are being looked at in this moment; try again.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *values)
        finally:
            self._waiting -= 1

    def _verify(self, stored: str | None, password: str) -> bool:
        try:
            self._hasher.verify(stored or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None
