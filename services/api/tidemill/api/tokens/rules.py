"""What a token is: 43 random letters and digits, shown once; kept are its SHA-256 and its first ten characters."""

import hashlib
import secrets
import string
from dataclasses import dataclass

_LETTERS = string.ascii_letters + string.digits
_LENGTH = 43
"""62^43 is more than 2^256."""
PREFIX_LENGTH = 10
JOB_TOKEN_PREFIX = "tmj_"  # noqa: S105 - what a job's token begins with, no secret


@dataclass(frozen=True, kw_only=True)
class NewSecret:
    """A token at its birth, the only moment at which its text is known."""

    text: str
    prefix: str
    hash: bytes


def mint() -> NewSecret:
    """Return a new token."""
    text = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    return NewSecret(text=text, prefix=text[:PREFIX_LENGTH], hash=digest(text))


def digest(token: str) -> bytes:
    """Return what is kept of a token. Plain SHA-256 is right here: 256 random bits can't be guessed."""
    return hashlib.sha256(token.encode()).digest()


def is_job_token(token: str) -> bool:
    """Return whether a running job sent this."""
    return token.startswith(JOB_TOKEN_PREFIX)
