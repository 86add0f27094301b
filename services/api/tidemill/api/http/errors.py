"""What a caller did wrong, or what we can't do now: one class a status, the docstring is the message.

Raise a subclass (`class JobAlreadyDone(Conflict): "This job has already finished."`) or one of these with a sentence of
its own. It is answered as text/plain, because that is what the existing clients show to their users.
"""

import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar


class HttpError(Exception):
    """The request could not be answered."""

    status: ClassVar[int] = 500

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)

    @property
    def message(self) -> str:
        """The one sentence that the caller reads."""
        return str(self)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that go with the status."""
        return {}


class BadRequest(HttpError):
    """The request can't be understood."""

    status = 400


class Unauthorized(HttpError):
    """Log in, or send a valid token."""

    status = 401

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": "Bearer"}


class Forbidden(HttpError):
    """You are not allowed to do this."""

    status = 403


class NotFound(HttpError):
    """There is nothing here."""

    status = 404


class MethodNotAllowed(HttpError):
    """This path does not know this method."""

    status = 405

    def __init__(self, allowed: frozenset[str]) -> None:
        super().__init__(f"This path only knows {', '.join(sorted(allowed))}.")
        self.allowed = allowed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Allow": ", ".join(sorted(self.allowed))}


class Conflict(HttpError):
    """It is there already, or has changed in the meantime."""

    status = 409


class TooLarge(HttpError):
    """The body is too large."""

    status = 413


class Unsupported(HttpError):
    """The body's type is not supported."""

    status = 415


class Unprocessable(HttpError):
    """A field has a value that is not allowed."""

    status = 422


class _TryLater(HttpError):
    """Try again a little later."""

    def __init__(self, message: str | None = None, *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(max(1, round(self.retry_after.total_seconds())))}


class TooManyRequests(_TryLater):
    """Too many attempts; try again later."""

    status = 429


class Unavailable(_TryLater):
    """Something this needs can't be reached at the moment; try again."""

    status = 503
