"""Names of people, and what may not be done to them."""

import re
from collections.abc import Collection

from tidemill.api.http.errors import Conflict, Unprocessable

_USERNAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,49}")
_EMAIL = re.compile(r"[^\s@/\\]+@[^\s@/\\]+")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]+")


def normal_email(email: str) -> str:
    """Return the one spelling under which a person is kept."""
    return email.strip().lower()


def is_username(name: str) -> bool:
    """Return whether a name can stand in a path such as `u/<name>/script`."""
    return _USERNAME.fullmatch(name) is not None


def username_from(email: str) -> str:
    """Return the username that an email suggests."""
    return _NOT_IN_A_NAME.sub("_", email.partition("@")[0]).strip("_-")[:50] or "user"


class LastSuperadmin(Conflict):
    """This is the last superadmin; make another one first."""


def refuse_bad_email(email: str) -> None:
    """Raise Unprocessable for what is no email."""
    if _EMAIL.fullmatch(email) is None or not email.isprintable():
        raise Unprocessable("The field email is not allowed: it is no email address.")


def refuse_bad_username(username: str) -> None:
    """Raise Unprocessable for a name that can't stand in a path."""
    if not is_username(username):
        raise Unprocessable(
            "The field username is not allowed: at most 50 letters, digits, dots, dashes and underscores, beginning "
            "with a letter, digit or underscore."
        )


def refuse_both(*, is_admin: bool | None, operator: bool | None) -> None:
    """Raise Unprocessable for an admin who would be an operator."""
    if is_admin and operator:
        raise Unprocessable("The field operator is not allowed: an admin is no operator.")


def refuse_last(email: str, superadmins: Collection[str]) -> None:
    """Raise LastSuperadmin when nobody would be left to repair anything."""
    if set(superadmins) == {email}:
        raise LastSuperadmin
